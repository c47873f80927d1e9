"""What a group of workers failed of."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def first_failure() -> Iterator[None]:
    """Raises the first of a task group's errors: it cancelled the others, so it is the cause."""
    try:
        yield
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
