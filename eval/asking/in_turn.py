"""Ask many questions, a few at a time."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")


async def in_turn(
    items: Sequence[Item], ask: Callable[[Item], Awaitable[Found]], *, concurrency: int
) -> list[Found]:
    """Return what `ask` gives for each item, in their order; `concurrency` are asked at a time.

    The first error cancels the others and is raised.
    """
    found: dict[int, Found] = {}
    waiting = iter(enumerate(items))

    async def worker() -> None:
        for place, item in waiting:  # shared by all workers: each takes the next
            found[place] = await ask(item)

    with first_failure():
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(items))):
                group.create_task(worker())
    return [found[place] for place in range(len(items))]


@contextlib.contextmanager
def first_failure() -> Iterator[None]:
    """Raise the first of a task group's errors: it cancelled the others, so it is the cause."""
    try:
        yield
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
