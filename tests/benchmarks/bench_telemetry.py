"""What telemetry costs the front end: `python tests/benchmarks/bench_telemetry.py`.

    this process          front end                     engines
    16 in flight ──TCP──> uvicorn, as hs-launch serves ──unix──> two tiers, the first escalates
    (core 1)              (core 0)                      (core 1)

Two front ends run at a time, one with telemetry and one without, and are loaded in turns of a few
seconds (off, on, on, off, …), so that other work on the machine troubles both alike. Several pairs
of processes are measured, since two processes of one program differ by a percent. The front end is
what the load waits for: its share of a core is printed. Target: less than 3 % of its requests a
second. `on` is metering (NVML, scripted), counters for Prometheus and records; `off` has none of
these; `spans` has OpenTelemetry spans beside all of `on`.
"""

import argparse
import asyncio
import gc
import http.server
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import uvloop
from closed_loop import ClosedLoop
from replayed_engines import serve_replayed

from hybridserve_llm.clock import SystemClock
from hybridserve_llm.config.load import parse_config
from hybridserve_llm.server.build import Serving, build_app
from hybridserve_llm.server.meter_sites import Probes
from hybridserve_llm.telemetry.metrics import Metrics
from hybridserve_llm.testing import ScriptedNvml
from launch.serving import bind, serve

TIERS = ("small", "giant")
LEAD_IN_S = 1.3
"""What the first requests cost is settled a second later: a turn is measured from then on."""


def run_engines(folder: str) -> None:
    """All tiers, until killed."""
    set_core(1)

    async def serve_all() -> None:
        await asyncio.gather(*(serve_replayed(Path(folder), name) for name in TIERS))

    uvloop.run(serve_all())


def run_front_end(folder: str, mode: str, span_port: int, told: Any) -> None:
    """A front end as `hs-launch` serves it, until killed; tells its port when it is ready."""
    set_core(0)
    place, is_on = Path(folder), mode != "off"
    if not is_on:  # the counters have no switch of their own
        for name in ("request_finished", "request_settled"):
            setattr(Metrics, name, lambda *_: None)
    endpoint = f"http://127.0.0.1:{span_port}/v1/traces" if mode == "spans" else None
    records = str(place / f"{mode}-{os.getpid()}.jsonl") if is_on else None
    config = parse_config(
        {
            "tiers": [
                {"name": "small", "model": "/m/s", "accept": {"score_at_least": -0.0}},
                {"name": "giant", "model": "/m/g"},
            ],
            "energy": {"enabled": is_on},
            "records": {"file": records},
            "tracing": {"otlp_endpoint": endpoint},
        },
        source="benchmark",
    )
    parts = Serving(
        endpoints={name: [f"unix:{place / name}.sock"] for name in TIERS},
        gpu_uuids={name: [[f"GPU-{name}"]] for name in TIERS},
        probes=Probes(open_nvml=lambda: ScriptedNvml(clock=SystemClock()), powercap=place),
    )

    async def run() -> None:
        bound = bind("127.0.0.1", 0)
        await serve(
            build_app(config, parts),
            bound,
            ready_timeout_s=30,
            stop_timeout_s=1,
            hurry=asyncio.Event(),
            on_ready=lambda: told.send(bound.getsockname()[1]),
        )

    uvloop.run(run())


class SpanTaker(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEnd:
    """A front end that runs."""

    process: Any
    port: int

    def cpu_s(self) -> float:
        """CPU-seconds of all its threads: the clock of another process, clock_getcpuclockid(3)."""
        return time.clock_gettime((~self.process.pid << 3) | 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What was measured of one front end in one turn."""

    requests_per_s: float
    cpu_us: float
    cores: float


def set_core(core: int) -> None:
    """Keeps this process on one core, where there are two."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) > 1:
        os.sched_setaffinity(0, {allowed[core]})


def request_of(is_streamed: bool) -> bytes:
    body = orjson.dumps(
        {
            "model": "hybridserve",
            "messages": [{"role": "user", "content": "How many legs has a spider? " * 4}],
            "max_tokens": 64,
            "stream": is_streamed,
        }
    )
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def measure(front: FrontEnd, request: bytes, seconds: float, n_in_flight: int) -> Turn:
    """One turn of steady load."""
    load = ClosedLoop(front.port, request)
    await load.start(n_in_flight)
    await asyncio.sleep(LEAD_IN_S)
    n_before, cpu_before_s, start_s = load.n_answered, front.cpu_s(), time.monotonic()
    await asyncio.sleep(seconds)
    wall_s = time.monotonic() - start_s
    cpu_s, n = front.cpu_s() - cpu_before_s, load.n_answered - n_before
    await load.stop()
    return Turn(requests_per_s=n / wall_s, cpu_us=cpu_s / n * 1e6, cores=cpu_s / wall_s)


def started(folder: str, mode: str, span_port: int) -> FrontEnd:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=run_front_end, args=(folder, mode, span_port, sender), daemon=True
    )
    process.start()
    return FrontEnd(process=process, port=receiver.recv())


def measured(options: argparse.Namespace, folder: str, span_port: int) -> list[tuple[Turn, Turn]]:
    """Pairs of turns, without and with telemetry, that followed each other."""
    request = request_of(options.stream)
    pairs = []
    for _ in range(options.pairs):
        off, on = (started(folder, mode, span_port) for mode in ("off", options.mode))
        for i in range(options.turns):
            order = (off, on) if i % 2 == 0 else (on, off)
            first, second = (
                asyncio.run(measure(front, request, options.seconds, options.in_flight))
                for front in order
            )
            if i > 0:  # the first turn warms up
                pairs.append((first, second) if i % 2 == 0 else (second, first))
        for front in (off, on):
            front.process.kill()
            front.process.join()
    return pairs


def table_of(pairs: list[tuple[Turn, Turn]], mode: str) -> str:
    lines = ["| telemetry | requests/s, median | CPU us a request, median | cores |"]
    lines.append("|---|---|---|---|")
    for name, turns in (("off", [p[0] for p in pairs]), (mode, [p[1] for p in pairs])):
        rate, cpu_us, cores = (
            statistics.median(getattr(turn, what) for turn in turns)
            for what in ("requests_per_s", "cpu_us", "cores")
        )
        lines.append(f"| {name} | {rate:.0f} | {cpu_us:.0f} | {cores:.2f} |")
    for words, what in (("requests/s", "requests_per_s"), ("CPU time a request", "cpu_us")):
        changes = [100 * (getattr(on, what) / getattr(off, what) - 1) for off, on in pairs]
        low, middle, high = statistics.quantiles(changes, n=4)
        lines.append(
            f"{words}: {middle:+.1f} % (median of {len(changes)} pairs of turns; "
            f"quartiles {low:+.1f} and {high:+.1f})"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mode", choices=("on", "spans"), default="on")
    parser.add_argument("--stream", action="store_true", help="streamed answers")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of processes")
    parser.add_argument("--turns", type=int, default=9, help="turns of each, the first not counted")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one turn")
    parser.add_argument("--in-flight", type=int, default=16)
    options = parser.parse_args()
    set_core(1)
    gc.disable()  # of the client: its pauses would be the front end's
    taker = http.server.HTTPServer(("127.0.0.1", 0), SpanTaker)
    threading.Thread(target=taker.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        engines = multiprocessing.get_context("spawn").Process(
            target=run_engines, args=(folder,), daemon=True
        )
        engines.start()
        try:
            pairs = measured(options, folder, taker.server_port)
        finally:
            engines.kill()
            engines.join()
    sys.stdout.write(table_of(pairs, options.mode))


if __name__ == "__main__":
    main()
