"""The body of `GET /v1/cascade`: what runs, what it may promise, and how that holds."""

from dataclasses import asdict
from typing import Any

from hybridserve_llm.config.certificate import Certificate
from hybridserve_llm.promise.thresholds import thresholds_json
from hybridserve_llm.server.energy_metrics import energy_json
from hybridserve_llm.server.parts import Parts


def cascade_json(parts: Parts) -> dict[str, Any]:
    """As JSON values; absent is null."""
    view = parts.cascade
    certificate = view.certificate
    kept = view.models if certificate is None else certificate.chain
    answered = parts.answered()
    n_answered = sum(answered.values())
    return {
        "served_model_name": parts.config.served_model_name,
        "state": view.standing.state,
        "reasons": list(view.standing.reasons),
        "tiers": [
            {
                "name": name,
                "model": model,
                "active_parameters": view.active_parameters[name],
                "ready": parts.tiers[name].is_ready,
                "in_chain": name in kept,
                "answered": answered.get(name, 0),
                "share": answered.get(name, 0) / n_answered if n_answered else None,
            }
            for name, model in view.models.items()
        ],
        "thresholds": thresholds_json(view, "normal" if parts.watch is None else parts.watch.level),
        "gear": view.gear,
        "certificate": None if certificate is None else _summary(certificate),
        "fingerprint": view.fingerprint.as_json(),
        "energy": None if parts.energy is None else energy_json(parts.energy()),
        "watch": None if parts.watch is None else asdict(parts.watch.snapshot()),
    }


def _summary(certificate: Certificate) -> dict[str, Any]:
    """The certificate without its models and rules."""
    left_out = {"models", "gate", "policy", "strict_policy", "fingerprint", "sampling"}
    summary = certificate.model_dump(mode="json", by_alias=True, exclude=left_out)
    policy = certificate.policy
    return {
        **summary,
        "sampling": certificate.sampling,
        "fingerprint": certificate.fingerprint.hash if certificate.fingerprint else None,
        "cost_ratio": certificate.cost_ratio,
        "acceptance": policy.acceptance if policy else None,
        "has_strict_policy": certificate.strict_policy is not None,
    }
