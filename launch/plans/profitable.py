"""Refuses to launch a cascade that costs more than it saves, by what its certificate measured."""

from hybridserve_llm.config.certificate import Certificate
from hybridserve_llm.errors import CannotBeDone


def check_it_pays(certificate: Certificate) -> None:
    """Passes when the certified cascade is cheaper than its last tier alone, with every tier in it.

    Raises:
        CannotBeDone: It is not, or a tier does not pay; the message has the figures.
    """
    last, cost = certificate.tiers[-1], certificate.cost
    figures = (
        f"cost of a request ({cost.source}): "
        + ", ".join(f"{name} {cost.tiers[name]:.4g}" for name in certificate.tiers)
        + f"; cascade {cost.cascade:.4g} against {last} alone {cost.last:.4g}"
    )
    if not certificate.certified:
        raise CannotBeDone(
            f"this cascade does not pay: nothing that is cheaper than {last} alone is certified at "
            f"epsilon {certificate.epsilon:g}; {figures}. Serve {last} without a cascade, or add "
            "--allow-unprofitable"
        )
    if certificate.cost_ratio <= 1:
        raise CannotBeDone(
            f"this cascade does not pay; {figures}. Serve {last} without a cascade, or add "
            "--allow-unprofitable"
        )
    if certificate.dropped:
        names = ", ".join(certificate.dropped)
        raise CannotBeDone(
            f"tier {names} does not pay and would be asked nothing: the best chain is "
            f"{' > '.join(certificate.chain)}; {figures}. Take {names} out of the configuration "
            "and calibrate again, or add --allow-unprofitable"
        )
