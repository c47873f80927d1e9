"""The wish to stop, from Ctrl-C or SIGTERM: the first asks politely, the second hurries."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class StopRequest:
    """Turns the two signals of this process into one call and one event.

    Attributes:
        hurry: Set by the second signal; whoever waits for a clean end stops waiting then.
    """

    def __init__(self) -> None:
        self.hurry = asyncio.Event()
        self._has_come = False
        self._on_first: Callable[[], object] = lambda: None

    def install(self, on_first: Callable[[], object]) -> None:
        """Takes over SIGINT and SIGTERM of the running loop; `on_first` is called once."""
        self._on_first = on_first
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.signal)

    def remove(self) -> None:
        """Gives the signals back."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    def signal(self) -> None:
        """What a signal does."""
        if self._has_come:
            self.hurry.set()
        self._has_come = True
        self._on_first()
        self._on_first = lambda: None


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Makes SIGTERM a KeyboardInterrupt, as Ctrl-C is, where no event loop takes signals over.

    So a launch that is stopped while it plans leaves its run folder in order. Main thread only.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


async def has_ended(task: asyncio.Future[T], *, hurry: asyncio.Event, timeout_s: float) -> bool:
    """Whether `task` ended within `timeout_s` and before `hurry`; it is left running if not."""
    hurried = asyncio.create_task(hurry.wait())
    try:
        waiting: set[asyncio.Future[Any]] = {task, hurried}
        await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        hurried.cancel()
    return task.done()
