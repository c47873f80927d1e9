"""From a calibration to its certificate: round trip, bounds by hand, what is never in the JSON."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from scipy import stats

from hybridserve_llm.calibration.artefact import (
    Origin,
    certificate_of,
    disagreement_bound,
    is_watch_blind,
    stricter,
)
from hybridserve_llm.calibration.certify import Calibration, Promise, calibrate
from hybridserve_llm.calibration.fitted import FittedModels
from hybridserve_llm.calibration.gate import GateModel
from hybridserve_llm.calibration.logistic import Logistic
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.calibration.policies import (
    NEVER,
    NO_TIER,
    Band,
    StateRule,
    WholePolicy,
    escalate_all,
    replay,
)
from hybridserve_llm.calibration.risk_models import FittedStateModel, Judgement
from hybridserve_llm.calibration.walk import WalkStep
from hybridserve_llm.config.certificate import Certificate

Make = Callable[..., Outcomes]
PROMISE = Promise(loss="harm", epsilon=0.05, delta=0.1)
THREE: dict[str, Any] = {"skills": (0.4, 0.7, 0.95), "costs": (1.0, 8.0, 60.0)}
ORIGIN = Origin(
    created="2026-01-01T00:00:00+00:00",
    preset="accuracy",
    labels="reference",
    data_sha256="0" * 64,
    endpoints=("/v1/chat/completions",),
    sampling={"temperature": 0},
    fingerprint={"hash": "sha256:f", "parts": {"scorer": "day-0/2"}},
    cost_source="tokens",
)


def written(calibration: Calibration, certify: Outcomes, *, mean_cost: float = 5.0) -> Certificate:
    return certificate_of(calibration, certify, n_fit=250, mean_cost=mean_cost, origin=ORIGIN)


@pytest.fixture(scope="module")
def split(make_world: Make) -> Outcomes:
    return make_world(400, seed=2, **THREE)


@pytest.fixture(scope="module")
def calibration(make_world: Make, split: Outcomes) -> Calibration:
    return calibrate(make_world(250, seed=1, **THREE), split, PROMISE)


def test_a_certificate_reads_back_as_the_same(calibration: Calibration, split: Outcomes) -> None:
    certificate = written(calibration, split)
    text = certificate.to_json()
    assert Certificate.model_validate(orjson.loads(text)) == certificate
    assert text.endswith("}\n")
    assert orjson.loads(text)["schema"] == "hybridserve-certificate/1"


def test_a_certificate_says_what_was_calibrated(calibration: Calibration, split: Outcomes) -> None:
    certificate, step = written(calibration, split), calibration.chosen
    assert step is not None
    assert certificate.certified
    assert (certificate.loss, certificate.epsilon, certificate.delta) == ("harm", 0.05, 0.1)
    assert (certificate.n_fit, certificate.n_certify) == (250, 400)
    assert certificate.tiers == ("t0", "t1", "t2")
    assert certificate.chain == tuple(f"t{i}" for i in step.policy.chain)
    assert certificate.cost.tiers == {"t0": 1.0, "t1": 8.0, "t2": 60.0}
    assert (certificate.cost.last, certificate.cost.cascade, certificate.cost_ratio) == (60, 5, 12)
    assert certificate.sampling == {"temperature": 0}
    assert certificate.fingerprint is not None
    assert certificate.fingerprint.hash == "sha256:f"
    policy = certificate.policy
    assert policy is not None
    counts = (policy.n, policy.n_lost, policy.n_rescued, policy.p_value, policy.mean_cost)
    assert counts == (400, step.n_lost, step.n_rescued, step.p_value, step.mean_cost)
    # Shares of all questions, so together they are those that the last tier did not answer.
    assert sum(policy.acceptance.values()) == pytest.approx(step.n_accepted / 400)
    assert set(policy.acceptance) == set(certificate.chain[:-1])
    states = {part.asked for part in certificate.models}
    assert states == {rule.asked for rule in policy.rules}


def test_the_strict_policy_is_certified_too_and_loses_half_as_much_at_most(
    calibration: Calibration, split: Outcomes
) -> None:
    certificate, step = written(calibration, split), calibration.chosen
    assert step is not None
    assert step.n_lost > 0  # else there is nothing to halve
    strict, policy = certificate.strict_policy, certificate.policy
    assert strict is not None
    assert policy is not None
    certified = {(s.n_lost, s.mean_cost, s.p_value) for s in calibration.certified}
    assert (strict.n_lost, strict.mean_cost, strict.p_value) in certified
    assert 2 * strict.n_lost <= policy.n_lost
    assert strict.p_value <= PROMISE.delta
    assert 0 < sum(strict.acceptance.values()) < sum(policy.acceptance.values())
    assert strict.disagreement < policy.disagreement


def step(n_lost: int, mean_cost: float, n_accepted: int = 50) -> WalkStep:
    return WalkStep(
        policy=escalate_all(1),
        n=100,
        n_accepted=n_accepted,
        n_lost=n_lost,
        n_rescued=0,
        p_value=0.01,
        mean_cost=mean_cost,
    )


def test_the_stricter_step_is_the_cheapest_of_those_that_lost_half_as_much() -> None:
    nothing, none_lost, two, three = step(0, 10, 0), step(0, 9), step(2, 7), step(3, 6)
    four, five = step(4, 4), step(5, 5)
    assert stricter([nothing, none_lost, two, three, four], four) is two
    assert stricter([nothing, none_lost, three, four], four) is none_lost
    # 2 * 2 <= 5, and not 2 * 3.
    assert stricter([none_lost, two, three, four, five], five) is two


def test_there_is_no_stricter_step_where_none_accepts_anything_or_nothing_was_lost() -> None:
    nothing, none_lost, also_none, three = step(0, 10, 0), step(0, 9), step(0, 8), step(3, 6)
    assert stricter([nothing, three], three) is None
    assert stricter([three], three) is None
    assert stricter([nothing, none_lost, also_none], also_none) is None


def test_the_bound_on_disagreement_by_hand() -> None:
    # (1 - p)^100 = 0.1 where none disagreed: p = 1 - 0.1^(1/100) = 0.0227628. Five of 100 at
    # 97.5 %: 0.1128349, the upper end of the two-sided 95 % interval (R: binom.test(5, 100)).
    assert disagreement_bound(0, 100, delta=0.1) == pytest.approx(0.0227628, abs=1e-7)
    assert disagreement_bound(5, 100, delta=0.025) == pytest.approx(0.1128349, abs=1e-7)
    exact = stats.binomtest(7, 60).proportion_ci(0.9, method="exact").high
    assert disagreement_bound(7, 60, delta=0.05) == pytest.approx(exact)
    assert disagreement_bound(100, 100, delta=0.1) == 1.0


def constant(probability: float, n_features: int = 0) -> Logistic:
    """A model that reads features and makes nothing of them."""
    return Logistic(
        means=np.full(n_features, np.nan),
        scales=np.ones(n_features),
        weights=np.zeros(n_features),
        intercept=math.log(probability / (1 - probability)),
    )


def by_hand(outcomes: Outcomes, **changes: Any) -> Calibration:
    """Tier 0 is accepted at a risk of 0.1 * 0.5; one more certified step comes before it."""
    own = Logistic(
        means=np.array([-1.0, 0.5]),
        scales=np.array([2.0, 1.0]),
        weights=np.array([0.0, 0.0]),
        intercept=math.log(1 / 9),
    )
    nothing = Judgement(confidence=np.empty(0), risk=np.empty(0))
    state = FittedStateModel(
        state=(0,),
        columns=np.array([0, 1]),
        wrong=own,
        last_right=constant(0.5, 2),
        out_of_fold=nothing,
    )
    accept = StateRule(accept_at_most=0.06, bands=(Band(risk_above=0.06, to_tier=1),))
    refuse = StateRule(accept_at_most=NEVER, bands=(Band(risk_above=NEVER, to_tier=1),))
    lax = WholePolicy(chain=(0, 1), rules={(0,): accept})
    strict = WholePolicy(chain=(0, 1), rules={(0,): refuse})
    n = outcomes.n_questions
    steps = [replace(step(n_lost, 5.0), n=n, policy=p) for n_lost, p in ((0, strict), (3, lax))]
    values: dict[str, Any] = {
        "promise": PROMISE,
        "fitted": FittedModels(states={(0,): replace(state, **changes)}, gates={}),
        "estimates": (),
        "certified": tuple(steps),
        "path": (strict, strict, lax, lax),
        "chosen": steps[1],
        "last": 1,
    }
    return Calibration(**values)


def test_disagreement_counts_answers_below_the_last_tier_that_are_not_its_own(
    make_table: Make,
) -> None:
    # Tier 0 answers the 38 questions with a score; of those it says three times another thing than
    # the last tier: twice wrongly, and once rightly where the last tier is wrong. Two questions
    # without a score go on, and do not disagree whatever tier 0 says.
    scores = [[-0.1, -0.1]] * 38 + [[math.nan, -0.1]] * 2
    right = [[0, 1]] * 2 + [[1, 0]] + [[1, 1]] * 35 + [[0, 1]] * 2
    outcomes = make_table(right, scores=scores)
    calibration = by_hand(outcomes)
    done = replay(calibration.policy, calibration.risks(outcomes), outcomes)
    assert done.answering.tolist() == [0] * 38 + [1] * 2
    policy = written(calibration, outcomes).policy
    assert policy is not None
    assert policy.acceptance == {"t0": 38 / 40}
    # Four policies could be walked, though two were certified: each has a quarter of delta = 0.1,
    # which is one side of a two-sided 95 %.
    assert policy.disagreement == pytest.approx(
        stats.binomtest(3, 40).proportion_ci(0.95, method="exact").high
    )


def test_features_without_weight_are_left_out(make_table: Make) -> None:
    outcomes = make_table([[1, 1]] * 40)
    (part,) = written(by_hand(outcomes), outcomes).models
    assert (part.asked, part.wrong.features, part.last_right.features) == (("t0",), (), ())
    assert part.wrong.intercept == pytest.approx(-2.1972246)  # log(0.1 / 0.9)


def test_slopes_are_of_features_as_they_are_told(make_table: Make) -> None:
    # weight / scale: 3 / 2 of (x + 1); the second feature has no weight.
    outcomes = make_table([[1, 1]] * 40)
    weighted = Logistic(
        means=np.array([-1.0, 0.5]),
        scales=np.array([2.0, 1.0]),
        weights=np.array([3.0, 0.0]),
        intercept=-2.0,
    )
    (part,) = written(by_hand(outcomes, wrong=weighted), outcomes).models
    assert part.wrong.features == ("t0.logprob",)
    assert (part.wrong.slopes, part.wrong.means, part.wrong.intercept) == ((1.5,), (-1.0,), -2.0)


def test_nothing_certified_is_written_as_such(make_world: Make) -> None:
    # 44 questions are too few for epsilon = 0.05 (notes/confidence.md section 5: 45).
    split = make_world(44, seed=2)
    calibration = calibrate(make_world(200, seed=1), split, PROMISE)
    assert calibration.chosen is None
    values = orjson.loads(written(calibration, split, mean_cost=10.0).to_json())
    assert values["certified"] is False
    assert [values[key] for key in ("policy", "strict_policy", "gate")] == [None, None, None]
    assert (values["chain"], values["models"]) == (["t1"], [])
    assert values["cost"]["cascade"] == values["cost"]["last"] == 10.0


def numbers(value: Any) -> list[float]:
    """Every number in decoded JSON."""
    if isinstance(value, dict):
        return [number for inner in value.values() for number in numbers(inner)]
    if isinstance(value, list):
        return [number for inner in value for number in numbers(inner)]
    return [float(value)] if isinstance(value, int | float) else []


def test_never_is_null_and_no_number_is_infinite_or_none_at_all(make_table: Make) -> None:
    outcomes = make_table([[1, 1]] * 40, scores=[[math.nan, -0.1]] * 20 + [[-0.1, -0.1]] * 20)
    calibration = by_hand(outcomes)
    gate = StateRule(
        accept_at_most=NEVER,
        bands=(Band(risk_above=NEVER, to_tier=0), Band(risk_above=0.5, to_tier=1)),
    )
    chosen = calibration.certified[0]  # accepts nothing
    rules = {**chosen.policy.rules, NO_TIER: gate}
    chosen = replace(chosen, policy=replace(chosen.policy, rules=rules))
    model = GateModel(first=0, wrong=constant(0.3, 1), out_of_fold=np.full(40, 0.3))
    fitted = replace(calibration.fitted, gates={0: model})
    gated = replace(calibration, fitted=fitted, chosen=chosen, certified=(chosen,))
    text = written(gated, outcomes).to_json()
    assert "NaN" not in text
    assert "Infinity" not in text
    values = orjson.loads(text)
    assert all(map(math.isfinite, numbers(values)))
    before, after = values["policy"]["rules"]
    assert (before["asked"], before["accept_at_risk"]) == ([], None)
    assert before["else_ask"] == [
        {"risk_above": None, "tier": "t0"},
        {"risk_above": 0.5, "tier": "t1"},
    ]
    assert (after["asked"], after["accept_at_risk"]) == (["t0"], None)
    assert values["gate"]["features"] == []


def test_worlds_with_missing_values_are_written_with_plain_numbers(make_world: Make) -> None:
    def with_gaps(outcomes: Outcomes) -> Outcomes:
        scores = outcomes.scores.copy()
        scores[::7, 0] = np.nan
        features = np.random.default_rng(0).normal(size=(*scores.shape, 2))
        features[::5] = np.nan
        return replace(
            outcomes, scores=scores, answer_features=features, answer_feature_names=("a", "b")
        )

    split = with_gaps(make_world(400, seed=2, **THREE))
    calibration = calibrate(with_gaps(make_world(250, seed=1, **THREE)), split, PROMISE)
    values = orjson.loads(written(calibration, split).to_json())
    assert values["certified"]
    assert all(map(math.isfinite, numbers(values)))


def test_the_watch_is_blind_where_every_accepted_answer_is_worded_otherwise(
    calibration: Calibration, split: Outcomes
) -> None:
    assert not is_watch_blind(calibration, split)
    worded_otherwise = np.arange(split.answers.size).reshape(split.answers.shape)
    assert is_watch_blind(calibration, replace(split, answers=worded_otherwise))
    assert not is_watch_blind(replace(calibration, chosen=None), split)
