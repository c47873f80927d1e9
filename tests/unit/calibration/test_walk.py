"""The walk: where it stops, what it counts, and how often it errs."""

from collections.abc import Callable

import numpy as np
import pytest

from hybridserve_llm.calibration.loss_tests import net_p_value
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.calibration.path import price_path
from hybridserve_llm.calibration.policies import (
    NEVER,
    Band,
    Risks,
    StateRule,
    WholePolicy,
    escalate_all,
    replay,
)
from hybridserve_llm.calibration.risk_models import fit_state_models
from hybridserve_llm.calibration.walk import WalkStep, walk

Make = Callable[..., Outcomes]


def up_to(threshold: float) -> WholePolicy:
    """Two tiers, the first accepted up to a risk."""
    band = Band(risk_above=threshold, to_tier=1)
    return WholePolicy(
        chain=(0, 1), rules={(0,): StateRule(accept_at_most=threshold, bands=(band,))}
    )


def harmful_above_half(make_table: Make, n: int = 200) -> tuple[Outcomes, Risks]:
    """Risks 0 ... 1; the first tier is right up to 0.5 and wrong above, the last always right."""
    risk = np.linspace(0.0, 1.0, n)
    return make_table(np.stack([risk <= 0.5, np.ones(n)], axis=1), costs=(1.0, 10.0)), {(0,): risk}


def certified(
    path: list[WholePolicy], outcomes: Outcomes, risks: Risks, *, loss: str = "harm"
) -> tuple[WalkStep, ...]:
    return walk(path, risks, outcomes, loss=loss, epsilon=0.02, delta=0.1)


def test_stops_at_the_first_failure_even_if_later_ones_would_pass(make_table: Make) -> None:
    outcomes, risks = harmful_above_half(make_table)
    # Without a harm 0.98^200 = 0.018 is below 0.1; accepting everything does 100 harms of 200.
    first, third = up_to(0.2), up_to(0.4)
    assert [step.policy for step in certified([first, third], outcomes, risks)] == [first, third]
    stopped = certified([first, up_to(1.0), third], outcomes, risks)
    assert [step.policy for step in stopped] == [first]
    assert certified([up_to(1.0), first, third], outcomes, risks) == ()


def test_a_step_holds_what_was_counted(make_table: Make) -> None:
    outcomes, risks = harmful_above_half(make_table, n=201)  # steps of 0.005
    (step,) = certified([up_to(0.5051)], outcomes, risks)
    # Risks 0 ... 0.5 (101 questions) are right, 0.505 is harm. 102 cost 1 and 99 cost 11.
    assert (step.n, step.n_lost, step.n_rescued) == (201, 1, 0)
    assert step.mean_cost == pytest.approx((102 * 1 + 99 * 11) / 201)
    # 0.98^201 + 201 * 0.02 * 0.98^200
    assert step.p_value == pytest.approx(0.98**201 + 4.02 * 0.98**200)


def test_rescues_count_for_the_net_loss_only(make_table: Make) -> None:
    # 12 lost and 10 rescued of 600, all of them accepted.
    rows = [(0, 1)] * 12 + [(1, 0)] * 10 + [(1, 1)] * 578
    outcomes, risks = make_table(rows), {(0,): np.zeros(600)}
    assert certified([up_to(0.5)], outcomes, risks, loss="harm") == ()
    (step,) = certified([up_to(0.5)], outcomes, risks, loss="net")
    assert (step.n_lost, step.n_rescued) == (12, 10)
    assert step.p_value == net_p_value(12, 10, 600, 0.02)


@pytest.mark.parametrize(("n", "n_certified"), [(113, 0), (114, 1)])
def test_too_few_questions_certify_not_even_the_last_tier_alone(
    make_table: Make, n: int, n_certified: int
) -> None:
    # notes/confidence.md section 5: 114 questions without harm are needed.
    outcomes = make_table([[1, 1]] * n)
    assert len(certified([escalate_all(1)], outcomes, {})) == n_certified
    assert len(certified([up_to(NEVER)], outcomes, {(0,): np.zeros(n)})) == n_certified


@pytest.mark.parametrize("loss", ["net", "harm"])
@pytest.mark.slow
def test_errs_at_most_delta_of_the_time_on_one_path(make_world: Make, loss: str) -> None:
    # Given the fit split, the promise holds over the certify split: one path, 60 draws of 200 out
    # of 10,000 questions. The loss of what is certified is known from all of them.
    epsilon, delta, n_runs = 0.05, 0.1, 60
    fit, everything = make_world(200, seed=1), make_world(10_000, seed=2)
    models = fit_state_models(fit, np.random.default_rng(0))
    path = price_path((0, 1), {s: m.out_of_fold.risk for s, m in models.items()}, fit, 10)
    risk = models[0,].judge(everything).risk
    true_loss = {}
    for policy in path:
        done = replay(policy, {(0,): risk}, everything)
        rescued = done.is_rescued(everything).mean() if loss == "net" else 0.0
        true_loss[policy.shape()] = float(done.is_lost(everything).mean() - rescued)
    assert max(true_loss.values()) > epsilon  # there is something to get wrong
    losses = []
    for seed in range(n_runs):
        rows = np.random.default_rng(seed).integers(0, everything.n_questions, 200)
        steps = walk(
            path,
            {(0,): risk[rows]},
            everything.take(rows),
            loss=loss,
            epsilon=epsilon,
            delta=delta,
        )
        losses.append(max((true_loss[step.policy.shape()] for step in steps), default=0.0))
    allowed = delta + 3 * np.sqrt(delta * (1 - delta) / n_runs)
    assert np.mean(np.array(losses) > epsilon) <= allowed
    assert np.mean(losses) > 0.3 * epsilon  # and the budget is used, not shunned
