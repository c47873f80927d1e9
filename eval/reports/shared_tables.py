"""Make the tables that more than one report shows."""

from collections.abc import Mapping, Sequence

from eval.judging.intervals import Interval
from eval.judging.ways import Way
from hybridserve_llm.reporting.blocks import Table
from hybridserve_llm.reporting.readable import (
    four_digits,
    or_dash,
    percent,
    percent_range,
    points,
    points_range,
    reversed_range,
)

QUANTITIES = ("quantity", "value", "95 % interval")
FITTED_NOTE = (
    "*: thresholds fitted on one half of the questions, to cost no more than the policy there, and "
    "counted on the other half, both in turn. Random escalation is an expectation."
)


def ways_table(ways: Sequence[Way], *, caption: str, unit: str = "cost") -> Table:
    """Return accuracy, cost and ratio of each way; a star marks those with fitted thresholds."""
    return Table.of(
        ways,
        caption,
        {
            "who answers": lambda way: way.name + (" *" if way.is_fitted else ""),
            "right": lambda way: percent(way.accuracy),
            "95 % interval": _interval_of,
            unit: lambda way: four_digits(way.cost),
            "ratio": lambda way: or_dash(way.ratio, ".2f"),
        },
    )


def _interval_of(way: Way) -> str:
    return percent_range(way.accuracy_interval) if way.accuracy_interval else "expectation"


def asked_and_answered(
    caption: str, asked: Mapping[str, float], answered: Mapping[str, float]
) -> Table:
    """Return the shares of questions that each tier is asked and answers."""
    return Table.of(
        asked,
        caption,
        {
            "tier": str,
            "is asked": lambda tier: percent(asked[tier]),
            "answers": lambda tier: percent(answered[tier]),
        },
    )


def loss_rows(
    difference: float, interval: Interval | None, harm: float, harm_interval: Interval | None
) -> tuple[tuple[str, str, str], ...]:
    """Return rows of QUANTITIES: difference to the last tier's accuracy, net loss and harm."""
    net_loss = reversed_range(interval)
    return (
        ("accuracy minus the last tier's", points(difference), points_range(interval)),
        ("net loss", points(-difference), points_range(net_loss)),
        ("harm rate", percent(harm), percent_range(harm_interval)),
    )


def verdict(interval: Interval | None, epsilon: float) -> str:
    """Return whether the questions alone show that the loss is within `epsilon`."""
    if interval is not None and interval[1] <= epsilon:
        return "All of it is within epsilon."
    if interval is not None and interval[0] > epsilon:
        return "All of it is above epsilon: the promise is not kept here."
    return "That does not show whether the loss is within epsilon."
