"""What the engines of a running cascade have used so far, as its `/metrics` tells over HTTP."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx
import openai
from openai import AsyncOpenAI
from prometheus_client.parser import text_string_to_metric_families

from eval.recorded.measured_run import EngineUse
from hybridserve_llm.errors import CannotBeDone

SETTLE_CPU_S, SETTLE_ENERGY_S = 2.5, 3.0
"""Until counters hold what ended: CPU time is read and joules are settled once a second."""
MAX_REST_S = 120.0
_POLL_S = 0.2
_IDLE = "idle"
_LEFT_OUT = frozenset({"others"})

Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
"""Samples by name and sorted labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """One reading; `at_s` is monotonic, as the loop has it."""

    at_s: float
    samples: Samples

    def total(self, name: str, **labels: str) -> float | None:
        """The sum of a metric's samples that have these labels; None where there is none."""
        wanted = set(labels.items())
        found = [v for (n, has), v in self.samples.items() if n == name and wanted <= set(has)]
        return math.fsum(found) if found else None

    def values_of(self, name: str, label: str, **labels: str) -> set[str]:
        """The values that a label has among a metric's samples with these labels."""
        wanted = set(labels.items())
        return {
            value
            for (n, has) in self.samples
            if n == name and wanted <= set(has)
            for key, value in has
            if key == label
        }


class CascadeCounters:
    """Reads the counters of the cascade behind a client."""

    def __init__(
        self, client: AsyncOpenAI, *, is_patient: bool = True, max_rest_s: float = MAX_REST_S
    ) -> None:
        """`is_patient` waits until meters have caught up; counters of a fake do not lag.

        `max_rest_s` is how long engines may go on working when nobody asks any more.
        """
        root = str(client.base_url).rstrip("/").removesuffix("/v1")
        self._client, self._url = client, f"{root}/metrics"
        self._is_patient, self._max_rest_s = is_patient, max_rest_s

    async def read(self) -> Counters:
        """The counters now.

        Raises:
            CannotBeDone: The server does not answer, or not with metrics.
        """
        try:
            response = await self._client.get(self._url, cast_to=httpx.Response)
            families = list(text_string_to_metric_families(response.text))
        except (openai.APIError, ValueError) as exc:
            raise CannotBeDone(f"{self._url} gives no metrics: {exc}") from exc
        samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): float(sample.value)
            for family in families
            for sample in family.samples
        }
        return Counters(at_s=asyncio.get_running_loop().time(), samples=samples)

    async def at_rest(self) -> Counters:
        """The counters once no engine has a request, shadows included, and meters have caught up.

        Raises:
            CannotBeDone: As in `read`, or engines still work after `max_rest_s`.
        """
        found = await self.read()
        started_s = found.at_s
        while found.total("hybridserve_outstanding_requests"):
            if found.at_s - started_s > self._max_rest_s:
                raise CannotBeDone(
                    f"{self._url}: engines still have requests {self._max_rest_s:g} s after the "
                    "last answer; somebody else uses the cascade"
                )
            await asyncio.sleep(_POLL_S if self._is_patient else 0)
            found = await self.read()
        if not self._is_patient:
            return found
        has_joules = found.total("hybridserve_energy_joules_total") is not None
        await asyncio.sleep(SETTLE_ENERGY_S if has_joules else SETTLE_CPU_S)
        return await self.read()


def used_between(before: Counters, after: Counters, tiers: Sequence[str]) -> dict[str, EngineUse]:
    """What each tier's engines used between two readings.

    Raises:
        CannotBeDone: A counter went back: the server was started anew between the two.
    """
    component = (
        "gpu"
        if after.values_of("hybridserve_energy_joules_total", "component") & {"gpu"}
        else "cpu"
    )
    return {tier: _used(before, after, tier, component) for tier in tiers}


def grown(before: Counters, after: Counters, name: str, **labels: str) -> float | None:
    """By how much the metric grew; None where it is not there.

    Raises:
        CannotBeDone: It went back.
    """
    now = after.total(name, **labels)
    if now is None:
        return None
    growth = now - (before.total(name, **labels) or 0.0)
    if growth < -1e-6:
        raise CannotBeDone(f"{name} went back: the server was started anew while it was measured")
    return max(growth, 0.0)


def _used(before: Counters, after: Counters, tier: str, component: str) -> EngineUse:
    name, own = "hybridserve_energy_joules_total", {"tier": tier, "component": component}
    bookings = after.values_of(name, "booking", **own) - _LEFT_OUT
    joules = {kind: grown(before, after, name, booking=kind, **own) or 0.0 for kind in bookings}
    unknown_s = grown(before, after, "hybridserve_energy_unknown_seconds_total", **own)
    is_metered = bool(joules) and not unknown_s
    sources = ", ".join(sorted(after.values_of(name, "source", **own)))
    active = math.fsum(j for kind, j in joules.items() if kind != _IDLE)
    return EngineUse(
        cpu_s=grown(before, after, "hybridserve_engine_cpu_seconds_total", tier=tier),
        active_j=active if is_metered else None,
        idle_j=joules.get(_IDLE, 0.0) if is_metered else None,
        energy_source=sources if is_metered else None,
    )
