"""Numbers as a reader of the report meets them; what cannot be told is said in words."""

from eval.judging.intervals import Interval

NOT_ENOUGH = "not enough"
UNKNOWN = "unknown"


def percent(share: float | None) -> str:
    """A share with one decimal, as in "84.1 %"."""
    return NOT_ENOUGH if share is None else f"{100 * share:.1f} %"


def percent_range(interval: Interval | None) -> str:
    """As in "82.4 to 85.6 %"."""
    if interval is None:
        return NOT_ENOUGH
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"


def points(difference: float) -> str:
    """A difference of shares in percentage points, as in "-0.42 points"; never "-0.00"."""
    return f"{_hundredfold(difference):.2f} points"


def points_range(interval: Interval | None) -> str:
    """As in "-0.90 to 0.06 points"."""
    if interval is None:
        return NOT_ENOUGH
    return f"{_hundredfold(interval[0]):.2f} to {_hundredfold(interval[1]):.2f} points"


def number(value: float | None) -> str:
    """Three decimals, for quantities between 0 and 1 that are not shares."""
    return NOT_ENOUGH if value is None else f"{value:.3f}"


def cost(value: float) -> str:
    """Four significant digits, in the unit that the costs were given in."""
    return f"{value:.4g}"


def cost_range(interval: Interval | None) -> str:
    """As in "0.1021 to 0.1302"."""
    return NOT_ENOUGH if interval is None else f"{cost(interval[0])} to {cost(interval[1])}"


def percent_of(part: float, whole: float) -> str:
    """`part` as a share of `whole`; unknown where that is 0."""
    return percent(part / whole) if whole > 0 else UNKNOWN


def _hundredfold(difference: float) -> float:
    return round(100 * difference, 2) + 0.0
