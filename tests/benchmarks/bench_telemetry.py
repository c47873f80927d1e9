"""What telemetry costs the front end: `python tests/benchmarks/bench_telemetry.py`.

Requests go through two tiers (the first escalates) of fake vLLM engines in another process. The
same front end is measured with telemetry off, with metering and records, and with spans too, in
turns, so that a busy machine troubles all alike. Figures are CPU time of the front end's process
per request, its threads included: on one core its throughput is the inverse. The least of all
rounds is compared, since other work on the machine only ever adds, and so is the median of the
ratios inside each round. Target: less than 3 %.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI

from hybridserve_llm.clock import SystemClock
from hybridserve_llm.config.load import parse_config
from hybridserve_llm.server.build import Serving, build_app
from hybridserve_llm.server.metering import Probes
from hybridserve_llm.testing import ScriptedNvml, create_fake_vllm_app, serving

TIERS = ("small", "giant")
MODES = ("off", "metered", "spans")
IN_FLIGHT = 16
BODY = orjson.dumps(
    {
        "model": "hybridserve",
        "messages": [{"role": "user", "content": "How many legs has a spider? " * 4}],
        "max_tokens": 64,
    }
)


def run_engines(folder: str, port: Any) -> None:
    """The engines, and somebody who takes spans, until killed."""

    async def serve() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for name in TIERS:
                app = create_fake_vllm_app(model=name)
                await stack.enter_async_context(serving(app, Path(folder) / f"{name}.sock"))
            taker = HTTPServer(("127.0.0.1", 0), SpanTaker)
            port.send(taker.server_port)
            await asyncio.to_thread(taker.serve_forever)

    asyncio.run(serve())


class SpanTaker(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextlib.asynccontextmanager
async def front_end(folder: Path, mode: str, span_port: int) -> AsyncIterator[FastAPI]:
    is_on = mode != "off"
    endpoint = f"http://127.0.0.1:{span_port}/v1/traces" if mode == "spans" else None
    config = parse_config(
        {
            "tiers": [
                {"name": "small", "model": "/m/s", "accept": {"score_at_least": -0.0}},
                {"name": "giant", "model": "/m/g"},
            ],
            "energy": {"enabled": is_on},
            "records": {"file": str(folder / "records.jsonl") if is_on else None},
            "tracing": {"otlp_endpoint": endpoint},
        },
        source="benchmark",
    )
    endpoints = {name: [f"unix:{folder / name}.sock"] for name in TIERS}
    uuids = {name: [["GPU-1"]] for name in TIERS}
    probes = Probes(open_nvml=lambda: ScriptedNvml(clock=SystemClock()), powercap=folder)
    app = build_app(config, Serving(endpoints=endpoints, gpu_uuids=uuids, probes=probes))
    async with app.router.lifespan_context(app):
        yield app


async def ask(app: FastAPI) -> None:
    """One request, straight into the application, so that no client's CPU time is counted."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "scheme": "http",
    }
    sent: list[Any] = []
    has_body = False

    async def receive() -> dict[str, Any]:
        nonlocal has_body
        if has_body:
            await asyncio.Event().wait()
        has_body = True
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent[0]["status"] == 200, sent


async def ask_all(app: FastAPI, n_requests: int) -> None:
    """So many requests, `IN_FLIGHT` at a time; a multiple of it."""

    async def worker() -> None:
        for _ in range(n_requests // IN_FLIGHT):
            await ask(app)

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(worker())


async def measure(folder: Path, span_port: int, rounds: int, n_requests: int) -> None:
    found: dict[str, list[float]] = {mode: [] for mode in MODES}
    for turn in range(rounds + 1):
        for mode in MODES if turn % 2 else reversed(MODES):
            async with front_end(folder, mode, span_port) as app:
                await ask_all(app, 4 * IN_FLIGHT)  # connections, first imports
                before_s = time.process_time()
                await ask_all(app, n_requests)
            # The end of the front end is in it, as it settles the last requests and their records.
            cost_us = (time.process_time() - before_s) / n_requests * 1e6
            if turn > 0:  # the first round warms up
                found[mode].append(cost_us)
    sys.stdout.write(table_of(found))


def table_of(found: dict[str, list[float]]) -> str:
    lines = [
        "| telemetry | CPU us a request, least | median | most | least against off | by round |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for mode, costs in found.items():
        change = f"{100 * (min(costs) / min(found['off']) - 1):+.1f} %"
        middle = statistics.median(costs)
        ratios = [cost / off for cost, off in zip(costs, found["off"], strict=True)]
        by_round = f"{100 * (statistics.median(ratios) - 1):+.1f} %"
        shown = f"{min(costs):.0f} | {middle:.0f} | {max(costs):.0f} | {change} | {by_round}"
        lines.append(f"| {mode} | {shown} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=800)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        engines = multiprocessing.Process(target=run_engines, args=(folder, sender), daemon=True)
        engines.start()
        try:
            port = receiver.recv()
            asyncio.run(measure(Path(folder), port, options.rounds, options.requests))
        finally:
            engines.kill()
            engines.join()


if __name__ == "__main__":
    main()
