"""What telemetry costs the front end: `python tests/benchmarks/bench_telemetry.py`.

    this process          two front ends, on core 0            engines
    32 in flight ──TCP──> with telemetry, as hs-launch serves ──unix──> two tiers, the first
    32 in flight ──TCP──> without                             ──unix──> escalates
    (core 1)               (core 0)                              (core 1)

The two are loaded in turns of half a second, so each has the core to itself, as a front end should,
and a machine that changes its pace changes it for both. So many are in flight that a front end
never waits for the other core, which client, engines and bookkeeper share here. With `--together`
they are loaded at once, each with half of the core: each then finds the processor's caches full of
the other, which is the harder case. Several pairs of processes are measured, since two processes of
one program differ by a percent. Requests a second are those of the turns; CPU time is all that a
process used for as long as the pair was measured, what it did after its turns included. Target:
less than 3 % of the requests a second. `on` is metering (NVML, scripted), counters for Prometheus
and records; `off` has none of these; `spans` has OpenTelemetry spans beside all of `on`. Books and
the record file are in a process of their own, as `hs-launch` has them (core 1; what it uses is told
apart); with `--here` they are in the front end.
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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psutil
import uvloop
from closed_loop import ClosedLoop
from replayed_engines import serve_replayed

from hybridserve_llm.books import bookkeeper_process
from hybridserve_llm.books.meter_sites import Probes
from hybridserve_llm.clock import SystemClock
from hybridserve_llm.config.load import parse_config
from hybridserve_llm.server.build import Serving, build_app
from hybridserve_llm.telemetry.journal import Journal
from hybridserve_llm.testing import ScriptedNvml
from launch.running.http_server import bind, serve

TIERS = ("small", "giant")
LEAD_IN_S = 2.3
"""What the first requests cost is settled a second later: a pair is measured from then on."""
WARM_UP_S = 0.05
"""Of a turn, until the caches hold what the front end needs."""
NO_RAPL = Path("/nowhere")


def run_engines(folder: str) -> None:
    """All tiers, until killed."""
    set_core(1)

    async def serve_all() -> None:
        await asyncio.gather(*(serve_replayed(Path(folder), name) for name in TIERS))

    uvloop.run(serve_all())


def run_bookkeeper(fd: int) -> None:
    """Books of a front end, over scripted GPUs, off its core."""
    set_core(1)
    bookkeeper_process.run(
        fd, Probes(open_nvml=lambda: ScriptedNvml(clock=SystemClock()), powercap=NO_RAPL)
    )


def run_front_end(folder: str, mode: str, is_here: bool, span_port: int, told: Any) -> None:
    """A front end as `hs-launch` serves it, until killed; tells its port when it is ready."""
    set_core(0)
    place, is_on = Path(folder), mode != "off"
    if not is_on:  # the counters have no switch of their own
        Journal.request_finished = lambda *_: None  # type: ignore[method-assign]
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
        probes=Probes(open_nvml=lambda: ScriptedNvml(clock=SystemClock()), powercap=NO_RAPL),
        bookkeeper=None if is_here else (sys.executable, __file__, "--bookkeeper"),
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
class Measured:
    """What one front end of a pair did."""

    requests_per_s: float
    cpu_us: float


def set_core(core: int) -> None:
    """Keeps this process on one core, where there are two; a child may choose another."""
    n_cores = os.cpu_count() or 1
    if n_cores > 1:
        os.sched_setaffinity(0, {core})


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


async def measure(
    fronts: Sequence[FrontEnd], request: bytes, options: argparse.Namespace
) -> tuple[Measured, ...]:
    """What each did under load: in turns, or both at once."""
    loads = [ClosedLoop(front.port, request) for front in fronts]
    for load in loads:
        await load.start(options.in_flight)
    await asyncio.sleep(LEAD_IN_S)
    began = [(load.n_answered, front.cpu_s()) for load, front in zip(loads, fronts, strict=True)]
    rates = await (together if options.together else in_turns)(loads, options)
    ended = [(load.n_answered, front.cpu_s()) for load, front in zip(loads, fronts, strict=True)]
    for load in loads:
        load.resume()
        await load.stop()
    return tuple(
        Measured(requests_per_s=rate, cpu_us=(after[1] - before[1]) / (after[0] - before[0]) * 1e6)
        for rate, before, after in zip(rates, began, ended, strict=True)
    )


async def in_turns(loads: Sequence[ClosedLoop], options: argparse.Namespace) -> list[float]:
    """Requests a second of each with the core to itself."""
    for load in loads:
        await load.pause()
    n, seconds = [0] * len(loads), [0.0] * len(loads)
    for turn in range(options.turns):
        # Who comes first changes, so that a pace that falls all the time is nobody's.
        for i in (0, 1) if turn % 2 == 0 else (1, 0):
            loads[i].resume()
            await asyncio.sleep(WARM_UP_S)
            begin = loads[i].n_answered, time.monotonic()
            await asyncio.sleep(options.seconds)
            n[i] += loads[i].n_answered - begin[0]
            seconds[i] += time.monotonic() - begin[1]
            await loads[i].pause()
    return [one / wall_s for one, wall_s in zip(n, seconds, strict=True)]


async def together(loads: Sequence[ClosedLoop], options: argparse.Namespace) -> list[float]:
    """Requests a second of each, both under load for as long as the turns of one take."""
    begin = [load.n_answered for load in loads], time.monotonic()
    await asyncio.sleep(options.turns * options.seconds)
    wall_s = time.monotonic() - begin[1]
    return [(load.n_answered - n) / wall_s for load, n in zip(loads, begin[0], strict=True)]


def started(folder: str, mode: str, is_here: bool, span_port: int) -> FrontEnd:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_front_end, args=(folder, mode, is_here, span_port, sender))
    process.start()
    return FrontEnd(process=process, port=receiver.recv())


def measured(
    options: argparse.Namespace, folder: str, span_port: int
) -> tuple[list[tuple[Measured, ...]], list[float]]:
    """Pairs without and with telemetry; the bookkeepers' CPU us."""
    request = request_of(options.stream)
    pairs, others_us = [], []
    for number in range(options.pairs):
        modes = ("off", options.mode)
        # Who was started first must not matter.
        order = modes if number % 2 == 0 else modes[::-1]
        by_mode = {mode: started(folder, mode, options.here, span_port) for mode in order}
        fronts = [by_mode[mode] for mode in modes]
        children = psutil.Process(fronts[1].process.pid).children()
        before_s = sum(sum(child.cpu_times()[:2]) for child in children)
        found = asyncio.run(measure(fronts, request, options))
        used_s = sum(sum(child.cpu_times()[:2]) for child in children) - before_s
        n = found[1].requests_per_s * options.seconds * options.turns
        others_us.append(used_s / n * 1e6)
        pairs.append(found)
        for front in fronts:
            front.process.kill()
            front.process.join()
    return pairs, others_us


def table_of(pairs: list[tuple[Measured, ...]], mode: str, others_us: list[float]) -> str:
    lines = ["| telemetry | requests/s, median | CPU us a request, median |", "|---|---|---|"]
    for name, ones in (("off", [p[0] for p in pairs]), (mode, [p[1] for p in pairs])):
        rate, cpu_us = (
            statistics.median(getattr(one, what) for one in ones)
            for what in ("requests_per_s", "cpu_us")
        )
        lines.append(f"| {name} | {rate:.0f} | {cpu_us:.0f} |")
    for words, what in (("requests/s", "requests_per_s"), ("CPU time a request", "cpu_us")):
        changes = [100 * (getattr(on, what) / getattr(off, what) - 1) for off, on in pairs]
        low, middle, high = statistics.quantiles(changes, n=4)
        lines.append(
            f"{words}: {middle:+.1f} % (median of {len(changes)} pairs; "
            f"quartiles {low:+.1f} and {high:+.1f})"
        )
    lines.append(f"bookkeeper: {statistics.median(others_us):.0f} CPU us a request")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mode", choices=("on", "spans"), default="on")
    parser.add_argument("--stream", action="store_true", help="streamed answers")
    parser.add_argument("--here", action="store_true", help="books in the front end's process")
    parser.add_argument("--pairs", type=int, default=12, help="pairs of processes")
    parser.add_argument("--turns", type=int, default=8, help="of each of a pair")
    parser.add_argument("--seconds", type=float, default=0.5, help="of one turn")
    parser.add_argument("--together", action="store_true", help="both under load at once")
    parser.add_argument("--in-flight", type=int, default=32, help="at each front end")
    parser.add_argument("--bookkeeper", type=int, metavar="FD", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bookkeeper is not None:
        run_bookkeeper(options.bookkeeper)
        return
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
            pairs, others_us = measured(options, folder, taker.server_port)
        finally:
            engines.kill()
            engines.join()
    sys.stdout.write(table_of(pairs, options.mode, others_us))


if __name__ == "__main__":
    main()
