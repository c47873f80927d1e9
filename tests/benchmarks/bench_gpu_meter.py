"""The meter on a real GPU beside its counter by hand: `python tests/benchmarks/bench_gpu_meter.py`.

    bare    no process has a CUDA context
    awake   a child has one and computes nothing
    work    it multiplies matrices for `--work-s` seconds
    bursts  it multiplies for 0.5 s and rests for 0.5 s, in turns; each burst is booked as a request
    awake, bare again

In each phase the joules of this project's meter (its thread, ten readings a second) stand beside
the difference of two readings of NVML's counter, and beside the driver's power, integrated. Needs
an NVIDIA GPU, PyTorch, and nobody else on that GPU.
"""

import argparse
import itertools
import json
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

import pynvml

from hybridserve_llm.clock import SystemClock
from hybridserve_llm.energy.attribution import Booking, Stint
from hybridserve_llm.energy.books import EnergyBooks
from hybridserve_llm.energy.meters import TraceMeter
from hybridserve_llm.energy.nvml import GpuMeter, PynvmlReader
from hybridserve_llm.energy.sampler import Sampler
from hybridserve_llm.energy.site import Site, SiteSettings
from hybridserve_llm.units import mj_to_j, mw_to_w
from hybridserve_llm.values.joules import SettledEnergy

SIZE = 8192
COUNTER_MOVES_S = 0.3
"""Until the meter is final for what has just ended."""
BURST_S, REST_S = 0.5, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One phase, by the meter and by hand; `edge_j` is what the meter says it may be off by."""

    name: str
    seconds: float
    meter_j: float | None
    source: str
    edge_j: float
    flags: tuple[str, ...]
    counter_j: float
    power_j: float
    sm_percent: float | None

    @property
    def row(self) -> str:
        """One line of the table."""
        meter_w = "-" if self.meter_j is None else f"{self.meter_j / self.seconds:.1f}"
        off = "-" if self.meter_j is None else f"{100 * (self.meter_j / self.counter_j - 1):+.2f} %"
        by_power = 100 * (self.power_j / self.counter_j - 1)
        meter_j = "-" if self.meter_j is None else f"{self.meter_j:.1f}"
        return (
            f"| {self.name} | {self.seconds:.1f} | {meter_j} | {self.counter_j:.1f} | {off} "
            f"| {self.edge_j:.1f} | {by_power:+.1f} % | {meter_w} | {self.source} |"
        )


class PowerByHand:
    """Keeps the driver's power readings as they come."""

    def __init__(self, uuid: str, nvml: PynvmlReader, clock: SystemClock) -> None:
        self._uuid, self._nvml, self._clock = uuid, nvml, clock
        self._readings: list[tuple[float, float]] = []

    def sample(self) -> None:
        """One reading."""
        watts = mw_to_w(self._nvml.instant_power_mw(self._uuid))
        self._readings.append((self._clock.monotonic_s(), watts))

    def between_j(self, start_s: float, end_s: float) -> float:
        """The trapezoidal rule over the readings in the span, scaled to all of it."""
        inside = [one for one in self._readings if start_s <= one[0] <= end_s]
        joules = sum((b - a) * (v + w) / 2 for (a, v), (b, w) in itertools.pairwise(inside))
        return joules / (inside[-1][0] - inside[0][0]) * (end_s - start_s)


class Gpu:
    """The GPU, the meter over it, and the same counter by hand."""

    def __init__(self, number: int) -> None:
        self.clock = SystemClock()
        self.nvml = PynvmlReader()
        handle = pynvml.nvmlDeviceGetHandleByIndex(number)
        self.uuid = str(pynvml.nvmlDeviceGetUUID(handle))
        self.name = str(pynvml.nvmlDeviceGetName(handle))
        self.driver = str(pynvml.nvmlSystemGetDriverVersion())
        self.limit_w = mw_to_w(self.nvml.power_limit_mw(self.uuid))
        self.meter = GpuMeter(self.uuid, self.nvml, clock=self.clock)
        self.sampler = Sampler([self.meter], clock=self.clock)
        self.power = PowerByHand(self.uuid, self.nvml, self.clock)
        self.hand = Sampler([self.power], clock=self.clock, period_s=0.02)

    def phase(self, name: str, pass_time: Callable[[], None]) -> Phase:
        """Measures what `pass_time` takes."""
        start_s, begin_j = self.moved()
        since_us = int(self.clock.wall_s() * 1e6)
        pass_time()
        end_s, finish_j = self.moved()
        seen = self.nvml.process_activity(self.uuid, since_us)
        time.sleep(COUNTER_MOVES_S)
        told = self.meter.trace.between(start_s, end_s)
        return Phase(
            name=name,
            seconds=end_s - start_s,
            meter_j=told.energy_j,
            source=told.label,
            edge_j=told.edge_j,
            flags=tuple(sorted(told.flags)),
            counter_j=finish_j - begin_j,
            power_j=self.power.between_j(start_s, end_s),
            sm_percent=statistics.fmean(one.sm_percent for one in seen) if seen else None,
        )

    def moved(self) -> tuple[float, float]:
        """Waits until the counter moves; when that was, and what it showed."""
        before = self.nvml.energy_mj(self.uuid)
        while True:
            now = self.nvml.energy_mj(self.uuid)
            at_s = self.clock.monotonic_s()
            if now != before:
                return at_s, mj_to_j(now)
            time.sleep(0.001)


def work_on(orders: Connection, number: int) -> None:
    """The child that holds the context: multiplies for as long as it is told, until told None."""
    import torch  # late: the parent must not hold a context

    device = torch.device("cuda", number)
    matrices: Any = None
    torch.zeros(1, device=device)
    orders.send("ready")
    while (order := orders.recv()) is not None:
        if matrices is None:
            matrices = [
                torch.randn(SIZE, SIZE, device=device, dtype=torch.bfloat16) for _ in range(2)
            ]
        n, start_s = 0, time.monotonic()
        while time.monotonic() - start_s < order:
            for _ in range(4):
                torch.mm(matrices[0], matrices[1])
            torch.cuda.synchronize(device)
            n += 4
        end_s = time.monotonic()
        orders.send((start_s, end_s, 2 * SIZE**3 * n / (end_s - start_s) / 1e12))


def bursts(gpu: Gpu, orders: Connection, seconds: float) -> tuple[Phase, list[SettledEnergy], Any]:
    """Bursts booked as requests: who pays what, beside the counter."""
    clock, settled = gpu.clock, list[SettledEnergy]()
    site = Site(
        SiteSettings(component="gpu", replicas={"giant/0": "giant"}, weights={}),
        TraceMeter([gpu.meter.trace]),
        start_s=clock.monotonic_s(),
    )
    books = EnergyBooks([site], clock=clock, on_settled=settled.append)

    def pass_time() -> None:
        until_s = clock.monotonic_s() + seconds
        number = 0
        while clock.monotonic_s() < until_s:
            stint = Stint(
                request_id=f"burst-{number}",
                tier="giant",
                replica="giant/0",
                booking=Booking.USER,
                start_s=clock.monotonic_s(),
            )
            books.begin(stint)
            orders.send(BURST_S)
            orders.recv()
            stint.prompt_tokens, stint.output_tokens, stint.end_s = 1, 1, clock.monotonic_s()
            books.request_finished(stint.request_id, "giant")
            number += 1
            time.sleep(REST_S)

    phase = gpu.phase("bursts", pass_time)
    books.settle()
    idle_j = sum(j for key, j in books.totals.joules.items() if key.booking is Booking.IDLE)
    return phase, settled, idle_j


def driver_times_ms(gpu: Gpu) -> dict[str, float]:
    """Median milliseconds of one call of each kind, and how often the counter moves."""
    asked: dict[str, Callable[[], object]] = {
        "energy": lambda: gpu.nvml.energy_mj(gpu.uuid),
        "instant_power": lambda: gpu.nvml.instant_power_mw(gpu.uuid),
        "average_power": lambda: gpu.nvml.average_power_mw(gpu.uuid),
        "sample": gpu.meter.sample,
    }
    found = {}
    for name, ask in asked.items():
        times = []
        for _ in range(50):
            start_s = time.perf_counter()
            ask()
            times.append(time.perf_counter() - start_s)
        found[f"{name}_ms"] = 1000 * statistics.median(times)
    moves = [gpu.moved()[0] for _ in range(20)]
    gaps = [b - a for a, b in itertools.pairwise(moves)]
    found["counter_moves_every_ms"] = 1000 * statistics.median(gaps)
    return found


def main() -> None:
    """Runs all phases and prints a table, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gpu", type=int, default=0, help="the driver's number of the GPU")
    parser.add_argument("--idle-s", type=float, default=20.0)
    parser.add_argument("--work-s", type=float, default=60.0)
    parser.add_argument("--bursts-s", type=float, default=20.0)
    options = parser.parse_args()
    gpu = Gpu(options.gpu)
    calls = driver_times_ms(gpu)
    gpu.sampler.start()
    gpu.hand.start()
    time.sleep(1)
    phases = [gpu.phase("bare", lambda: time.sleep(options.idle_s))]
    context = multiprocessing.get_context("spawn")
    orders, theirs = context.Pipe()
    child = context.Process(target=work_on, args=(theirs, options.gpu), daemon=True)
    child.start()
    orders.recv()
    time.sleep(2)
    phases.append(gpu.phase("awake", lambda: time.sleep(options.idle_s)))
    rates: list[float] = []

    def work() -> None:
        orders.send(options.work_s)
        rates.append(orders.recv()[2])

    phases.append(gpu.phase("work", work))
    burst_phase, settled, idle_j = bursts(gpu, orders, options.bursts_s)
    phases.append(burst_phase)
    time.sleep(3)
    phases.append(gpu.phase("awake again", lambda: time.sleep(options.idle_s)))
    orders.send(None)
    child.join()
    time.sleep(3)
    phases.append(gpu.phase("bare again", lambda: time.sleep(options.idle_s)))
    gpu.sampler.stop()
    gpu.hand.stop()
    charged = [one.active_j for one in settled if one.active_j is not None]
    report = {
        "gpu": gpu.name,
        "driver": gpu.driver,
        "limit_w": gpu.limit_w,
        "python": platform.python_version(),
        "tflop_per_s": rates[0],
        "calls": calls,
        "phases": [asdict(phase) for phase in phases],
        "cross_check_ratio": gpu.meter.counter.check.ratio,
        "bursts": {
            "requests": len(settled),
            "charged_j": sum(charged),
            "idle_j": idle_j,
            "median_j": statistics.median(charged) if charged else None,
            "unknown": len(settled) - len(charged),
            "sources": sorted({one.source for one in settled}),
            "flags": sorted({flag for one in settled for flag in one.flags}),
            "median_edge_j": statistics.median(one.edge_j or 0.0 for one in settled),
        },
    }
    head = "| phase | s | meter J | counter J | off | edge J | power, integrated | W | source |"
    sys.stdout.write("\n".join([head, "|---" * 9 + "|", *(p.row for p in phases), ""]))
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
