"""Show on stderr how far the measurements have come: a bar on a terminal, else a line a round."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class MeasureProgress:
    """Show one bar of windows; a context manager around the measurements of one engine."""

    def __init__(self, console: Console, tier: str, *, n_windows: int, repeats: int) -> None:
        self._console = console
        self._tier = tier
        self._n_windows = n_windows
        self._repeats = repeats
        self._round = 0
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar: TaskID | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        self._bar = self._bars.add_task(f"{self._tier}: warming up", total=self._n_windows)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None and kind is None:
            self._bars.update(self._bar, completed=self._n_windows)
        self._bars.stop()

    def begin_window(self, number: int, concurrency: int) -> None:
        """Show that the window with `concurrency` in flight of round `number`, from 1, begins."""
        text = f"{self._tier}: round {number} of {self._repeats}, {concurrency} in flight"
        if self._bar is not None:
            is_first = self._round == 0
            self._bars.update(self._bar, description=text, advance=0 if is_first else 1)
        if number != self._round:
            self._round = number
            if not self._console.is_terminal:
                line = f"{self._tier}: round {number} of {self._repeats}"
                self._console.print(line, highlight=False, markup=False, soft_wrap=True)
