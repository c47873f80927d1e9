"""Read what the engines of a running cascade have used so far, from its `/metrics` over HTTP."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
import openai
from openai import AsyncOpenAI

from eval.recorded.measured_run import EngineUse
from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.load.metrics_text import Samples

SETTLE_CPU_S, SETTLE_ENERGY_S = 2.5, 3.0
"""Until counters hold what ended: CPU time is read and joules are settled once a second."""
MAX_REST_S = 120.0
_POLL_S = 0.2
_IDLE = "idle"
_LEFT_OUT = frozenset({"others"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Hold one reading; `at_s` is monotonic, as the loop has it."""

    at_s: float
    samples: Samples

    def total(self, name: str, **labels: str) -> float | None:
        """Return the sum of a metric's samples that have these labels; None without any."""
        return self.samples.total(name, **labels)


class CascadeCounters:
    """Read the counters of the cascade behind a client."""

    def __init__(
        self, client: AsyncOpenAI, *, is_patient: bool = True, max_rest_s: float = MAX_REST_S
    ) -> None:
        """Take the client; with `is_patient`, readings wait until meters have caught up.

        A fake needs no patience: its counters do not lag. `max_rest_s` is how long engines may go
        on working when nobody asks any more.
        """
        root = str(client.base_url).rstrip("/").removesuffix("/v1")
        self._client, self._url = client, f"{root}/metrics"
        self._is_patient, self._max_rest_s = is_patient, max_rest_s

    async def read(self) -> Counters:
        """Return the counters now.

        Raises:
            CannotBeDone: The server does not answer, or not with metrics.
        """
        try:
            response = await self._client.get(self._url, cast_to=httpx.Response)
            samples = Samples.of(response.text)
        except (openai.APIError, ValueError) as exc:
            raise CannotBeDone(f"{self._url} gives no metrics: {exc}") from exc
        return Counters(at_s=asyncio.get_running_loop().time(), samples=samples)

    async def at_rest(self) -> Counters:
        """Return the counters once no engine has a request and meters have caught up.

        Requests of shadows count, too.

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
    """Return what each tier's engines used between two readings.

    Raises:
        CannotBeDone: A counter went back: the server was started anew between the two.
    """
    component = (
        "gpu"
        if after.samples.values_of("hybridserve_energy_joules_total", "component") & {"gpu"}
        else "cpu"
    )
    return {tier: _used(before, after, tier, component) for tier in tiers}


def grown(before: Counters, after: Counters, name: str, **labels: str) -> float | None:
    """Return by how much the metric grew; None where the server does not have it.

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
    bookings = after.samples.values_of(name, "booking", **own) - _LEFT_OUT
    joules = {kind: grown(before, after, name, booking=kind, **own) or 0.0 for kind in bookings}
    unknown_s = grown(before, after, "hybridserve_energy_unknown_seconds_total", **own)
    is_metered = bool(joules) and not unknown_s
    sources = ", ".join(sorted(after.samples.values_of(name, "source", **own)))
    active = math.fsum(j for kind, j in joules.items() if kind != _IDLE)
    return EngineUse(
        cpu_s=grown(before, after, "hybridserve_engine_cpu_seconds_total", tier=tier),
        active_j=active if is_metered else None,
        idle_j=joules.get(_IDLE, 0.0) if is_metered else None,
        energy_source=sources if is_metered else None,
    )
