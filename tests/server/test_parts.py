"""The promise in one line, as the launcher prints it."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hybridserve_llm.config.certificate import Certificate
from hybridserve_llm.config.load import parse_config
from hybridserve_llm.promise.fingerprint import fingerprint_of
from hybridserve_llm.promise.standing import standing_of
from hybridserve_llm.promise.view import CascadeView
from hybridserve_llm.server.parts import Parts, promise_of

Values = Callable[..., dict[str, Any]]
CONFIG = parse_config(
    {
        "tiers": [
            {"name": "small", "model": "s", "accept": {"score_at_least": -1}},
            {"name": "giant", "model": "g"},
        ]
    },
    source="test",
)
FINGERPRINT = fingerprint_of(CONFIG, {}, {})


def promise(values: dict[str, Any] | None, *, allow_uncertified: bool = False) -> str:
    """That of a cascade with this certificate; only its view is read."""
    certificate = None if values is None else Certificate.model_validate(values)
    view = CascadeView(
        models={},
        active_parameters={},
        fingerprint=FINGERPRINT,
        standing=standing_of(CONFIG, certificate, FINGERPRINT, allow_uncertified=allow_uncertified),
        certificate=certificate,
    )
    return promise_of(cast(Parts, SimpleNamespace(cascade=view)))


def other(n_changes: int) -> dict[str, Any]:
    """A fingerprint that differs in so many places."""
    changes = {"scorer": "day-0/1", "normaliser": "answer/0", "prompt_features": "prompt/0"}
    parts = {**FINGERPRINT.as_json()["parts"], **dict(list(changes.items())[:n_changes])}
    return {"hash": "sha256:other", "parts": parts}


def test_without_a_certificate_nothing_is_promised() -> None:
    assert promise(None) == (
        "uncertified: thresholds are on the raw score, no accuracy is promised"
    )


@pytest.mark.parametrize(
    ("loss", "what"), [("net", "accuracy lost against the last tier"), ("harm", "harm")]
)
def test_a_certified_cascade_says_what_it_may_lose_and_what_it_saves(
    certificate_values: Values, loss: str, what: str
) -> None:
    # 10 / 4 = 2.5 times cheaper, with probability 1 - 0.1.
    values = certificate_values(fingerprint=FINGERPRINT.as_json(), loss=loss)
    assert promise(values) == (f"certified: {what} <= 0.02 with probability 0.9, 2.50x cheaper")


def test_a_cascade_that_is_another_one_says_why_it_asks_the_last_tier(
    certificate_values: Values,
) -> None:
    one, three = (certificate_values(fingerprint=other(n)) for n in (1, 3))
    difference = 'fingerprint differs: scorer was "day-0/1", is "day-0/2"'
    assert promise(one) == f"everything goes to the last tier: {difference}"
    assert promise(three) == f"everything goes to the last tier: {difference} and 2 more"
    assert promise(one, allow_uncertified=True) == f"uncertified: {difference}"


def test_where_nothing_is_certified_the_last_tier_is_asked_for_everything(
    certificate_values: Values,
) -> None:
    nothing = {"certified": False, "policy": None, "chain": ["giant"], "models": []}
    assert promise(certificate_values(fingerprint=FINGERPRINT.as_json(), **nothing)) == (
        "everything goes to the last tier: "
        "the certificate says that nothing which pays can be certified"
    )
