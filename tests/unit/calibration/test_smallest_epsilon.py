"""The least loss that counts can bound: an upper confidence bound by inverting the tests."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridserve_llm.calibration.loss_tests import Loss, p_value, smallest_epsilon

STEP = 1e-4


@pytest.mark.parametrize(
    ("n_lost", "n", "delta", "epsilon"),
    [
        # (1 - e)^n <= delta: e >= 1 - 0.1^(1/600) = 0.003830, and 1 - 0.1^(1/100) = 0.022763.
        (0, 600, 0.1, 0.0039),
        (0, 100, 0.1, 0.0228),
        (0, 100, 0.05, 0.0296),  # 1 - 0.05^(1/100) = 0.029513
        # Clopper-Pearson for 5 of 100 at one-sided 97.5 %: 0.11283491 (the upper end of the usual
        # two-sided 95 % interval, e.g. R's binom.test(5, 100)).
        (5, 100, 0.025, 0.1129),
        (100, 100, 0.1, 1.0),
    ],
)
def test_harm_is_bounded_as_by_clopper_and_pearson(
    n_lost: int, n: int, delta: float, epsilon: float
) -> None:
    assert smallest_epsilon(n_lost, 0, n, loss="harm", delta=delta) == epsilon


@settings(max_examples=40)
@given(st.data(), st.sampled_from(["net", "harm"]), st.sampled_from([0.05, 0.1, 0.2]))
@pytest.mark.slow
def test_it_is_shown_at_the_bound_and_not_a_step_below(
    data: st.DataObject, loss: Loss, delta: float
) -> None:
    n = data.draw(st.integers(20, 400))
    n_lost = data.draw(st.integers(0, n // 4))
    n_rescued = data.draw(st.integers(0, n // 4))
    epsilon = smallest_epsilon(n_lost, n_rescued, n, loss=loss, delta=delta)
    assert 0 < epsilon < 1
    assert epsilon == round(epsilon, 4)
    assert p_value(n_lost, n_rescued, n, epsilon, loss=loss) <= delta
    if epsilon > STEP:
        assert p_value(n_lost, n_rescued, n, epsilon - STEP, loss=loss) > delta


def test_rescues_lower_the_bound_on_the_net_loss_and_not_that_on_harm() -> None:
    net = [smallest_epsilon(6, rescued, 300, loss="net", delta=0.1) for rescued in (0, 3, 9)]
    assert net == sorted(net, reverse=True)
    assert len(set(net)) == 3
    harm = {smallest_epsilon(6, rescued, 300, loss="harm", delta=0.1) for rescued in (0, 3, 9)}
    assert len(harm) == 1


def test_where_everything_is_lost_nothing_is_shown() -> None:
    assert smallest_epsilon(50, 0, 50, loss="net", delta=0.1) == 1.0
