"""A cascade that costs more than it saves is refused, with the figures."""

from collections.abc import Callable
from typing import Any

import pytest

from hybridserve_llm.config.certificate import Certificate
from hybridserve_llm.errors import CannotBeDone
from launch.plans.profitable import check_it_pays

Values = Callable[..., dict[str, Any]]
FIGURES = (
    "cost of a request (tokens x parameters): small 1, giant 10; cascade {} against giant alone 10"
)


def cost(cascade: float, **tiers: float) -> dict[str, Any]:
    tiers = tiers or {"small": 1.0, "giant": 10.0}
    return {"source": "tokens x parameters", "tiers": tiers, "cascade": cascade, "last": 10.0}


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(CannotBeDone) as caught:
        check_it_pays(Certificate.model_validate(values))
    return str(caught.value)


def test_a_cascade_that_saves_passes(certificate_values: Values) -> None:
    check_it_pays(Certificate.model_validate(certificate_values()))
    check_it_pays(Certificate.model_validate(certificate_values(cost=cost(9.99))))


@pytest.mark.parametrize(("cascade", "shown"), [(10.0, "10"), (12.3456, "12.35")])
def test_one_that_costs_as_much_as_its_last_tier_is_refused(
    certificate_values: Values, cascade: float, shown: str
) -> None:
    assert refusal(certificate_values(cost=cost(cascade))) == (
        f"this cascade does not pay; {FIGURES.format(shown)}. "
        "Serve giant without a cascade, or add --allow-unprofitable"
    )


def test_one_of_which_nothing_is_certified_is_refused(certificate_values: Values) -> None:
    nothing = {"certified": False, "policy": None, "chain": ["giant"], "models": []}
    assert refusal(certificate_values(cost=cost(10.0), epsilon=0.005, **nothing)) == (
        "this cascade does not pay: nothing that is cheaper than giant alone is certified at "
        f"epsilon 0.005; {FIGURES.format(10)}. "
        "Serve giant without a cascade, or add --allow-unprofitable"
    )


def test_a_tier_that_would_be_asked_nothing_is_named(certificate_values: Values) -> None:
    tiers = {"small": 1.0, "medium": 9.5, "giant": 10.0}
    message = refusal(certificate_values(tiers=list(tiers), cost=cost(4.0, **tiers)))
    assert message.startswith(
        "tier medium does not pay and would be asked nothing: the best chain is small > giant; "
    )
    assert "small 1, medium 9.5, giant 10; cascade 4 against giant alone 10" in message
    assert "Take medium out of the configuration and calibrate again" in message
    assert message.endswith("--allow-unprofitable")
