"""Shows on stderr how far each engine has come: a live table on a terminal, else plain lines."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from hybridserve_llm.interfaces import Clock
from launch.engines.engine_log import READY

FAILED = "failed"
_ENDS = {READY: "[green]ready[/]", FAILED: "[red]failed[/]"}


class StartProgress:
    """One line per engine: its name, the stage of its start, and the seconds it took so far."""

    def __init__(self, engines: Sequence[str], *, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._began_s = clock.monotonic_s()
        self._stages = dict.fromkeys(engines, "")
        self._ended_s: dict[str, float] = {}
        self._live = (
            Live(console=console, get_renderable=self._table, refresh_per_second=4)
            if console.is_terminal and engines
            else None
        )

    def __enter__(self) -> Self:
        self._began_s = self._clock.monotonic_s()
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, engine: str, stage: str) -> None:
        """Notes that `engine` has come to `stage`; READY and FAILED end its count of seconds."""
        if self._stages[engine] == stage or engine in self._ended_s:
            return
        self._stages[engine] = stage
        seconds = self._clock.monotonic_s() - self._began_s
        if stage in _ENDS:
            self._ended_s[engine] = seconds
        if self._live is None:
            self._console.print(
                f"{engine}: {stage} ({seconds:.0f} s)", highlight=False, markup=False
            )

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        now_s = self._clock.monotonic_s() - self._began_s
        for engine, stage in self._stages.items():
            seconds = self._ended_s.get(engine, now_s)
            table.add_row(engine, f"{seconds:4.0f} s", _ENDS.get(stage, stage))
        return table
