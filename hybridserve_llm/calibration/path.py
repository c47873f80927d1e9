"""Make the path of whole policies from strict to lax that is walked on the certify split.

One number orders the path: the price of harm. At each price, dynamic programming (optimal stopping)
finds a policy on the fit split, from cross-fitted risks. In a state, accepting costs price * risk;
asking tier u costs u and the expected cost from there on. The highest prices accept next to
nothing. So every threshold and band of a policy comes from one Lagrangian. A free search would fit
the noise of 300 rows.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hybridserve_llm.calibration.outcomes import Floats, Ints, Outcomes, State
from hybridserve_llm.calibration.policies import NEVER, Band, Risks, StateRule, WholePolicy

N_PRICES_TO_CHOOSE, N_PRICES_TO_WALK = 30, 60
_ROUNDING = 1e-9
N_STEPS_TO_CHOOSE, N_STEPS_TO_WALK = 60, 150
"""Coarse to compare chains; fine to walk one: a walk can only stop where the path has a step."""
_HIGHEST_PRICE = 300.0
_LOWEST_PRICE = 0.75
"""Prices of one harm, in costs of asking the last tier."""


def price_path(
    chain: Sequence[int], risks: Risks, outcomes: Outcomes, n_prices: int
) -> list[WholePolicy]:
    """Return the different policies of one chain, strict to lax, as the price of harm falls.

    `risks` are out of fold on `outcomes`. The policies have a gate where `risks` has one of the
    empty state.
    """
    last_cost = float(outcomes.costs[outcomes.last])
    prices = np.geomspace(_HIGHEST_PRICE, _LOWEST_PRICE, n_prices) * last_cost
    path: list[WholePolicy] = []
    for price in prices:
        policy = policy_at_price(chain, risks, outcomes.costs, float(price))
        if not path or path[-1].shape() != policy.shape():
            path.append(policy)
    return path


def finely_stepped(
    path: Sequence[WholePolicy], risks: Risks, served: Risks, n_steps: int
) -> list[WholePolicy]:
    """Return the path with a step wherever a walk may have to stop, from "accepts nothing" on.

    Between two policies, and before the first, the numbers of answers that each state accepts on
    the fit split are interpolated. A step's bands are those of the laxer policy. `risks` are those
    that the path was made from, out of fold; `served` are those on the fit split of the models that
    will serve. Bounds go from one to the other by rank. So answers which tie, as most of a very
    sure tier's do, are accepted together and with no others.
    """
    scales = {state: _Scale.of(risks[state], served[state]) for state in path[0].rules}
    states = [state for state in path[0].rules if state]
    counts = np.array(
        [[0] * len(states)]
        + [[scales[s].n_below(policy.rules[s].accept_at_most) for s in states] for policy in path]
    )
    way = np.append(0, np.cumsum(np.abs(np.diff(counts, axis=0)).max(axis=1, initial=0)))
    stepped: list[WholePolicy] = []
    for at in np.unique(np.concatenate([np.linspace(0, way[-1], n_steps), way])):
        laxer = path[max(int(np.searchsorted(way, at)) - 1, 0)]
        accepted = dict.fromkeys(laxer.rules, 0)
        for column, state in enumerate(states):
            accepted[state] = round(float(np.interp(at, way, counts[:, column])))
        rules = {
            state: scales[state].rule(rule, accepted[state]) for state, rule in laxer.rules.items()
        }
        policy = replace(laxer, rules=rules)
        if not stepped or stepped[-1].shape() != policy.shape():
            stepped.append(policy)
    return stepped


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """Hold the risks of one state in rising order: of the path, and of the models that serve."""

    made_from: Floats
    served: Floats

    @classmethod
    def of(cls, made_from: Floats, served: Floats) -> "_Scale":
        return cls(
            made_from=np.sort(made_from[~np.isnan(made_from)]),
            served=np.sort(served[~np.isnan(served)]),
        )

    def n_below(self, bound: float) -> int:
        """Count the risks that the path was made from and that are at most `bound`."""
        return int(np.searchsorted(self.made_from, bound, side="right"))

    def rule(self, rule: StateRule, n_accepted: int) -> StateRule:
        """Return the rule with bounds on the risks that serve.

        It accepts `n_accepted` of them, and those that tie with the last one.
        """
        first, *further = rule.bands
        threshold = self._just_above(n_accepted)
        bands = [
            Band(risk_above=self._just_above(self.n_below(b.risk_above)), to_tier=b.to_tier)
            for b in further
        ]
        return StateRule(
            accept_at_most=threshold,
            bands=(Band(risk_above=threshold, to_tier=first.to_tier), *bands),
        )

    def _just_above(self, n_below: int) -> float:
        """Return a bound just above the first `n_below` served risks, by no more than rounding."""
        return float(self.served[n_below - 1]) * (1 + _ROUNDING) if n_below else NEVER


def policy_at_price(chain: Sequence[int], risks: Risks, costs: Floats, price: float) -> WholePolicy:
    """Return the policy of least expected cost + `price` * harm.

    It is found by backward induction over the states.
    """
    *lower, last = chain
    rules: dict[State, StateRule] = {}
    cost_to_go: dict[State, Floats] = {}
    for size in range(len(lower), -1, -1):
        for state in itertools.combinations(lower, size):
            if state not in risks:  # no gate
                continue
            onward = {
                tier: float(costs[tier])
                if tier == last
                else costs[tier] + _expected(cost_to_go[*state, tier], risks[state])
                for tier in chain
                if tier > max(state, default=-1)
            }
            harm_price = price if state else math.inf  # before any answer there is none to take
            rules[state], cost_to_go[state] = _best_rule(risks[state], onward, harm_price)
    return WholePolicy(chain=tuple(chain), rules=rules)


def _expected(cost_to_go: Floats, risk: Floats) -> Floats:
    """Return the cost to go from the next state, as a line in the logit of the risk, shape [n].

    It is never below 0. The line has two parameters, so that 300 rows are enough.
    """
    known = ~np.isnan(risk) & ~np.isnan(cost_to_go)
    if not known.any():
        return np.zeros(len(risk))
    logit = _logit(risk)
    design = np.stack([np.ones(known.sum()), logit[known]], axis=1)
    gram = design.T @ design + 1e-3 * np.eye(2)
    line = np.linalg.solve(gram, design.T @ cost_to_go[known])
    return np.asarray(np.maximum(line[0] + line[1] * logit, 0.0), dtype=np.float64)


def _logit(risk: Floats) -> Floats:
    clipped = np.clip(risk, 1e-4, 1 - 1e-4)
    return np.asarray(np.log(clipped / (1 - clipped)), dtype=np.float64)


def _best_rule(
    risk: Floats, onward: Mapping[int, float | Floats], price: float
) -> tuple[StateRule, Floats]:
    """Return the rule at one state, and the cost to go under it, shape [n].

    `onward` holds, by tier, the expected cost of asking it next. Accepting ends at the first risk,
    rising, at which going on is cheaper; from there on the target may only move further up.
    """
    tiers = sorted(onward)
    costs = np.stack([np.broadcast_to(onward[tier], risk.shape) for tier in tiers])
    known = np.flatnonzero(~np.isnan(risk))
    order = known[np.argsort(risk[known], kind="stable")]
    cheapest = np.maximum.accumulate(np.argmin(costs[:, order], axis=0)) if len(order) else order
    going_on = costs[cheapest, order]
    is_dearer = price * risk[order] > going_on
    n_accepted = int(np.argmax(is_dearer)) if is_dearer.any() else len(order)
    threshold = _between(risk[order], n_accepted)
    bands = _bands(risk[order], cheapest, n_accepted, tiers, threshold)
    to_go = np.asarray(costs[0], dtype=np.float64).copy()
    to_go[order] = np.where(np.arange(len(order)) < n_accepted, price * risk[order], going_on)
    return StateRule(accept_at_most=threshold, bands=bands), to_go


def _bands(
    risk: Floats,
    cheapest: Ints,
    n_accepted: int,
    tiers: Sequence[int],
    threshold: float,
) -> tuple[Band, ...]:
    """Return bands of rising risk, each with its tier.

    `risk` is sorted and `cheapest` indexes `tiers`.
    """
    rejected = cheapest[n_accepted:]
    if len(rejected) == 0:
        return (Band(risk_above=threshold, to_tier=tiers[0]),)
    changes = np.flatnonzero(np.diff(rejected)) + 1
    further = [
        Band(risk_above=_between(risk, n_accepted + int(i)), to_tier=tiers[int(rejected[i])])
        for i in changes
    ]
    return (Band(risk_above=threshold, to_tier=tiers[int(rejected[0])]), *further)


def _between(risk: Floats, n_below: int) -> float:
    """Return a bound halfway between the first `n_below` of the sorted risks and the next one."""
    if n_below == 0:
        return NEVER
    below = float(risk[n_below - 1])
    above = float(risk[n_below]) if n_below < len(risk) else 1.0
    return (below + above) / 2
