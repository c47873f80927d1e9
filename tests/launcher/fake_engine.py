"""Stands in for a vLLM server: same command line and socket, no model. Standard library only.

`FAKE_ENGINE` chooses what it does: nothing given, it serves; see `main`.
"""

import http.server
import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def main() -> None:
    mode = os.environ.get("FAKE_ENGINE", "")
    line = "(APIServer pid=1) INFO 01-01 00:00:00 [x.py:1] non-default args: {}"
    print(line, flush=True)  # noqa: T201 - a program of its own
    if mode == "fail":
        raise ValueError("max_model_len 9000 is more than the model's 512")
    if mode == "silent":
        sys.exit(7)
    if mode == "hang":
        time.sleep(600)
    if mode == "stubborn":  # ends neither on SIGTERM nor with its parent
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode == "family" or (mode == "stubborn" and "FAKE_PIDS" in os.environ):
        # A child in a session of its own, which outlives SIGTERM to the parent's group.
        child = subprocess.Popen([sys.executable, "-c", STUBBORN_CHILD], start_new_session=True)
        Path(os.environ["FAKE_PIDS"]).write_text(f"{os.getpid()} {child.pid}")
    if mode == "dies":  # once it is told so; the telling file goes
        threading.Thread(target=end_once_told, daemon=True).start()
    if mode == "once":  # its next start fails
        if Path(os.environ["FAKE_PIDS"]).exists():
            raise ValueError("no second life")
        Path(os.environ["FAKE_PIDS"]).write_text(str(os.getpid()))
    if mode == "tells":  # how it was started, and after a while that it serves
        tell("begins", argv=sys.orig_argv, environment=dict(os.environ))
        time.sleep(0.3)
        tell("serves")
    Server(sys.argv[sys.argv.index("--uds") + 1], Handler).serve_forever()


def tell(what: str, **more: object) -> None:
    name = sys.argv[sys.argv.index("--served-model-name") + 1]
    with Path(os.environ["FAKE_TELLS"]).open("a") as file:
        file.write(json.dumps({"what": what, "name": name, **more}) + "\n")


def end_once_told() -> None:
    told = Path(os.environ["FAKE_PIDS"])
    while not told.exists():
        time.sleep(0.02)
    told.unlink()
    os._exit(3)


STUBBORN_CHILD = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(600)
"""

if __name__ == "__main__":
    main()
