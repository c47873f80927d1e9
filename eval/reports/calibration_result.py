"""Hold what a calibration came to: figures on the test questions, in values, words and JSON."""

from dataclasses import dataclass
from typing import Any

from eval.judging.accuracy_and_cost import JudgedPolicy, judged_policy, tier_alone
from eval.judging.ways import Way
from eval.recorded.splits import Splits
from hybridserve_llm.calibration.artefact import is_watch_blind, policy_rules
from hybridserve_llm.calibration.certify import Calibration
from hybridserve_llm.calibration.outcomes import State
from hybridserve_llm.calibration.policies import NO_TIER, WholePolicy, replay


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainCost:
    """Hold one chain as judged on the fit questions; `cost_share` is of the last tier alone."""

    tiers: tuple[str, ...]
    has_gate: bool
    mean_cost: float
    cost_share: float

    def as_json(self) -> dict[str, Any]:
        """Return one JSON object."""
        costs = {"mean_cost": self.mean_cost, "cost_share": self.cost_share}
        return {"chain": list(self.tiers), "gate": self.has_gate, **costs}


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationReport:
    """Hold everything that `hs-calibrate` says.

    Attributes:
        tiers: Each alone, on the test questions.
        cascade: What is served, on the test questions.
    """

    calibration: Calibration
    tiers: tuple[Way, ...]
    cascade: JudgedPolicy
    chains: tuple[ChainCost, ...]
    n_fit: int
    n_certify: int
    n_test: int
    n_incomplete: int
    cost_ratio: float
    cost_source: str
    seed: int
    is_watch_blind: bool
    is_of_groups: bool
    decisions: tuple[tuple[Any, str], ...]

    @property
    def certified(self) -> bool:
        """Return whether a policy that pays was certified."""
        return self.calibration.chosen is not None

    @property
    def chain(self) -> tuple[str, ...]:
        """Return the names of the tiers that are kept."""
        return tuple(self.tiers[i].name for i in self.calibration.policy.chain)

    def headline(self) -> str:
        """Return the result in two or three sentences."""
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
            f"accuracy {self.cascade.total.accuracy:.4f}, "
            f"last tier {self.tiers[-1].accuracy:.4f}; "
            f"{self.cost_ratio:.2f}x cheaper."
        )

    def _of_groups(self) -> str:
        return " for a random question of a random group" if self.is_of_groups else ""

    def _is_beyond(self) -> bool:
        """Return whether the loss over all test questions, each counted once, is above epsilon."""
        promise, cascade = self.calibration.promise, self.cascade
        loss = cascade.harm_rate if promise.loss == "harm" else -cascade.difference
        return loss > promise.epsilon

    def remarks(self) -> list[str]:
        """Return what else a reader has to know, one sentence an entry."""
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
        """Return one JSON object; absent is null."""
        promise, chosen, cascade = self.calibration.promise, self.calibration.chosen, self.cascade
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
            "test_harm": cascade.harm_rate,
            "test_net_loss": self.tiers[-1].accuracy - cascade.total.accuracy,
            "test_accuracy": cascade.total.accuracy,
            "test_accuracy_last": self.tiers[-1].accuracy,
            "acceptance": dict(zip(cascade.tiers, cascade.answered, strict=True)),
            "asked": dict(zip(cascade.tiers, cascade.asked, strict=True)),
            "tier_accuracy": {tier.name: tier.accuracy for tier in self.tiers},
            "cost": {tier.name: tier.cost for tier in self.tiers},
            "cost_ratio": self.cost_ratio,
            "cost_source": self.cost_source,
            "chains": [chain.as_json() for chain in self.chains],
            "seed": self.seed,
        }


def calibration_report(
    calibration: Calibration, splits: Splits, *, cost_source: str, n_incomplete: int, seed: int
) -> CalibrationReport:
    """Replay the policy on the test questions and put the figures together."""
    test = splits.test
    done = replay(calibration.policy, calibration.risks(test), test)
    last_cost = float(test.costs[test.last])
    return CalibrationReport(
        calibration=calibration,
        tiers=tuple(tier_alone(test, tier) for tier in range(len(test.tiers))),
        cascade=judged_policy(calibration.policy, done, test, seed=seed),
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


def policy_as_json(policy: WholePolicy, tiers: list[str]) -> list[dict[str, Any]]:
    """Return the rule of every state that can be reached, tiers by name; -inf (never) is null."""
    reached = _reachable(policy)
    rules = zip(sorted(policy.rules), policy_rules(policy, tiers), strict=True)
    return [rule.model_dump(mode="json") for state, rule in rules if state in reached]


def _reachable(policy: WholePolicy) -> set[State]:
    """Return the states with a rule that a prompt may come to."""
    found: set[State] = set()
    entry = NO_TIER if policy.has_gate else policy.chain[:1]
    frontier = [entry] if policy.rules else []
    while frontier:
        state = frontier.pop()
        found.add(state)
        nexts = {(*state, band.to_tier) for band in policy.rules[state].bands}
        frontier += [s for s in nexts if s in policy.rules and s not in found]
    return found
