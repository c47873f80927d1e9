"""Put the faults that pydantic finds into words of one line."""

from pydantic import ValidationError


def first_fault(error: ValidationError, *, shows_value: bool = False) -> str:
    """Return the first fault of `error` as "location: message".

    The location is the path of keys with dots between them, such as `points.0.power_w`. A fault
    of the whole input has no location, and its message is returned alone.

    Args:
        error: The error that a pydantic model or type adapter raised.
        shows_value: Return "location = value: message", the value cut to 80 characters.
    """
    fault = error.errors()[0]
    location = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    if not location:
        return message
    if shows_value:
        location += f" = {fault['input']!r:.80}"
    return f"{location}: {message}"
