"""Read an engine's counters and CPU time at one moment, and what it did between two readings."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hybridserve_llm.interfaces import Clock, Engine
from hybridserve_llm.load.engine_counters import EngineCounters, counters_of
from hybridserve_llm.load.process_times import CpuTime


class CountingEngine(Engine, Protocol):
    """Represent an engine that shows its counters, such as `engines.vllm_http.VllmHttpEngine`."""

    async def metrics(self) -> str:
        """Return its metrics in Prometheus' text format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Hold what an engine did between two readings.

    Attributes:
        seconds: How long it took.
        counted: What was added to its counters.
        engine_cpu_s: CPU time of its processes; None where it is not known.
        other_cpu_s: CPU time of all else on the machine; None where it is not known.
    """

    seconds: float
    counted: EngineCounters
    engine_cpu_s: float | None
    other_cpu_s: float | None

    @property
    def output_tokens_per_s(self) -> float:
        """Return the tokens generated per second, of all requests together."""
        return self.counted.output_tokens / self.seconds

    @property
    def engine_cores(self) -> float | None:
        """Return the CPU cores that the engine's processes used on average."""
        return None if self.engine_cpu_s is None else self.engine_cpu_s / self.seconds

    @property
    def other_cores(self) -> float | None:
        """Return the CPU cores that all else on the machine used on average."""
        return None if self.other_cpu_s is None else self.other_cpu_s / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReading:
    """Hold the counters and the CPU time at one moment."""

    at_s: float
    counters: EngineCounters
    cpu: CpuTime

    def since(self, earlier: "EngineReading") -> Stretch:
        """Return what happened since `earlier`."""
        return Stretch(
            seconds=self.at_s - earlier.at_s,
            counted=self.counters.since(earlier.counters),
            engine_cpu_s=_grown(earlier.cpu.engine_s, self.cpu.engine_s),
            other_cpu_s=_grown(earlier.cpu.others_s, self.cpu.others_s),
        )


async def read_engine(
    engine: CountingEngine, clock: Clock, cpu_time: Callable[[], CpuTime]
) -> EngineReading:
    """Return the engine's counters and CPU time now.

    Raises:
        CannotBeDone: The engine does not count what is needed.
        HybridServeError: It fails.
    """
    asked_s = clock.monotonic_s()
    counters = counters_of(await engine.metrics())
    # The engine read its counters somewhere between question and answer.
    at_s = (asked_s + clock.monotonic_s()) / 2
    return EngineReading(at_s=at_s, counters=counters, cpu=cpu_time())


def _grown(begin: float | None, end: float | None) -> float | None:
    # Linux counts the machine in other steps than a process, so a quiet one may come out below 0.
    return None if begin is None or end is None else max(0.0, end - begin)
