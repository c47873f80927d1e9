"""Write numbers as a reader of a report meets them; a number that is unknown is said in words."""

from collections.abc import Callable

Range = tuple[float, float] | None
NOT_ENOUGH = "not enough"
UNKNOWN = "unknown"


def percent(share: float | None) -> str:
    """Return a share with one decimal, as in "84.1 %"."""
    return NOT_ENOUGH if share is None else f"{100 * share:.1f} %"


def percent_range(interval: Range) -> str:
    """Return an interval of shares, as in "82.4 to 85.6 %"."""
    return _range(interval, lambda share: f"{100 * share:.1f}", " %")


def points(difference: float) -> str:
    """Return a difference of shares in points, as in "-0.42 points"; never "-0.00"."""
    return f"{_in_points(difference)} points"


def points_range(interval: Range) -> str:
    """Return an interval of differences, as in "-0.90 to 0.06 points"."""
    return _range(interval, _in_points, " points")


def decimal(value: float | None) -> str:
    """Return a quantity between 0 and 1 that is not a share, with three decimals."""
    return NOT_ENOUGH if value is None else f"{value:.3f}"


def four_digits(value: float) -> str:
    """Return a cost with four significant digits, in the unit that it was given in."""
    return f"{value:.4g}"


def four_digits_range(interval: Range) -> str:
    """Return an interval of costs, as in "0.1021 to 0.1302"."""
    return _range(interval, four_digits)


def ratio_range(interval: Range) -> str:
    """Return an interval of ratios, as in "2.51 to 2.96"."""
    return _range(interval, lambda ratio: f"{ratio:.2f}")


def percent_of(part: float, whole: float) -> str:
    """Return `part` as a share of `whole`; unknown where that is 0."""
    return percent(part / whole) if whole > 0 else UNKNOWN


def or_dash(value: float | None, form: str = ".4g") -> str:
    """Return the value in a format, and "-" where it is unknown."""
    return "-" if value is None else format(value, form)


def reversed_range(interval: Range) -> Range:
    """Return the interval of the negative of a quantity."""
    return None if interval is None else (-interval[1], -interval[0])


def _range(interval: Range, shown: Callable[[float], str], unit: str = "") -> str:
    if interval is None:
        return NOT_ENOUGH
    return f"{shown(interval[0])} to {shown(interval[1])}{unit}"


def _in_points(difference: float) -> str:
    return f"{round(100 * difference, 2) + 0.0:.2f}"
