"""Turn a calibration into the certificate file by which a cascade serves."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from scipy import stats

from hybridserve_llm.calibration.certify import Calibration
from hybridserve_llm.calibration.fitted import states_of
from hybridserve_llm.calibration.logistic import Logistic
from hybridserve_llm.calibration.outcomes import Ints, Outcomes
from hybridserve_llm.calibration.policies import Replay, WholePolicy, replay
from hybridserve_llm.calibration.walk import WalkStep
from hybridserve_llm.confidence.risk_models import state_feature_names
from hybridserve_llm.config.certificate import (
    BandPart,
    Certificate,
    CostPart,
    FingerprintPart,
    LinearPart,
    PolicyPart,
    RulePart,
    StatePart,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Describe where the data of a calibration came from, and so what its certificate holds for.

    Attributes:
        created: Time in ISO 8601.
        labels: `reference` where right means right; `agreement` where it means to agree with the
            last tier.
        data_sha256: Hash of the data, for people to compare.
        endpoints: Endpoints that the questions were asked through.
        sampling: Sampling settings that they were asked with.
        demands: What they demanded of the form of their answers, each combination once.
        fingerprint: `{"hash", "parts"}` of the cascade that answered; None where it is not known.
        cost_source: The meaning of a cost, in words.
        estimand: The loss is a mean over random questions (`question`), or over random questions of
            random groups (`question_of_group`).
    """

    created: str
    preset: Literal["accuracy", "energy"]
    labels: Literal["reference", "agreement"]
    data_sha256: str
    endpoints: tuple[str, ...]
    sampling: Mapping[str, Any]
    fingerprint: Mapping[str, Any] | None
    cost_source: str
    estimand: Literal["question", "question_of_group"] = "question"
    demands: tuple[tuple[str, ...], ...] = ((),)


def certificate_of(
    calibration: Calibration, certify: Outcomes, *, n_fit: int, mean_cost: float, origin: Origin
) -> Certificate:
    """Return the certificate that states what `calibration` found.

    `mean_cost` is the mean cost of the cascade on questions that were not used to choose it.
    """
    chosen, tiers = calibration.chosen, certify.tiers
    strict = None if chosen is None else stricter(calibration.certified, chosen)
    promise = calibration.promise
    return Certificate.model_validate(
        {
            "created": origin.created,
            "schema": "hybridserve-certificate/1",
            "certified": chosen is not None,
            "preset": origin.preset,
            "labels": origin.labels,
            "loss": promise.loss,
            "epsilon": promise.epsilon,
            "delta": promise.delta,
            "tiers": tiers,
            "chain": [tiers[i] for i in calibration.policy.chain],
            "n_fit": n_fit,
            "n_certify": certify.n_questions,
            "estimand": origin.estimand,
            "data_sha256": origin.data_sha256,
            "endpoints": origin.endpoints,
            "sampling": dict(origin.sampling),
            "demands": origin.demands,
            "fingerprint": origin.fingerprint and FingerprintPart(**origin.fingerprint),
            "cost": CostPart(
                source=origin.cost_source,
                tiers=dict(zip(tiers, map(float, certify.costs), strict=True)),
                cascade=mean_cost,
                last=float(certify.costs[certify.last]),
            ),
            "models": _models(calibration, certify),
            "gate": _gate(calibration, certify),
            "policy": chosen and _policy(chosen, calibration, certify),
            "strict_policy": strict and _policy(strict, calibration, certify),
        }
    )


def stricter(certified: Sequence[WalkStep], chosen: WalkStep) -> WalkStep | None:
    """Return the policy that an alarm falls back on.

    It is the cheapest certified step that lost at most half as many questions as `chosen`. None
    where the chosen step lost nothing, or where every such step accepts nothing.
    """
    candidates = [
        step
        for step in certified
        if step.n_lost < chosen.n_lost and 2 * step.n_lost <= chosen.n_lost and step.n_accepted
    ]
    return min(candidates, key=lambda step: step.mean_cost, default=None)


def is_watch_blind(calibration: Calibration, certify: Outcomes) -> bool:
    """Return True where the bound on disagreement allows every accepted answer to differ.

    Shadowing then cannot show a loss of the chosen policy. False where nothing was chosen.
    """
    if calibration.chosen is None:
        return False
    part = _policy(calibration.chosen, calibration, certify)
    return part.disagreement >= min(1.0, sum(part.acceptance.values())) > 0


def disagreement_bound(n_disagreed: int, n: int, *, delta: float) -> float:
    """Return the Clopper-Pearson upper bound on a share of which `n_disagreed` of n were seen.

    The bound is wrong with probability `delta` at most.
    """
    if n_disagreed >= n:
        return 1.0
    return float(stats.beta.ppf(1 - delta, n_disagreed + 1, n - n_disagreed))


def _policy(step: WalkStep, calibration: Calibration, certify: Outcomes) -> PolicyPart:
    """Return the policy of `step` with the figures that the watch needs.

    The step was chosen by looking at the certify split, and so was the number of certified
    policies. The bound must therefore hold for the whole path at once: a second delta is divided
    among all its policies, whose number was fixed before.
    """
    done = replay(step.policy, calibration.fitted.risks(step.policy, certify), certify)
    level = calibration.promise.delta / len(calibration.path)
    return PolicyPart(
        rules=policy_rules(step.policy, certify.tiers),
        share=step.policy.share,
        n=step.n,
        n_lost=step.n_lost,
        n_rescued=step.n_rescued,
        p_value=step.p_value,
        acceptance={
            certify.tiers[i]: float((done.answering == i).mean()) for i in step.policy.chain[:-1]
        },
        disagreement=disagreement_bound(_n_disagreed(done, certify), step.n, delta=level),
        mean_cost=step.mean_cost,
    )


def _n_disagreed(done: Replay, outcomes: Outcomes) -> int:
    """Count the questions answered below the last tier with an answer other than its own."""
    rows = range(outcomes.n_questions)
    given = outcomes.answers[rows, done.answering]
    is_below = done.answering != outcomes.last
    return int((is_below & (given != outcomes.answers[:, outcomes.last])).sum())


def policy_rules(policy: WholePolicy, tiers: Sequence[str]) -> tuple[RulePart, ...]:
    """Return the rule of every state, in the order of states; -inf (never) is None."""
    return tuple(
        RulePart(
            asked=tuple(tiers[i] for i in state),
            accept_at_risk=_finite(rule.accept_at_most),
            else_ask=tuple(
                BandPart(risk_above=_finite(band.risk_above), tier=tiers[band.to_tier])
                for band in rule.bands
            ),
        )
        for state, rule in sorted(policy.rules.items())
    )


def _models(calibration: Calibration, outcomes: Outcomes) -> list[StatePart]:
    parts = []
    for state in states_of(calibration.policy.chain):
        model = calibration.fitted.states[state]
        names = state_feature_names(outcomes.tiers, state, outcomes.answer_feature_names)
        parts.append(
            StatePart(
                asked=tuple(outcomes.tiers[i] for i in state),
                wrong=_linear(model.wrong, names, model.columns),
                last_right=_linear(model.last_right, names, model.columns),
            )
        )
    return parts


def _gate(calibration: Calibration, outcomes: Outcomes) -> LinearPart | None:
    policy = calibration.policy
    if not policy.has_gate:
        return None
    names = outcomes.prompt_feature_names
    every = range(len(names))
    return _linear(calibration.fitted.gates[policy.chain[0]].wrong, names, every)


def _linear(model: Logistic, names: Sequence[str], columns: Sequence[int] | Ints) -> LinearPart:
    """Return the model without the features whose weight is 0."""
    slopes = (model.weights / model.scales).tolist()
    read = [
        (names[column], slope, mean)
        for column, slope, mean in zip(columns, slopes, model.means.tolist(), strict=True)
        if slope != 0
    ]
    return LinearPart(
        intercept=model.intercept,
        features=tuple(name for name, _, _ in read),
        slopes=tuple(slope for _, slope, _ in read),
        means=tuple(mean for _, _, mean in read),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
