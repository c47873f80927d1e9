"""Read the text of a command-line option as a value, or say what is allowed."""

import argparse


def share(text: str) -> float:
    """Read a number between 0 and 1, both excluded."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def weight(text: str) -> float:
    """Read a number from 0 to 1, both allowed."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not 0 to 1")
    return value


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def positive_number(text: str) -> float:
    """Read a finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def natural(text: str) -> int:
    """Read a whole number of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def model_cost(text: str) -> tuple[str, float]:
    """Read `MODEL=X`: the name of a model, and the cost of one request to it."""
    name, _, number = text.rpartition("=")
    value = float(number)
    if not name or not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not MODEL=X with X above 0")
    return name, value


def tier_threshold(text: str) -> tuple[str, float]:
    """Read `TIER=SCORE`: the name of a tier, and the least score at which its answer is taken."""
    name, _, number = text.rpartition("=")
    value = float(number)
    if not name or not -float("inf") < value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not TIER=SCORE with SCORE at most 0")
    return name, value


def comma_separated(text: str) -> tuple[str, ...]:
    """Read the names in `a,b,c`."""
    return tuple(name.strip() for name in text.split(","))
