"""Replaying whole policies: a table by hand, and a plain loop over single questions."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.calibration.policies import (
    NEVER,
    Band,
    Risks,
    StateRule,
    WholePolicy,
    apply_rule,
    escalate_all,
    replay,
)

Make = Callable[..., Outcomes]
NAN = math.nan
SLOW_MACHINES = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SKIPPING = WholePolicy(
    chain=(0, 1, 2),
    rules={
        (0,): StateRule(
            accept_at_most=0.1,
            bands=(Band(risk_above=0.1, to_tier=1), Band(risk_above=0.5, to_tier=2)),
        ),
        (0, 1): StateRule(accept_at_most=0.2, bands=(Band(risk_above=0.2, to_tier=2),)),
    },
)
# Question 0 is accepted at once, 1 goes to tier 1 and is accepted there, 2 skips to tier 2, and 3,
# without a score, goes where the first band goes, whose answer is too risky.
RISKS = {(0,): np.array([0.05, 0.3, 0.9, NAN]), (0, 1): np.array([0.9, 0.15, 0.0, 0.4])}
RIGHT = [[1, 1, 0], [1, 0, 1], [0, 0, 1], [1, 1, 0]]


def test_a_table_by_hand(make_table: Make) -> None:
    outcomes = make_table(RIGHT)  # costs 1, 10, 100
    done = replay(SKIPPING, RISKS, outcomes)
    assert done.answering.tolist() == [0, 1, 2, 2]
    assert done.was_asked.tolist() == [
        [True, False, False],
        [True, True, False],
        [True, False, True],
        [True, True, True],
    ]
    assert done.costs(outcomes).tolist() == [1, 11, 101, 111]  # every tier asked is paid for
    assert done.final_risk.tolist() == [0.05, 0.15, 0, 0]
    assert done.is_right(outcomes).tolist() == [True, False, True, False]
    assert done.is_lost(outcomes).tolist() == [False, True, False, False]
    assert done.is_rescued(outcomes).tolist() == [True, False, False, False]


def test_a_question_where_both_are_right_or_both_wrong_is_neither_lost_nor_rescued(
    make_table: Make,
) -> None:
    outcomes = make_table([[1, 1], [0, 0]])
    accept = StateRule(accept_at_most=1.0, bands=(Band(risk_above=1.0, to_tier=1),))
    done = replay(
        WholePolicy(chain=(0, 1), rules={(0,): accept}), {(0,): np.array([0.5, 0.5])}, outcomes
    )
    assert done.answering.tolist() == [0, 0]
    assert not done.is_lost(outcomes).any()
    assert not done.is_rescued(outcomes).any()


def test_a_threshold_is_accepted_and_a_bands_bound_belongs_to_the_band_below() -> None:
    accepted, goes_to = apply_rule(SKIPPING.rules[0,], np.array([0.1, 0.1001, 0.5, 0.5001, NAN]))
    assert accepted.tolist() == [True, False, False, False, False]
    assert goes_to[1:].tolist() == [1, 1, 2, 1]


def test_never_accepts_not_even_a_risk_of_nothing() -> None:
    rule = StateRule(accept_at_most=NEVER, bands=(Band(risk_above=NEVER, to_tier=1),))
    accepted, goes_to = apply_rule(rule, np.array([0.0, 1.0, NAN]))
    assert not accepted.any()
    assert goes_to.tolist() == [1, 1, 1]


def test_everything_may_go_to_the_last_tier(make_table: Make) -> None:
    outcomes = make_table(RIGHT)
    done = replay(escalate_all(2), {}, outcomes)
    assert done.answering.tolist() == [2] * 4
    assert done.costs(outcomes).tolist() == [100] * 4
    assert not done.is_lost(outcomes).any()


def test_a_chain_may_begin_above_the_first_tier(make_table: Make) -> None:
    outcomes = make_table(RIGHT)
    rule = StateRule(accept_at_most=0.2, bands=(Band(risk_above=0.2, to_tier=2),))
    policy = WholePolicy(chain=(1, 2), rules={(1,): rule})
    done = replay(policy, {(1,): np.array([0.1, 0.9, 0.2, NAN])}, outcomes)
    assert done.answering.tolist() == [1, 2, 1, 2]
    assert done.costs(outcomes).tolist() == [10, 110, 10, 110]


def test_shapes_are_equal_where_the_decisions_are() -> None:
    def policy(threshold: float, to_tier: int = 1) -> WholePolicy:
        band = Band(risk_above=threshold, to_tier=to_tier)
        rule = StateRule(accept_at_most=threshold, bands=(band,))
        return WholePolicy(chain=(0, 1, 2), rules={(0,): rule, (0, 1): rule})

    assert policy(0.1).shape() == policy(0.1).shape()
    others = [policy(0.2), policy(0.1, to_tier=2), escalate_all(2), escalate_all(1)]
    assert len({p.shape() for p in (policy(0.1), *others)}) == 5


@dataclass(frozen=True)
class Case:
    """Any policy over any risks."""

    policy: WholePolicy
    risks: Risks
    n_questions: int
    n_tiers: int


LEVELS = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])  # few, so that risks meet bounds


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n_tiers, n = draw(st.integers(2, 4)), draw(st.integers(1, 12))
    lower = draw(st.sets(st.integers(0, n_tiers - 2)))
    chain = (*sorted(lower), n_tiers - 1)
    rules, risks = {}, {}
    for size in range(1, len(chain)):
        for state in combinations(chain[:-1], size):
            above = [tier for tier in chain if tier > state[-1]]
            targets = sorted(draw(st.sets(st.sampled_from(above), min_size=1)))
            bounds = sorted(draw(st.lists(LEVELS, min_size=len(targets), max_size=len(targets))))
            start = draw(st.sampled_from([NEVER, bounds[0]]))
            bands = zip([start, *bounds[1:]], targets, strict=True)
            rules[state] = StateRule(
                accept_at_most=start, bands=tuple(Band(risk_above=r, to_tier=t) for r, t in bands)
            )
            risks[state] = np.array(
                draw(st.lists(st.one_of(LEVELS, st.just(NAN)), min_size=n, max_size=n))
            )
    return Case(WholePolicy(chain=chain, rules=rules), risks, n, n_tiers)


def walked(case: Case, question: int) -> tuple[int, set[int]]:
    """The tier that answers one question, and the tiers asked, by a plain loop."""
    *_, last = case.policy.chain
    state = (case.policy.chain[0],)
    while state[-1] != last:
        rule, risk = case.policy.rules[state], float(case.risks[state][question])
        if risk <= rule.accept_at_most:
            break
        target = rule.bands[0].to_tier
        for band in rule.bands[1:]:
            if risk > band.risk_above:
                target = band.to_tier
        state = (*state, target)
    return state[-1], set(state)


@SLOW_MACHINES
@given(cases())
def test_all_questions_at_once_go_the_way_that_each_goes_alone(
    make_table: Make, case: Case
) -> None:
    outcomes = make_table([[1] * case.n_tiers] * case.n_questions)
    done = replay(case.policy, case.risks, outcomes)
    for question in range(case.n_questions):
        answering, asked = walked(case, question)
        assert done.answering[question] == answering
        assert set(np.flatnonzero(done.was_asked[question])) == asked
        assert done.costs(outcomes)[question] == sum(10**tier for tier in asked)


@SLOW_MACHINES
@given(cases())
def test_a_question_is_answered_once_by_a_tier_that_was_asked(make_table: Make, case: Case) -> None:
    outcomes = make_table([[1] * case.n_tiers] * case.n_questions)
    done = replay(case.policy, case.risks, outcomes)
    assert done.answering.shape == (case.n_questions,)
    for asked, answering in zip(done.was_asked, done.answering, strict=True):
        tiers = np.flatnonzero(asked)
        assert set(tiers) <= set(case.policy.chain)
        assert tiers[0] == case.policy.chain[0]
        assert tiers[-1] == answering  # the last one asked answers


def test_costs_need_not_rise(make_table: Make) -> None:
    outcomes = make_table(RIGHT, costs=(5.0, 2.0, 3.0))
    assert replay(SKIPPING, RISKS, outcomes).costs(outcomes) == pytest.approx([5, 7, 8, 10])
