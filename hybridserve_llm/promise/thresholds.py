"""Show the rules that decide now, for `GET /v1/cascade`: one for each set of tiers asked."""

from typing import Any

from hybridserve_llm.cascade.policy import ScorePolicy
from hybridserve_llm.config.certificate import PolicyPart
from hybridserve_llm.promise.view import CascadeView

Rule = dict[str, Any]


def thresholds_json(view: CascadeView, level: str) -> list[Rule]:
    """Return the rules by the tiers asked so far; none where everything goes to the last tier.

    Thresholds are on the raw score without a certificate, else on the risk.
    """
    if isinstance(view.standing.default, ScorePolicy):
        return _score_rules(view.standing.default, list(view.models))
    if view.certificate is None or view.standing.state == "last_tier_only":
        return []
    certificate = view.certificate
    by_level = {"normal": certificate.policy, "strict": certificate.strict_policy}
    policy = by_level.get(level)
    return [] if policy is None else _risk_rules(policy)


def _score_rules(policy: ScorePolicy, names: list[str]) -> list[Rule]:
    return [
        {
            "asked": [names[i]],
            "score_at_least": rule.accept_at,
            "risk_at_most": None,
            "else_ask": [
                *(
                    {
                        "score_below": band.score_below,
                        "risk_above": None,
                        "tier": names[band.to_tier],
                    }
                    for band in rule.skips
                ),
                {"score_below": None, "risk_above": None, "tier": names[i + 1]},
            ],
        }
        for i, rule in enumerate(policy.rules[:-1])
    ]


def _risk_rules(policy: PolicyPart) -> list[Rule]:
    return [
        {
            "asked": list(rule.asked),
            "score_at_least": None,
            "risk_at_most": rule.accept_at_risk,
            "else_ask": [
                {"score_below": None, "risk_above": band.risk_above, "tier": band.tier}
                for band in rule.else_ask
            ],
        }
        for rule in policy.rules
    ]
