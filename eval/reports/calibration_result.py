"""What a calibration came to: figures on the test questions, in values, words and JSON."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.recorded.splits import Splits
from hybridserve_llm.calibration.artefact import is_watch_blind
from hybridserve_llm.calibration.certify import Calibration
from hybridserve_llm.calibration.outcomes import State
from hybridserve_llm.calibration.policies import NO_TIER, Replay, WholePolicy, replay


@dataclass(frozen=True, slots=True, kw_only=True)
class TierShare:
    """One tier on the test questions: shares are of all of them."""

    name: str
    cost: float
    accuracy: float
    answered: float
    asked: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainCost:
    """One chain as judged on the fit questions; `cost_share` is of the last tier alone."""

    tiers: tuple[str, ...]
    has_gate: bool
    mean_cost: float
    cost_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that `hs-calibrate` says; rates are shares of the test questions."""

    calibration: Calibration
    tiers: tuple[TierShare, ...]
    chains: tuple[ChainCost, ...]
    n_fit: int
    n_certify: int
    n_test: int
    n_incomplete: int
    test_harm: float
    test_accuracy: float
    test_accuracy_last: float
    cost_ratio: float
    cost_source: str
    seed: int
    is_watch_blind: bool
    is_of_groups: bool
    decisions: tuple[tuple[Any, str], ...]

    @property
    def certified(self) -> bool:
        """Whether a policy that pays was certified."""
        return self.calibration.chosen is not None

    @property
    def chain(self) -> tuple[str, ...]:
        """Names of the tiers that are kept."""
        return tuple(self.tiers[i].name for i in self.calibration.policy.chain)

    def headline(self) -> str:
        """The result in two or three sentences."""
        promise, chosen = self.calibration.promise, self.calibration.chosen
        if chosen is None:
            return (
                f"Nothing that pays is certifiable at epsilon {promise.epsilon:g}, delta "
                f"{promise.delta:g} ({promise.loss} loss): everything goes to {self.chain[-1]}."
            )
        return (
            f"{' > '.join(self.chain)}: certified {promise.loss} loss <= {promise.epsilon:g} with "
            f"probability {1 - promise.delta:g}{self._of_groups()} "
            f"(n = {chosen.n}: {chosen.n_lost} lost, {chosen.n_rescued} rescued, "
            f"p = {chosen.p_value:.3g}). On {self.n_test} test questions: "
            f"accuracy {self.test_accuracy:.4f}, last tier {self.test_accuracy_last:.4f}; "
            f"{self.cost_ratio:.2f}x cheaper."
        )

    def _of_groups(self) -> str:
        return " for a random question of a random group" if self.is_of_groups else ""

    def _is_beyond(self) -> bool:
        """Whether the loss over all test questions, each counted once, is beyond epsilon."""
        promise, net = self.calibration.promise, self.test_accuracy_last - self.test_accuracy
        return (self.test_harm if promise.loss == "harm" else net) > promise.epsilon

    def remarks(self) -> list[str]:
        """What else a reader has to know."""
        dropped = [tier.name for tier in self.tiers if tier.name not in self.chain]
        lines = [
            f"Cost: {self.cost_source}.",
            f"Seed of the splits: {self.seed}. Delta is for one try, named beforehand.",
        ]
        if dropped and self.certified:
            lines.append(f"Dropped, as they do not pay: {', '.join(dropped)}.")
        share = self.calibration.policy.share
        if share < 1:
            lines.append(
                f"Of all prompts {share:.1%} enter the cascade, by a number made from their text; "
                f"the others go to {self.chain[-1]} at once."
            )
        if self.is_of_groups and self.certified and self._is_beyond():
            lines.append(
                "Warning: counted by question, the loss on the test questions is beyond epsilon; "
                "the certificate counts every group as one."
            )
        if self.is_watch_blind:
            lines.append(
                "The watch will see no loss: so many accepted answers differ in wording from the "
                "last tier's that disagreement cannot show one."
            )
        if self.n_incomplete:
            lines.append(f"Left out, not answered by every tier: {self.n_incomplete} questions.")
        return lines

    def as_json(self) -> dict[str, Any]:
        """One JSON object; absent is null."""
        promise, chosen = self.calibration.promise, self.calibration.chosen
        return {
            "chain": list(self.chain),
            "epsilon": promise.epsilon,
            "delta": promise.delta,
            "loss": promise.loss,
            "certified": self.certified,
            "policy": policy_as_json(self.calibration.policy, [tier.name for tier in self.tiers]),
            "share": self.calibration.policy.share,
            "n_fit": self.n_fit,
            "n_certify": self.n_certify,
            "n_test": self.n_test,
            "n_incomplete": self.n_incomplete,
            "n_lost": chosen.n_lost if chosen else None,
            "n_rescued": chosen.n_rescued if chosen else None,
            "p_value": chosen.p_value if chosen else None,
            "test_harm": self.test_harm,
            "test_net_loss": self.test_accuracy_last - self.test_accuracy,
            "test_accuracy": self.test_accuracy,
            "test_accuracy_last": self.test_accuracy_last,
            "acceptance": {tier.name: tier.answered for tier in self.tiers},
            "asked": {tier.name: tier.asked for tier in self.tiers},
            "tier_accuracy": {tier.name: tier.accuracy for tier in self.tiers},
            "cost": {tier.name: tier.cost for tier in self.tiers},
            "cost_ratio": self.cost_ratio,
            "cost_source": self.cost_source,
            "chains": [
                {
                    "chain": list(c.tiers),
                    "gate": c.has_gate,
                    "mean_cost": c.mean_cost,
                    "cost_share": c.cost_share,
                }
                for c in self.chains
            ],
            "seed": self.seed,
        }


def report_of(
    calibration: Calibration, splits: Splits, *, cost_source: str, n_incomplete: int, seed: int
) -> Report:
    """Replays the policy on the test questions and puts the figures together."""
    test = splits.test
    done = replay(calibration.policy, calibration.risks(test), test)
    last_cost = float(test.costs[test.last])
    return Report(
        calibration=calibration,
        tiers=_tier_shares(splits, done),
        chains=tuple(
            ChainCost(
                tiers=tuple(test.tiers[i] for i in estimate.chain),
                has_gate=estimate.has_gate,
                mean_cost=estimate.mean_cost,
                cost_share=estimate.mean_cost / last_cost,
            )
            for estimate in calibration.estimates
        ),
        n_fit=splits.fit.n_questions,
        n_certify=splits.certify.n_questions,
        n_test=test.n_questions,
        n_incomplete=n_incomplete,
        test_harm=float(done.is_lost(test).mean()),
        test_accuracy=float(done.is_right(test).mean()),
        test_accuracy_last=float(test.is_right[:, test.last].mean()),
        cost_ratio=last_cost / float(done.costs(test).mean()) if calibration.chosen else 1.0,
        cost_source=cost_source,
        seed=seed,
        is_watch_blind=is_watch_blind(calibration, splits.certify),
        is_of_groups=splits.is_of_groups,
        decisions=tuple(
            (question, test.tiers[tier])
            for question, tier in zip(test.questions, done.answering, strict=True)
        ),
    )


def _tier_shares(splits: Splits, done: Replay) -> tuple[TierShare, ...]:
    test = splits.test
    return tuple(
        TierShare(
            name=name,
            cost=float(test.costs[i]),
            accuracy=float(test.is_right[:, i].mean()),
            answered=float((done.answering == i).mean()),
            asked=float(done.was_asked[:, i].mean()),
        )
        for i, name in enumerate(test.tiers)
    )


def policy_as_json(policy: WholePolicy, tiers: list[str]) -> list[dict[str, Any]]:
    """The rule of every state that can be reached, tiers by name; -inf (never) is null."""
    reached = sorted(_reachable(policy))
    return [
        {
            "asked": [tiers[i] for i in state],
            "accept_at_risk": _finite(rule.accept_at_most),
            "else_ask": [
                {"risk_above": _finite(band.risk_above), "tier": tiers[band.to_tier]}
                for band in rule.bands
            ],
        }
        for state in reached
        for rule in (policy.rules[state],)
    ]


def _reachable(policy: WholePolicy) -> set[State]:
    """States with a rule that a prompt may come to."""
    found: set[State] = set()
    entry = NO_TIER if policy.has_gate else policy.chain[:1]
    frontier = [entry] if policy.rules else []
    while frontier:
        state = frontier.pop()
        found.add(state)
        nexts = {(*state, band.to_tier) for band in policy.rules[state].bands}
        frontier += [s for s in nexts if s in policy.rules and s not in found]
    return found


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
