"""Make several replicas of one tier act as one engine: balance, failover, health.

A replica's state, and what moves it:

    unknown ── a request or a probe succeeds ─────────────────> up
    unknown ── its connection or a probe fails ───────────────> down
    up ─────── its connection or two probes running fail ─────> down
    down ───── a probe succeeds, or a request that tried it ──> up

A replica that is down gets requests only while no other is up: one each time its back-off ends.

A replica hangs if requests time out one after the other and it answers none meanwhile. It then
counts as down although its probes succeed, until a request that tries it succeeds.
"""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Protocol

from hybridserve_llm.errors import DeadlineExceeded, EngineFailed, EngineUnavailable, ServingError
from hybridserve_llm.interfaces import Clock, Engine, WorkObserver
from hybridserve_llm.values.answers import Chunk, Completion
from hybridserve_llm.values.engines import HealthState, Work
from hybridserve_llm.values.requests import EngineRequest, GenerateRequest

log = logging.getLogger(__name__)

_FIRST_BACK_OFF_S = 1.0
_LONGEST_BACK_OFF_S = 30.0
_PROBES_TO_DOWN = 2
"""One failed probe of a replica that was up may be a busy server's late answer."""
_TIMEOUTS_TO_HANG = 2
_SHORTEST_HANG_S = 1.0
_LOSSES_PER_REQUEST = 2
"""A request whose work killed this many engines is given up: it may be what kills them."""


class Replica(Engine, Protocol):
    """Represent an engine that can be asked for its health."""

    async def check_health(self) -> bool:
        """Return True where it is fit to serve; in bounded time and without an error of ours."""


@dataclass(slots=True, eq=False)
class _Member:
    """Hold one replica and what is known of it; only this file changes it."""

    engine: Replica
    index: int
    name: str
    state: HealthState = "unknown"
    outstanding: int = 0
    last_picked: int = 0
    failed_probes: int = 0
    back_off_s: float = _FIRST_BACK_OFF_S
    retry_at_s: float = 0.0
    avoid_until_s: float = 0.0
    n_timeouts: int = 0
    answered_at_s: float = -math.inf

    @property
    def hangs(self) -> bool:
        """Return True if its requests time out, even if its health probes succeed."""
        return self.n_timeouts >= _TIMEOUTS_TO_HANG


class ReplicaSet:
    """Act as one `interfaces.Engine` over the replicas of a tier.

    A request goes to the replica with the fewest requests outstanding, round robin among equals. It
    goes to another one when that replica is unavailable or fails and no part of its answer was
    given.
    """

    def __init__(
        self,
        tier: str,
        replicas: Sequence[Replica],
        *,
        clock: Clock,
        observer: WorkObserver | None = None,
    ) -> None:
        """Take the replicas as they are; their maker closes them.

        `observer` learns of every replica's work.

        Raises:
            ValueError: There is no replica.
        """
        if not replicas:
            raise ValueError(f"tier {tier!r} needs at least one replica")
        self.tier = tier
        self._clock = clock
        self._observer = observer
        self._members = tuple(
            _Member(engine, index, f"{tier}/{index}") for index, engine in enumerate(replicas)
        )
        self._n_picks = 0

    @property
    def n_replicas(self) -> int:
        """Return the number of replicas of the tier, in any state."""
        return len(self._members)

    @property
    def n_up(self) -> int:
        """Return the number of replicas whose last probe or request succeeded."""
        return sum(member.state == "up" for member in self._members)

    @property
    def outstanding(self) -> int:
        """Return the number of requests now inside the tier's engines."""
        return sum(member.outstanding for member in self._members)

    @property
    def is_ready(self) -> bool:
        """Return True where at least one replica is known to be up."""
        return self.n_up > 0

    async def complete(self, request: EngineRequest) -> Completion:
        """Return the whole answer of one replica.

        Raises:
            EngineUnavailable: Every replica is down, or refused; raised at once, without waiting.
            EngineFailed: Two replicas, or the only one, answered with an error.
            HybridServeError: Whatever else the replica raises (see `interfaces.Engine`).
        """
        failures: list[EngineUnavailable | EngineFailed] = []
        for member in self._candidates(failures):
            try:
                with self._serving(member, request) as work:
                    completion = await member.engine.complete(request)
                    work.usage = completion.usage
                    return completion
            except (EngineUnavailable, EngineFailed) as exc:
                failures.append(exc)
        raise self._unavailable(failures)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        """Yield the chunks of one replica's answer; another takes over only before its first token.

        Chunks that come before it wait for it.

        Raises:
            EngineUnavailable: As in `complete`; or the connection broke after the first token.
            HybridServeError: Whatever else the replica raises (see `interfaces.Engine`).
        """
        failures: list[EngineUnavailable | EngineFailed] = []
        for member in self._candidates(failures):
            has_begun = False
            try:
                with self._serving(member, request) as work:
                    async with aclosing(member.engine.stream(request)) as chunks:
                        for chunk in await self._until_first_token(chunks, work):
                            has_begun = True
                            yield chunk
                        async for chunk in chunks:
                            work.usage = chunk.usage or work.usage
                            yield chunk
            except (EngineUnavailable, EngineFailed) as exc:
                if has_begun:
                    raise
                failures.append(exc)
            else:
                return
        raise self._unavailable(failures)

    async def _until_first_token(self, chunks: AsyncGenerator[Chunk], work: Work) -> list[Chunk]:
        """Return the chunks up to the first that brings a token; all of an empty answer's."""
        early: list[Chunk] = []
        async for chunk in chunks:
            early.append(chunk)
            work.usage = chunk.usage or work.usage
            if chunk.has_tokens:
                work.first_token_s = self._clock.monotonic_s()
                break
        return early

    async def check_health(self) -> bool:
        """Probe every replica once, all at the same time; return True if one is up."""
        async with asyncio.TaskGroup() as group:
            for member in self._members:
                group.create_task(self._probe(member))
        return self.is_ready

    async def watch_health(self, interval_s: float) -> None:
        """Probe every replica at once and then every `interval_s`, until cancelled.

        Each replica has a loop of its own, so that one that hangs holds up no other.
        """
        async with asyncio.TaskGroup() as group:
            for member in self._members:
                group.create_task(self._watch(member, interval_s))

    async def _watch(self, member: _Member, interval_s: float) -> None:
        while True:
            await self._probe(member)
            await asyncio.sleep(interval_s)

    async def _probe(self, member: _Member) -> None:
        if await member.engine.check_health():
            if not member.hangs:
                self._mark_up(member)
            return
        member.failed_probes += 1
        if member.state != "up" or member.failed_probes >= _PROBES_TO_DOWN:
            self._mark_down(member, f"{member.failed_probes} health probes failed")

    def _candidates(
        self, failures: Sequence[EngineUnavailable | EngineFailed]
    ) -> Iterator[_Member]:
        """Yield the replicas to try, best first, each once; chosen anew after every failure."""
        tried: set[int] = set()
        while sum(map(_may_be_the_requests, failures)) < _LOSSES_PER_REQUEST:
            now_s = self._clock.monotonic_s()
            open_members = [
                member
                for member in self._members
                if member.index not in tried
                and (member.state != "down" or now_s >= member.retry_at_s)
            ]
            if not open_members:
                return
            member = min(
                open_members,
                key=lambda m: (
                    m.state == "down",
                    now_s < m.avoid_until_s,
                    m.outstanding,
                    m.last_picked,
                ),
            )
            if member.state == "down":
                # This request alone tries it; the next one does after a longer back-off.
                member.retry_at_s = now_s + member.back_off_s
                member.back_off_s = min(2 * member.back_off_s, _LONGEST_BACK_OFF_S)
            self._n_picks += 1
            member.last_picked = self._n_picks
            tried.add(member.index)
            yield member

    @contextmanager
    def _serving(self, member: _Member, request: EngineRequest) -> Iterator[Work]:
        """Count the request in `member`, and learn from its end."""
        work = self._begun(member, request.request)
        member.outstanding += 1
        try:
            yield work
            member.n_timeouts = 0
            member.answered_at_s = self._clock.monotonic_s()
            self._mark_up(member)
            member.avoid_until_s = 0.0
        except DeadlineExceeded:
            self._timed_out(member, work)
            raise
        except EngineFailed as exc:
            # It fails fast and its probes succeed, so it would have the fewest outstanding.
            self._avoid(member, _LONGEST_BACK_OFF_S, exc)
            raise
        except EngineUnavailable as exc:
            if exc.is_alive:
                self._avoid(member, min(exc.retry_after_s or 0.0, _LONGEST_BACK_OFF_S), exc)
            else:
                self._mark_down(member, exc.with_detail)
            raise
        finally:
            member.outstanding -= 1
            work.end_s = self._clock.monotonic_s()

    def _begun(self, member: _Member, request: GenerateRequest) -> Work:
        work = Work(
            request.request_id,
            self.tier,
            member.name,
            member.last_picked,
            request.is_shadow,
            request.assess,
            self._clock.monotonic_s(),
        )
        if self._observer is not None:
            self._observer.observe(work)
        return work

    def _timed_out(self, member: _Member, work: Work) -> None:
        """Count a request that ran out of time, unless the replica answered others meanwhile."""
        now_s = self._clock.monotonic_s()
        is_slow = member.answered_at_s >= work.start_s or work.first_token_s is not None
        if is_slow or now_s - work.start_s < _SHORTEST_HANG_S:
            return
        member.n_timeouts += 1
        if member.hangs:
            self._mark_down(member, f"{member.n_timeouts} requests timed out, and it answered none")

    def _avoid(self, member: _Member, for_s: float, error: ServingError) -> None:
        """Ask the other replicas first for a while, and log why unless that is known."""
        now_s = self._clock.monotonic_s()
        if now_s >= member.avoid_until_s:
            log.warning(
                "tier %s: replica %d failed: %s", self.tier, member.index, error.with_detail
            )
        member.avoid_until_s = now_s + for_s

    def _mark_up(self, member: _Member) -> None:
        if member.state != "up":
            log.info("tier %s: replica %d is up", self.tier, member.index)
        member.state = "up"
        member.failed_probes = 0
        member.back_off_s = _FIRST_BACK_OFF_S

    def _mark_down(self, member: _Member, reason: str) -> None:
        if member.state == "down":  # one of many requests that a crash ended, or one more probe
            return
        log.warning("tier %s: replica %d is down: %s", self.tier, member.index, reason)
        member.state = "down"
        member.retry_at_s = self._clock.monotonic_s() + member.back_off_s

    def _unavailable(
        self, failures: Sequence[EngineUnavailable | EngineFailed]
    ) -> EngineUnavailable | EngineFailed:
        if not failures:
            return EngineUnavailable(
                f"tier {self.tier!r} is down: none of its {self.n_replicas} replicas is up"
            )
        if isinstance(failures[-1], EngineFailed):
            return failures[-1]
        last = failures[-1]
        error = EngineUnavailable(
            f"tier {self.tier!r} is unavailable: {last}",
            kind=last.kind,
            retry_after_s=last.retry_after_s,
            detail=last.detail,
        )
        error.__cause__ = last
        return error


def _may_be_the_requests(failure: EngineUnavailable | EngineFailed) -> bool:
    """Return True where the request itself may have caused the failure."""
    return isinstance(failure, EngineFailed) or failure.kind == "lost"
