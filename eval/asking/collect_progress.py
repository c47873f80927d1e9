"""Shows on stderr how far a collection has come: a bar on a terminal, else a line now and then."""

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

from eval.recorded.attempts import RecordedAttempt

_N_LINES = 10


class CollectProgress:
    """One bar per tier; a context manager around the whole collection."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar = TaskID(0)
        self._tier = self._first_reason = ""
        self._n = self._n_done = self._n_failed = 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def begin(self, tier: str, *, n: int, n_done: int) -> None:
        """A tier's turn: it has `n` prompts, of which `n_done` were answered in an earlier run."""
        self._tier, self._n, self._n_done, self._n_failed = tier, n, n_done, 0
        self._bar = self._bars.add_task(tier, total=n, completed=n_done, failed="")
        self._say()

    def advance(self, attempt: RecordedAttempt) -> None:
        """One more attempt of this tier has ended."""
        self._n_done += 1
        if attempt.has_failed:
            self._first_reason = self._first_reason if self._n_failed else attempt.reason or ""
            self._n_failed += 1
        self._bars.update(self._bar, completed=self._n_done, failed=self._failures())
        if self._n_done % max(1, self._n // _N_LINES) == 0 or self._n_done == self._n:
            self._say()

    def end(self) -> None:
        """This tier has been asked everything."""
        if self._n_failed:
            self._line(f"{self._tier}: {self._n_failed} failed, the first: {self._first_reason}")

    def note(self, text: str) -> None:
        """A line of its own."""
        self._line(text)

    def _say(self) -> None:
        if not self._console.is_terminal:
            failures = f", {self._failures()}" if self._n_failed else ""
            self._line(f"{self._tier}: {self._n_done} of {self._n}{failures}")

    def _failures(self) -> str:
        return f"{self._n_failed} failed" if self._n_failed else ""

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
