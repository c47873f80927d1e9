"""What a cascade may promise: fingerprints, certificates for other cascades, what scorers read."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybridserve_llm.cascade.policy import Bounds, ScorePolicy, SkipRule, TierRule
from hybridserve_llm.cascade.risk_policy import RiskBand, RiskPolicy, RiskRule
from hybridserve_llm.confidence.day_zero import Reads
from hybridserve_llm.confidence.features import FEATURE_NAMES
from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.config.certificate import Certificate
from hybridserve_llm.config.load import parse_config
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.promise.certified import certified_parts
from hybridserve_llm.promise.fingerprint import (
    CheckpointFacts,
    Fingerprint,
    differences,
    fingerprint_of,
)
from hybridserve_llm.promise.standing import STATES, Standing, standing_of
from hybridserve_llm.promise.view import CascadeView
from hybridserve_llm.promise.watching import agree, watch_of
from hybridserve_llm.testing import FakeClock, FakeEngine
from hybridserve_llm.values.answers import Assessment, Seen
from hybridserve_llm.values.requests import Endpoint, GenerateRequest

Values = Callable[..., dict[str, Any]]
SMALL: dict[str, Any] = {"name": "small", "model": "/models/s", "accept": {"score_at_least": -0.5}}
GIANT: dict[str, Any] = {"name": "giant", "model": "org/g"}
FACTS = {"small": CheckpointFacts(content="sha256:s"), "giant": CheckpointFacts()}
VERSIONS = {"small": "0.32.0", "giant": "0.32.0"}


def config_of(
    small: dict[str, Any] | None = None, giant: dict[str, Any] | None = None, **more: Any
) -> CascadeConfig:
    tiers = [{**SMALL, **(small or {})}, {**GIANT, **(giant or {})}]
    return parse_config({"tiers": tiers, **more}, source="test")


CONFIG = config_of()
FINGERPRINT = fingerprint_of(CONFIG, FACTS, VERSIONS)


def standing(values: dict[str, Any], *, allow_uncertified: bool = False) -> Standing:
    return standing_of(
        CONFIG,
        Certificate.model_validate(values),
        FINGERPRINT,
        allow_uncertified=allow_uncertified,
    )


def entry(standing: Standing) -> int:
    request = GenerateRequest(request_id="r", endpoint=Endpoint.CHAT, payload={})
    return standing.default.entry(request, Bounds(first_tier=0, final_tier=1))


def other_fingerprint() -> dict[str, Any]:
    """That of the same cascade with another vLLM at small and another checkpoint."""
    facts = {**FACTS, "small": CheckpointFacts(content="sha256:t")}
    return fingerprint_of(CONFIG, facts, {**VERSIONS, "small": "0.31.0"}).as_json()


def test_without_a_certificate_thresholds_are_on_the_score_and_nothing_is_promised() -> None:
    config = config_of()
    found = standing_of(config, None, FINGERPRINT, allow_uncertified=False)
    assert (found.state, found.certificate) == ("uncertified", "none")
    assert found.reasons == ("no certificate: thresholds are on the raw score",)
    assert isinstance(found.default, ScorePolicy)
    assert found.default.rules[0] == TierRule(accept_at=-0.5)
    assert (found.default.is_certified, found.default.has_confidence) == (False, False)
    assert (found.strict, found.coverage, found.reads) == (None, None, Reads())


def test_without_a_certificate_skip_bands_are_those_of_the_file() -> None:
    skipping = {**SMALL, "skip": [{"score_below": -3, "to": "giant"}]}
    middle = {"name": "medium", "model": "org/m", "accept": {"score_at_least": -1}}
    config = parse_config({"tiers": [skipping, middle, GIANT]}, source="test")
    found = standing_of(config, None, FINGERPRINT, allow_uncertified=False)
    assert isinstance(found.default, ScorePolicy)
    band = SkipRule(score_below=-3, to_tier=2)
    assert found.default.rules[:2] == (
        TierRule(accept_at=-0.5, skips=(band,)),
        TierRule(accept_at=-1),
    )


def test_a_certificate_of_this_very_cascade_is_served_and_certified(
    certificate_values: Values, policy_values: Values
) -> None:
    found = standing(
        certificate_values(
            fingerprint=FINGERPRINT.as_json(), strict_policy=policy_values(0.03, acceptance=0.2)
        )
    )
    assert (found.state, found.reasons, entry(found)) == ("certified", (), 0)
    assert found.certificate == "valid"
    assert found.default.is_certified
    assert found.strict is not None
    assert found.strict.is_certified
    assert found.strict.rules[0,].accept_at_most == 0.03
    assert found.coverage is not None
    assert found.coverage.endpoints == {Endpoint.CHAT}
    assert found.coverage.sampling == {"temperature": 0}


def test_with_another_fingerprint_everything_goes_to_the_last_tier_and_says_what_differs(
    certificate_values: Values, policy_values: Values
) -> None:
    strict = policy_values(0.03, acceptance=0.2)
    values = certificate_values(fingerprint=other_fingerprint(), strict_policy=strict)
    found = standing(values)
    assert (found.state, entry(found)) == ("last_tier_only", 1)
    assert found.certificate == "of_another_cascade"
    assert found.reasons == (
        'fingerprint differs: tiers.small.checkpoint was "sha256:t", is "sha256:s"',
        'fingerprint differs: tiers.small.engine_version was "0.31.0", is "0.32.0"',
    )
    assert (found.strict, found.coverage) == (None, None)


def test_with_another_fingerprint_a_person_may_have_the_policy_served_uncertified(
    certificate_values: Values, policy_values: Values
) -> None:
    strict = policy_values(0.03, acceptance=0.2)
    values = certificate_values(fingerprint=other_fingerprint(), strict_policy=strict)
    found = standing(values, allow_uncertified=True)
    assert (found.state, entry(found), len(found.reasons)) == ("uncertified", 0, 2)
    assert found.certificate == "of_another_cascade"
    assert not found.default.is_certified
    assert found.strict is not None
    assert not found.strict.is_certified
    assert found.coverage is None


def test_a_certificate_without_a_fingerprint_is_of_no_known_cascade(
    certificate_values: Values,
) -> None:
    found = standing(certificate_values(fingerprint=None))
    assert found.state == "last_tier_only"
    assert "made from records of no known cascade" in found.reasons[0]
    allowed = standing(certificate_values(fingerprint=None), allow_uncertified=True)
    assert allowed.state == "uncertified"


@pytest.mark.parametrize("allow_uncertified", [False, True])
def test_a_certificate_that_certifies_nothing_sends_everything_to_the_last_tier(
    certificate_values: Values, allow_uncertified: bool
) -> None:
    nothing = {"certified": False, "policy": None, "chain": ["giant"], "models": []}
    values = certificate_values(fingerprint=FINGERPRINT.as_json(), **nothing)
    found = standing(values, allow_uncertified=allow_uncertified)
    assert (found.state, entry(found)) == ("last_tier_only", 1)
    assert found.certificate == "certifies_nothing"
    assert "nothing which pays can be certified" in found.reasons[0]
    assert len(found.reasons) == 1
    assert found.coverage is None  # and so no answer is called certified


def test_a_certificate_of_another_cascade_that_certifies_nothing_says_both(
    certificate_values: Values,
) -> None:
    nothing = {"certified": False, "policy": None, "chain": ["giant"], "models": []}
    found = standing(certificate_values(fingerprint=other_fingerprint(), **nothing))
    assert (found.state, found.certificate) == ("last_tier_only", "of_another_cascade")
    assert "nothing which pays can be certified" in found.reasons[0]
    assert len(found.reasons) == 3  # and two parts of the fingerprint that differ


def test_every_standing_is_a_known_state(certificate_values: Values) -> None:
    same = certificate_values(fingerprint=FINGERPRINT.as_json())
    other = certificate_values(fingerprint=other_fingerprint())
    pairs = itertools.product((same, other), (False, True))
    found = {standing(values, allow_uncertified=allowed).state for values, allowed in pairs}
    assert found == set(STATES)


@pytest.mark.parametrize("tiers", [("giant", "small"), ("small",), ("small", "medium", "giant")])
def test_a_certificate_for_other_tiers_is_refused(
    certificate_values: Values, tiers: tuple[str, ...]
) -> None:
    certificate = Certificate.model_validate(certificate_values())
    with pytest.raises(ConfigError, match=r"for the tiers small, giant, and the .* has ") as caught:
        certified_parts(certificate, tiers, is_certified=True)
    assert str(caught.value).endswith(", ".join(tiers))


def model(*features: str) -> dict[str, Any]:
    n = len(features)
    return {"intercept": 0.0, "features": features, "slopes": [1.0] * n, "means": [0.0] * n}


@pytest.mark.parametrize(
    ("wrong", "last_right", "gate", "unknown"),
    [
        (["small.mood"], [], [], "small.mood"),
        ([], ["giant.logprob"], [], "giant.logprob"),  # small was asked, and nobody else
        ([], [], ["log_moons"], "log_moons"),
    ],
)
def test_a_feature_of_another_version_is_refused(
    certificate_values: Values,
    wrong: list[str],
    last_right: list[str],
    gate: list[str],
    unknown: str,
) -> None:
    state = {"asked": ["small"], "wrong": model(*wrong), "last_right": model(*last_right)}
    values = certificate_values(models=[state], gate=model(*gate))
    certificate = Certificate.model_validate(values)
    with pytest.raises(ConfigError, match=f"reads the feature '{unknown}', unknown here"):
        certified_parts(certificate, ("small", "giant"), is_certified=True)


def test_a_certificate_becomes_the_policy_that_it_names(certificate_values: Values) -> None:
    rules = [
        {"asked": [], "accept_at_risk": None, "else_ask": [
            {"risk_above": None, "tier": "small"}, {"risk_above": 0.7, "tier": "giant"}]},
        {"asked": ["small"], "accept_at_risk": 0.1, "else_ask": [
            {"risk_above": 0.1, "tier": "giant"}]},
    ]  # fmt: skip
    values = certificate_values(gate=model("log_lines"))
    values["policy"] = {**values["policy"], "rules": rules}
    parts = certified_parts(
        Certificate.model_validate(values), ("small", "giant"), is_certified=True
    )
    never = float("-inf")
    assert parts.policy == RiskPolicy(
        chain=(0, 1),
        rules={
            (): RiskRule(
                accept_at_most=never,
                bands=(RiskBand(risk_above=never, to_tier=0), RiskBand(risk_above=0.7, to_tier=1)),
            ),
            (0,): RiskRule(accept_at_most=0.1, bands=(RiskBand(risk_above=0.1, to_tier=1),)),
        },
        judge=parts.models,
        is_certified=True,
    )
    # A score of -0.12: logit -10 * 0.28 = -2.8, 1 / (1 + e^2.8) = 0.0573242.
    judged = parts.models.judge([Seen(tier=0, assessment=Assessment(score=-0.12))])
    assert judged.confidence == pytest.approx(1 - 0.0573242, abs=1e-7)
    assert judged.risk == pytest.approx(0.0286621, abs=1e-7)


def reads_of(certificate_values: Values, *features: str, tier: str = "medium") -> Reads:
    """What is read where the models after small and medium read `features`."""
    tiers = ["small", tier, "giant"]
    state = {"asked": ["small", tier], "wrong": model(*features), "last_right": model()}
    values = certificate_values(tiers=tiers, chain=tiers, models=[state])
    certificate = Certificate.model_validate(values)
    return certified_parts(certificate, tiers, is_certified=True).reads


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ([], Reads()),
        (["small.logprob", "medium.neg_log_complement"], Reads()),
        (["agree.small.medium"], Reads(agreement=True)),
        (["medium.log_length"], Reads(features=True)),
        # Their names end as that of the score does.
        (["medium.mean_logprob"], Reads(features=True)),
        (["medium.first_logprob"], Reads(features=True)),
        (["medium.min_margin"], Reads(features=True, margins=True)),
        (
            ["agree.small.medium", "medium.mean_margin"],
            Reads(agreement=True, features=True, margins=True),
        ),
    ],
)
def test_scorers_read_what_the_models_read_and_no_more(
    certificate_values: Values, features: list[str], expected: Reads
) -> None:
    assert reads_of(certificate_values, *features) == expected


def test_what_the_last_right_models_read_is_read_too(certificate_values: Values) -> None:
    state = {"asked": ["small"], "wrong": model(), "last_right": model("small.tail_mean")}
    certificate = Certificate.model_validate(certificate_values(models=[state]))
    reads = certified_parts(certificate, ("small", "giant"), is_certified=True).reads
    assert reads == Reads(features=True)


def test_every_feature_of_an_answer_is_read_where_a_model_names_it(
    certificate_values: Values,
) -> None:
    for name in FEATURE_NAMES:
        assert reads_of(certificate_values, f"medium.{name}").features


def test_a_tier_may_be_called_agree(certificate_values: Values) -> None:
    assert reads_of(certificate_values, "agree.logprob", tier="agree") == Reads()
    assert reads_of(certificate_values, "agree.log_length", tier="agree") == Reads(features=True)


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    one = Fingerprint(parts={"a": 1, "b": {"c": 2, "d": 3}})
    other = Fingerprint(parts={"b": {"d": 3, "c": 2}, "a": 1})
    assert one.hash == other.hash
    assert one.hash.startswith("sha256:")
    assert one.as_json() == {"hash": one.hash, "parts": {"a": 1, "b": {"c": 2, "d": 3}}}


CHANGED: dict[str, tuple[CascadeConfig, dict[str, CheckpointFacts], dict[str, str | None]]] = {
    "checkpoint": (CONFIG, {**FACTS, "giant": CheckpointFacts(content="sha256:g")}, VERSIONS),
    "engine version": (CONFIG, FACTS, {**VERSIONS, "giant": "0.33.0"}),
    "no engine version": (CONFIG, FACTS, {**VERSIONS, "giant": None}),
    "model": (config_of(giant={"model": "org/h"}), FACTS, VERSIONS),
    "dtype": (config_of(small={"engine": {"dtype": "float16"}}), FACTS, VERSIONS),
    "max_model_len": (config_of(small={"engine": {"max_model_len": 99}}), FACTS, VERSIONS),
    "reasoning": (config_of(giant={"engine": {"reasoning_parser": "x"}}), FACTS, VERSIONS),
    "tools": (config_of(giant={"engine": {"tool_call_parser": "x"}}), FACTS, VERSIONS),
    "arguments": (config_of(giant={"engine": {"extra_args": ["-x"]}}), FACTS, VERSIONS),
    "end of reasoning": (config_of(giant={"reasoning_end_token": "</r>"}), FACTS, VERSIONS),
    "name": (config_of(giant={"name": "huge"}), FACTS, VERSIONS),
}
SAME: dict[str, tuple[CascadeConfig, dict[str, CheckpointFacts], dict[str, str | None]]] = {
    "folder": (config_of(small={"model": "/elsewhere/s"}), FACTS, VERSIONS),
    "parameters": (
        CONFIG,
        {**FACTS, "giant": CheckpointFacts(active_parameters=7)},
        VERSIONS,
    ),
    "no facts": (CONFIG, {"small": FACTS["small"]}, VERSIONS),
    "thresholds": (config_of(small={"accept": {"score_at_least": -1}}), FACTS, VERSIONS),
    "batching": (config_of(small={"engine": {"max_num_seqs": 3}}), FACTS, VERSIONS),
    "replicas": (config_of(small={"replicas": 2, "tensor_parallel_size": 2}), FACTS, VERSIONS),
    "server": (config_of(server={"port": 9}, watch={"seed": 3}), FACTS, VERSIONS),
}


@pytest.mark.parametrize("given", CHANGED.values(), ids=CHANGED)
def test_the_hash_changes_with_everything_that_changes_answers(given: Any) -> None:
    found = fingerprint_of(*given)
    assert found.hash != FINGERPRINT.hash
    assert differences(FINGERPRINT.parts, found.parts)


@pytest.mark.parametrize("given", SAME.values(), ids=SAME)
def test_the_hash_stays_where_answers_do(given: Any) -> None:
    assert fingerprint_of(*given).hash == FINGERPRINT.hash


@pytest.mark.parametrize("name", ["scorer", "prompt_features", "normaliser"])
def test_our_own_code_has_its_version_in_the_fingerprint(name: str) -> None:
    parts = {**FINGERPRINT.parts, name: "another/1"}
    assert Fingerprint(parts=parts).hash != FINGERPRINT.hash
    (line,) = differences(parts, FINGERPRINT.parts)
    assert line.startswith(f'{name} was "another/1", is "')


def test_differences_name_the_place_and_both_values() -> None:
    was = {"a": {"b": 1, "c": [1, 2], "gone": "x"}, "same": True, "long": "y" * 60}
    now = {"a": {"b": 2, "c": [1, 3], "new": None}, "same": True, "long": "z" * 60}
    assert differences(was, now) == [
        "a.b was 1, is 2",
        "a.c was [1,2], is [1,3]",
        'a.gone was "x", is null',
        f'long was "{"y" * 36}..., is "{"z" * 36}...',
    ]
    assert differences(was, was) == []
    assert differences({"a": {"b": 1}}, {"a": None}) == ['a was {"b":1}, is null']


def test_a_hash_that_differs_for_no_known_part_is_told_as_such(certificate_values: Values) -> None:
    odd = {"hash": "sha256:odd", "parts": FINGERPRINT.as_json()["parts"]}
    assert standing(certificate_values(fingerprint=odd)).reasons == ("fingerprint differs: hash",)


def watched(values: dict[str, Any], folder: Path | None, config: CascadeConfig = CONFIG) -> Any:
    """The watch over a cascade with the certificate `values`."""
    certificate = Certificate.model_validate(values)
    view = CascadeView(
        models={"small": "s", "giant": "g"},
        active_parameters={},
        fingerprint=FINGERPRINT,
        standing=standing(values),
        certificate=certificate,
    )
    engines = {"small": FakeEngine(), "giant": FakeEngine()}
    return watch_of(config, certificate, view, engines, FakeClock(), folder)


@pytest.mark.usefixtures("without_river")
def test_a_certified_cascade_is_watched_where_there_is_a_place_for_the_state(
    certificate_values: Values, tmp_path: Path
) -> None:
    same = certificate_values(fingerprint=FINGERPRINT.as_json())
    watch = watched(same, tmp_path)
    (monitor,) = watch.snapshot().monitors
    # The bound on the disagreement of all requests over the share that is accepted: .02 / .5.
    assert monitor.budget == pytest.approx(0.04)
    assert (tmp_path / "watch.json").exists()
    elsewhere = tmp_path / "elsewhere.json"
    assert watched(same, None, config_of(watch={"state_file": str(elsewhere)})) is not None
    assert elsewhere.exists()
    assert watched(same, None) is None
    assert watched(certificate_values(fingerprint=other_fingerprint()), tmp_path) is None


def test_a_policy_that_accepts_nothing_is_not_watched(
    certificate_values: Values, tmp_path: Path
) -> None:
    values = certificate_values(fingerprint=FINGERPRINT.as_json())
    values["policy"] = {**values["policy"], "acceptance": {"small": 0.0}}
    assert watched(values, tmp_path) is None


@pytest.mark.usefixtures("without_river")
@pytest.mark.parametrize("disagreement", [0.5, 0.56, 1.0])  # half of all is accepted
def test_a_policy_whose_every_answer_may_disagree_is_watched_with_a_warning(
    certificate_values: Values, tmp_path: Path, disagreement: float
) -> None:
    values = certificate_values(fingerprint=FINGERPRINT.as_json())
    values["policy"] = {**values["policy"], "disagreement": disagreement}
    told = watched(values, tmp_path).snapshot()
    assert (told.status, told.monitors) == ("warning", ())
    assert "disagreement cannot show a loss here" in told.reasons[0]


@pytest.mark.usefixtures("without_river")
def test_the_watch_is_set_by_the_configuration(certificate_values: Values, tmp_path: Path) -> None:
    settings = {"delta": 0.01, "shadow_share": 1.0, "horizon_requests": 500}
    same = certificate_values(fingerprint=FINGERPRINT.as_json())
    watch = watched(same, tmp_path, config_of(watch=settings))
    (monitor,) = watch.snapshot().monitors
    assert monitor.alarm_at == pytest.approx(100)  # 1 / delta


@pytest.mark.usefixtures("without_river")
def test_a_persons_name_lifts_a_standing_alarm(certificate_values: Values, tmp_path: Path) -> None:
    (tmp_path / "watch.json").write_text("not JSON")  # it may have held an alarm
    same = certificate_values(fingerprint=FINGERPRINT.as_json())
    assert watched(same, tmp_path).snapshot().status == "alarm"
    certificate = Certificate.model_validate(same)
    view = CascadeView(
        models={}, active_parameters={}, fingerprint=FINGERPRINT, standing=standing(same)
    )
    engines = {"small": FakeEngine(), "giant": FakeEngine()}
    lifted = watch_of(
        CONFIG, certificate, view, engines, FakeClock(), tmp_path, acknowledged_by="Ada"
    )
    assert lifted is not None
    assert (lifted.level, lifted.snapshot().alarm) == ("normal", None)
    assert lifted.snapshot().n_acknowledged == 1


def test_two_answers_agree_in_normal_form() -> None:
    request = GenerateRequest(request_id="r", endpoint=Endpoint.CHAT, payload={})
    assert agree(request, "1,000", "1000.0") is True
    assert agree(request, "Paris.", "Rome") is False
    assert agree(request, "", "Rome") is None
    assert agree(request, "Paris", " ") is None
