"""Values of command-line options: each reads a text, or says what is allowed."""

import argparse


def share(text: str) -> float:
    """A number between 0 and 1, both left out."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def weight(text: str) -> float:
    """A number from 0 to 1, both allowed."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not 0 to 1")
    return value


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def positive_number(text: str) -> float:
    """A finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def natural(text: str) -> int:
    """A whole number of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def cost(text: str) -> tuple[str, float]:
    """`MODEL=X`: a model's name, and what a request costs there."""
    name, _, number = text.rpartition("=")
    value = float(number)
    if not name or not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not MODEL=X with X above 0")
    return name, value


def threshold(text: str) -> tuple[str, float]:
    """`TIER=SCORE`: a tier's name, and the least score at which its answer is taken."""
    name, _, number = text.rpartition("=")
    value = float(number)
    if not name or not -float("inf") < value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not TIER=SCORE with SCORE at most 0")
    return name, value
