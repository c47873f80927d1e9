"""The alarm's arithmetic: an e-detector for "the mean loss of accepted answers is within budget".

Each label is a loss in [0, 1]: 1 where an accepted answer disagrees with the last tier, 0 where it
agrees, or a graded harm. What is promised, and what is not, is in `docs/drift.md`.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

_MULTIPLES = ((1.5, 0.05), (2.5, 0.9), (6.0, 0.05))
"""Multiples of the budget that are bet on, each with its share of the money.

Most of it lies on 2.5 and not on 3: a change to 3 times the budget is missed where chance brings
fewer losses than expected, and that is where 2.5 wins more (measured,
`eval/studies/drift_simulation.py`).
"""
FIRST_SHARE = 0.1
"""Share of a horizon's money that is bet from the first label on; our choice, measured likewise."""
_ROUNDING = 1e-9
"""A capped bet that is won ends on the goal itself, or a rounding error below it."""


def loss_budget(epsilon: float, acceptance: float) -> float:
    """Mean loss per accepted answer that spends `epsilon` per request: epsilon / acceptance.

    1 or more where even the loss of every accepted answer would be within `epsilon`.

    Raises:
        ValueError: `epsilon` is not in (0, 1], or `acceptance` is not in (0, 1].
    """
    if not 0.0 < epsilon <= 1.0:
        raise ValueError(f"epsilon {epsilon} must lie in (0, 1]")
    if not 0.0 < acceptance <= 1.0:
        raise ValueError(f"acceptance {acceptance} must lie in (0, 1]")
    return epsilon / acceptance


def bets(budget: float) -> tuple[tuple[float, float], ...]:
    """Pairs (stake per unit of loss beyond the budget, share of the money), one per multiple.

    Staking (p - b) / (b (1 - b)) makes a bet's growth the likelihood ratio of a Bernoulli of mean
    p over one of mean b. p = multiple * b, but at most b + (1 - b) / 3, so that p stays below 1.
    """
    ceiling = budget + (1.0 - budget) / 3.0
    return tuple(
        ((min(multiple * budget, ceiling) - budget) / (budget * (1.0 - budget)), share)
        for multiple, share in _MULTIPLES
    )


def wald_mean_samples(
    budget: float, *, alpha: float, beta: float = 0.05, multiple: float = 3.0
) -> float:
    """Labels that Wald's SPRT of mean `budget` against `multiple` * budget needs, the latter true.

    E[N] = ((1 - beta) ln((1 - beta) / alpha) + beta ln(beta / (1 - alpha))) / KL(p1, p0)

    Source: Wald, Sequential Tests of Statistical Hypotheses, Ann. Math. Statist. 16 (1945), the
    average sample number, which neglects the overshoot.
    """
    p0, p1 = budget, multiple * budget
    information = p1 * math.log(p1 / p0) + (1.0 - p1) * math.log((1.0 - p1) / (1.0 - p0))
    evidence = (1.0 - beta) * math.log((1.0 - beta) / alpha)
    return (evidence + beta * math.log(beta / (1.0 - alpha))) / information


@dataclass(frozen=True, slots=True, kw_only=True)
class EProcessState:
    """All there is to an e-process; a JSON round trip of it is exact."""

    budget: float
    delta: float
    horizon: float
    wealth: tuple[float, ...]
    n_labels: int = 0
    loss_sum: float = 0.0
    is_alarm: bool = False

    def to_json(self) -> dict[str, Any]:
        """A JSON object; Python writes floats so that they read back as the same."""
        return {**asdict(self), "wealth": list(self.wealth)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The state in `values`.

        Raises:
            KeyError, TypeError, ValueError: `values` is no state that `to_json` could have written.
        """
        state = cls(
            budget=float(values["budget"]),
            delta=float(values["delta"]),
            horizon=float(values["horizon"]),
            wealth=tuple(float(part) for part in values["wealth"]),
            n_labels=int(values["n_labels"]),
            loss_sum=float(values["loss_sum"]),
            is_alarm=bool(values["is_alarm"]),
        )
        # Written so that NaN, which fails every comparison, is refused as well.
        is_sound = (
            len(state.wealth) == len(_MULTIPLES)
            and all(0.0 < part <= 2.0 / state.delta for part in state.wealth)
            and 0.0 <= state.loss_sum <= state.n_labels
        )
        if not is_sound:
            raise ValueError(f"not the state of an e-process: {values!r:.200}")
        return state


class SelectiveEProcess:
    """Raises the alarm when the mean of the losses has risen above `budget`.

    A Shiryaev-Roberts e-detector. Before label t, the money w v_k comes in for every bet k, as a
    new e-process that starts now; then every bet grows by the betting factor of the loss x_t:

        S_k <- (S_k + w v_k) (1 + c_t lambda_k (x_t - b)),    S_k = w_1 v_k at first,
        alarm once M = sum_k S_k >= 1 / delta,

    with w_1 = FIRST_SHARE, w = (1 - FIRST_SHARE) / horizon and lambda_k, v_k from `bets`. The
    common factor c_t <= 1 shrinks the stakes just so far that a loss of 1 leads to 1 / delta and
    no further: money beyond the goal raises no second alarm, and what is not staked is not lost.

    False alarms. Let E[x_t | the past] <= b for all t (the labels drawn without a look at their
    outcome). Then M_t + w (T - t) is a non-negative supermartingale up to any T, so by Ville's
    inequality, for every T at once,

        P(alarm within the first T labels) <= delta (w_1 + w T) <= delta max(1, T / horizon).

    So: at most `delta` over the first `horizon` labels, at most k `delta` over k horizons. It is
    no bound over an endless stream: an alarm that is never false with probability 1 - delta has to
    become ever slower, and after years of safe running would be blind when it is needed.

    No logarithms: w v_k (1 - lambda_k b) <= S_k <= 1 / delta, so nothing can overflow or vanish.

    Source: Shin, Ramdas, Rinaldo, E-detectors (arXiv 2203.03532), section 2, for sums of
    e-processes started one after the other; their bound is on the mean time to a false alarm.
    Betting factors: Waudby-Smith, Ramdas, Estimating means of bounded random variables by betting
    (arXiv 2010.09686). Stopping at the goal: Fischer, Ramdas, Improving Wald's SPRT by avoiding
    overshoot (arXiv 2410.16076); they raise the other gains, here the stake is lowered, which
    holds for graded losses too.
    """

    def __init__(self, *, budget: float, delta: float, horizon: float) -> None:
        """An e-process without labels; `horizon` counts labels.

        Raises:
            ValueError: `budget` or `delta` is not in (0, 1), or `horizon` is below 1.
        """
        if not 0.0 < budget < 1.0:
            raise ValueError(f"budget {budget} must lie in (0, 1)")
        if not 0.0 < delta < 1.0:
            raise ValueError(f"delta {delta} must lie in (0, 1)")
        if not 1.0 <= horizon < math.inf:
            raise ValueError(f"horizon {horizon} must be a finite number of labels, 1 or more")
        rate = (1.0 - FIRST_SHARE) / horizon
        self._stakes, shares = zip(*bets(budget), strict=True)
        self._income = tuple(rate * share for share in shares)
        self._state = EProcessState(
            budget=budget,
            delta=delta,
            horizon=horizon,
            wealth=tuple(FIRST_SHARE * share for share in shares),
        )

    @classmethod
    def restored(cls, state: EProcessState) -> Self:
        """The e-process that `state` was taken from.

        Raises:
            ValueError: As in the constructor.
        """
        process = cls(budget=state.budget, delta=state.delta, horizon=state.horizon)
        process._state = state
        return process

    @property
    def state(self) -> EProcessState:
        """What there is to keep."""
        return self._state

    @property
    def e_value(self) -> float:
        """The wealth M: evidence against "within budget"; 1 / delta raises the alarm."""
        return sum(self._state.wealth)

    @property
    def is_alarm(self) -> bool:
        """Whether the alarm was raised; it stays so."""
        return self._state.is_alarm

    def update(self, loss: float) -> None:
        """Takes one label; after an alarm it is counted and bets nothing.

        Raises:
            ValueError: `loss` is not in [0, 1].
        """
        if not 0.0 <= loss <= 1.0:
            raise ValueError(f"loss {loss} must lie in [0, 1]")
        old = self._state
        wealth, is_alarm = old.wealth, old.is_alarm
        if not is_alarm:
            wealth = self._after_bet(loss)
            is_alarm = sum(wealth) >= (1.0 - _ROUNDING) / old.delta
        self._state = EProcessState(
            budget=old.budget,
            delta=old.delta,
            horizon=old.horizon,
            wealth=wealth,
            n_labels=old.n_labels + 1,
            loss_sum=old.loss_sum + loss,
            is_alarm=is_alarm,
        )

    def _after_bet(self, loss: float) -> tuple[float, ...]:
        budget = self._state.budget
        money = [part + new for part, new in zip(self._state.wealth, self._income, strict=True)]
        staked = sum(part * stake for part, stake in zip(money, self._stakes, strict=True))
        room = 1.0 / self._state.delta - sum(money)
        scale = min(1.0, max(0.0, room / (staked * (1.0 - budget))))
        return tuple(
            part * (1.0 + scale * stake * (loss - budget))
            for part, stake in zip(money, self._stakes, strict=True)
        )
