"""What serves, in plain Python, decides as what was certified, in numpy: question by question.

The models go through a certificate's JSON, as they do on their way to a server.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridserve_llm.calibration.artefact import Origin, certificate_of
from hybridserve_llm.calibration.certify import Calibration, Promise, best_path
from hybridserve_llm.calibration.choice import ChainEstimate
from hybridserve_llm.calibration.fitted import FittedModels, fit_models, states_of
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.calibration.policies import (
    NEVER,
    NO_TIER,
    Band,
    Risks,
    StateRule,
    WholePolicy,
    replay,
)
from hybridserve_llm.calibration.walk import tested as what_is_said_of
from hybridserve_llm.cascade.policy import Bounds
from hybridserve_llm.cascade.prompt_draw import prompt_draw
from hybridserve_llm.cascade.risk_policy import RiskBand, RiskPolicy, RiskRule
from hybridserve_llm.confidence.features import FEATURE_NAMES
from hybridserve_llm.confidence.prompt_features import PROMPT_FEATURE_NAMES, prompt_features
from hybridserve_llm.confidence.risk_models import KNOTS
from hybridserve_llm.config.certificate import Certificate
from hybridserve_llm.interfaces import Judge
from hybridserve_llm.promise.certified import CertifiedParts, certified_parts
from hybridserve_llm.values.answers import Assessment, Seen
from hybridserve_llm.values.requests import Endpoint, GenerateRequest

Make = Callable[..., Outcomes]
PROMISE = Promise(loss="net", epsilon=0.05, delta=0.1)
ORIGIN = Origin(
    created="2026-01-01T00:00:00+00:00",
    preset="accuracy",
    labels="reference",
    data_sha256="0" * 64,
    endpoints=("/v1/completions",),
    sampling={},
    fingerprint=None,
    cost_source="units",
)
SKILLS, COSTS = (0.35, 0.55, 0.75, 0.97), (1.0, 4.0, 15.0, 60.0)


@dataclass(frozen=True)
class World:
    """Questions whose prompts and answers tell something; some scores are missing."""

    prompts: tuple[str, ...]
    outcomes: Outcomes

    def request(self, question: int) -> GenerateRequest:
        payload = {"prompt": self.prompts[question]}
        return GenerateRequest(request_id="r", endpoint=Endpoint.COMPLETIONS, payload=payload)

    def assessment(self, question: int, tier: int) -> Assessment:
        """What a scorer would say of this answer."""
        score = self.outcomes.scores[question, tier]
        features = dict(
            zip(
                FEATURE_NAMES,
                map(known, self.outcomes.answer_features[question, tier].tolist()),
                strict=True,
            )
        )
        return Assessment(
            score=known(float(score)),
            answer_key=str(self.outcomes.answers[question, tier]),
            features=None if all(value is None for value in features.values()) else features,
        )


def known(value: float) -> float | None:
    return None if math.isnan(value) else value


def world_of(make_world: Make, n: int, n_tiers: int, seed: int) -> World:
    """A drawn world with the features that are read on the hot path.

    A harder question has a longer prompt, so that a gate finds something; the margins of an
    answer tell whether it is right better than its score, so that they are read. Five in a
    hundred answers have no score, as many no features, and as many no margins.
    """
    picked = [*range(n_tiers - 1), len(SKILLS) - 1]
    drawn = make_world(
        n, seed=seed, skills=[SKILLS[i] for i in picked], costs=[COSTS[i] for i in picked]
    )
    difficulty = np.random.default_rng(seed).random(n)  # the first that the world draws
    prompts = tuple("What is " + "7 " * int(60 * d) + "?" for d in difficulty)
    rng = np.random.default_rng(1000 + seed)
    features = rng.normal(0.0, 1.0, (n, n_tiers, len(FEATURE_NAMES)))
    margins = [FEATURE_NAMES.index(name) for name in ("mean_margin", "min_margin", "first_margin")]
    features[:, :, margins[0]] += 2.0 * drawn.is_right
    scores = np.where(rng.random((n, n_tiers)) < 0.05, np.nan, drawn.scores)
    features[rng.random((n, n_tiers)) < 0.05] = np.nan
    without = np.argwhere(rng.random((n, n_tiers)) < 0.05)
    features[without[:, 0, None], without[:, 1, None], margins] = np.nan
    return World(
        prompts,
        replace(
            drawn,
            scores=scores,
            prompt_features=np.array([prompt_features({"prompt": prompt}) for prompt in prompts]),
            prompt_feature_names=PROMPT_FEATURE_NAMES,
            answer_features=features,
            answer_feature_names=FEATURE_NAMES,
            draws=np.array([prompt_draw({"prompt": prompt}) for prompt in prompts]),
        ),
    )


@dataclass(frozen=True)
class Setting:
    """Models fitted on one draw of a world, and another draw of it."""

    fit: World
    fresh: World
    fitted: FittedModels

    @property
    def last(self) -> int:
        return self.fit.outcomes.last

    def path(self, *, has_gate: bool) -> list[WholePolicy]:
        """Policies over all tiers, strict to lax, as they are walked."""
        chain = tuple(range(self.last + 1))
        all_tiers = ChainEstimate(chain=chain, has_gate=has_gate, mean_cost=1.0)
        return best_path(all_tiers, self.fitted, self.fit.outcomes, PROMISE)

    def served(self, policy: WholePolicy) -> CertifiedParts:
        """What serves `policy`, by way of the text of its certificate."""
        outcomes = self.fresh.outcomes
        risks = self.fitted.risks(policy, outcomes)
        step = what_is_said_of(policy, risks, outcomes, "net", PROMISE.epsilon)
        calibration = Calibration(
            promise=PROMISE,
            fitted=self.fitted,
            estimates=(),
            certified=(step,),
            n_walkable=1,
            chosen=step,
            last=self.last,
        )
        certificate = certificate_of(
            calibration,
            outcomes,
            n_fit=self.fit.outcomes.n_questions,
            mean_cost=step.mean_cost,
            origin=ORIGIN,
        )
        read = Certificate.model_validate(orjson.loads(certificate.to_json()))
        return certified_parts(read, outcomes.tiers, is_certified=True)


@pytest.fixture(scope="module")
def setting(make_world: Make) -> Callable[[int], Setting]:
    """Fits a world of so many tiers, once."""

    @functools.cache
    def make(n_tiers: int) -> Setting:
        fit = world_of(make_world, 300, n_tiers, seed=1)
        fresh = world_of(make_world, 200, n_tiers, seed=2)
        return Setting(fit, fresh, fit_models(fit.outcomes, np.random.default_rng(0)))

    return make


def seen_in(world: World, question: int, state: Sequence[int]) -> list[Seen]:
    return [Seen(tier=tier, assessment=world.assessment(question, tier)) for tier in state]


def test_the_world_is_one_in_which_the_richer_models_are_chosen(
    setting: Callable[[int], Setting],
) -> None:
    fitted = setting(3).fitted
    assert 0 in fitted.gates
    # All features of the own score, both of the other tier's, agreement, and the answer's features.
    assert len(fitted.states[0,].columns) == 2 + len(KNOTS) + len(FEATURE_NAMES)
    assert len(fitted.states[0, 1].columns) == 4 + 1 + len(KNOTS) + len(FEATURE_NAMES)
    scores = setting(3).fresh.outcomes.scores
    assert 0.02 < np.isnan(scores).mean() < 0.1


@pytest.mark.parametrize("n_tiers", [2, 3, 4])
def test_confidence_and_risk_are_those_that_were_certified(
    setting: Callable[[int], Setting], n_tiers: int
) -> None:
    this = setting(n_tiers)
    chain = range(n_tiers)
    models = this.served(this.path(has_gate=True)[-1]).models
    assert set(models.states) == set(states_of(chain)) == set(this.fitted.states)
    for state in models.states:
        offline = this.fitted.judge(state, this.fresh.outcomes)
        online = [
            models.judge(seen_in(this.fresh, question, state))
            for question in range(this.fresh.outcomes.n_questions)
        ]
        for confidence, risk, one in zip(offline.confidence, offline.risk, online, strict=True):
            assert (one.confidence is None) == (one.risk is None) == math.isnan(risk)
            if one.confidence is not None:
                assert one.confidence == pytest.approx(confidence, abs=1e-9)
                assert one.risk == pytest.approx(risk, abs=1e-9)


def test_the_gates_risk_is_the_one_that_was_certified(setting: Callable[[int], Setting]) -> None:
    this = setting(3)
    models = this.served(this.path(has_gate=True)[-1]).models
    offline = this.fitted.gates[0].judge(this.fresh.outcomes).tolist()
    online = [models.entry_risk(this.fresh.request(q)) for q in range(len(offline))]
    assert online == pytest.approx(offline, abs=1e-9)
    assert this.served(this.path(has_gate=False)[-1]).models.gate is None


def climbed(
    policy: RiskPolicy, request: GenerateRequest, see: Callable[[int], Seen], last: int
) -> list[int]:
    """The tiers that a request asks, in order; the last of them answers."""
    bounds = Bounds(first_tier=0, final_tier=last)
    at: int | None = policy.entry(request, bounds)
    seen: list[Seen] = []
    while at is not None:
        seen.append(see(at))
        _, decision = policy.decide(seen, bounds)
        at = decision.next_tier
    return [one.tier for one in seen]


@pytest.mark.parametrize("has_gate", [False, True], ids=["no gate", "gate"])
@pytest.mark.parametrize("n_tiers", [2, 3, 4])
def test_every_question_goes_the_way_that_was_certified(
    setting: Callable[[int], Setting], n_tiers: int, has_gate: bool
) -> None:
    this = setting(n_tiers)
    world, outcomes = this.fresh, this.fresh.outcomes
    path = this.path(has_gate=has_gate)
    answered_by = set()
    for whole in path[:: max(1, len(path) // 4)]:
        done = replay(whole, this.fitted.risks(whole, outcomes), outcomes)
        policy = this.served(whole).policy
        assert policy is not None
        for question in range(outcomes.n_questions):
            asked = climbed(
                policy,
                world.request(question),
                lambda tier, question=question: Seen(
                    tier=tier, assessment=world.assessment(question, tier)
                ),
                this.last,
            )
            assert asked[-1] == done.answering[question]
            assert asked == np.flatnonzero(done.was_asked[question]).tolist()
        answered_by |= set(done.answering.tolist())
    assert len(answered_by) > 1  # not everything went one way


def test_a_gate_lets_prompts_enter_above_the_first_tier(
    setting: Callable[[int], Setting],
) -> None:
    # Without this, the test above would pass where no gate ever does anything.
    this = setting(3)
    entries = set()
    for whole in this.path(has_gate=True)[::10]:
        policy = this.served(whole).policy
        assert policy is not None
        bounds = Bounds(first_tier=0, final_tier=2)
        entries |= {policy.entry(this.fresh.request(q), bounds) for q in range(200)}
        if len(entries) > 1:
            break
    assert len(entries) > 1


LEVELS = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])  # few, so that risks meet bounds


@dataclass(frozen=True)
class Case:
    """Any policy, with a gate or without, over any risks; NaN where there is no score."""

    whole: WholePolicy
    risks: Risks
    n_tiers: int
    n_questions: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n_tiers, n = draw(st.integers(2, 4)), draw(st.integers(1, 8))
    chain = (*sorted(draw(st.sets(st.integers(0, n_tiers - 2)))), n_tiers - 1)
    has_gate = len(chain) > 1 and draw(st.booleans())
    rules, risks = {}, {}
    for state in ([NO_TIER] if has_gate else []) + states_of(chain):
        above = [tier for tier in chain if tier > max(state, default=-1)]
        targets = sorted(draw(st.sets(st.sampled_from(above), min_size=1)))
        bounds = sorted(draw(st.lists(LEVELS, min_size=len(targets), max_size=len(targets))))
        # Mostly the first band begins at the threshold, but steps of a path may move that alone.
        threshold = NEVER if state == NO_TIER else draw(LEVELS | st.just(NEVER))
        bands = zip(bounds, targets, strict=True)
        rules[state] = StateRule(
            accept_at_most=threshold, bands=tuple(Band(risk_above=r, to_tier=t) for r, t in bands)
        )
        values = LEVELS if state == NO_TIER else st.one_of(LEVELS, st.just(math.nan))
        risks[state] = np.array(draw(st.lists(values, min_size=n, max_size=n)))
    share = draw(st.sampled_from([1.0, 1.0, 0.5, 0.02]))
    return Case(WholePolicy(chain=chain, rules=rules, share=share), risks, n_tiers, n)


@dataclass(frozen=True)
class TableJudge:
    """Reads the risk of one question off a table."""

    risks: Risks
    question: int

    def judge(self, seen: Sequence[Seen]) -> Assessment:
        risk = float(self.risks[tuple(one.tier for one in seen)][self.question])
        return Assessment(score=None) if math.isnan(risk) else Assessment(score=-1.0, risk=risk)

    def entry_risk(self, request: GenerateRequest) -> float | None:
        return float(self.risks[NO_TIER][self.question]) if NO_TIER in self.risks else None


def served_rules(rules: Mapping[tuple[int, ...], StateRule]) -> Iterator[Any]:
    for state, rule in rules.items():
        bands = (RiskBand(risk_above=b.risk_above, to_tier=b.to_tier) for b in rule.bands)
        yield state, RiskRule(accept_at_most=rule.accept_at_most, bands=tuple(bands))


@given(cases())
def test_any_policy_goes_the_way_of_its_replay(make_table: Make, case: Case) -> None:
    payloads = [{"prompt": f"question {question}"} for question in range(case.n_questions)]
    outcomes = replace(
        make_table([[1] * case.n_tiers] * case.n_questions),
        draws=np.array([prompt_draw(payload) for payload in payloads]),
    )
    done = replay(case.whole, case.risks, outcomes)
    for question, payload in enumerate(payloads):
        judge: Judge = TableJudge({**case.risks, **_nothing_known_of_the_last(case)}, question)
        policy = RiskPolicy(
            chain=case.whole.chain,
            rules=dict(served_rules(case.whole.rules)),
            judge=judge,
            share=case.whole.share,
        )
        asked = climbed(
            policy,
            GenerateRequest(request_id="r", endpoint=Endpoint.COMPLETIONS, payload=payload),
            lambda tier: Seen(tier=tier, assessment=Assessment(score=-1.0)),
            outcomes.last,
        )
        assert asked[-1] == done.answering[question]
        assert asked == np.flatnonzero(done.was_asked[question]).tolist()


def _nothing_known_of_the_last(case: Case) -> Risks:
    *lower, last = case.whole.chain
    nothing = np.full(case.n_questions, math.nan)
    sizes = range(len(lower) + 1)
    return {(*picked, last): nothing for size in sizes for picked in combinations(lower, size)}
