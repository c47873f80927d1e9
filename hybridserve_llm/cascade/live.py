"""Stream the answer of the final tier: its tokens leave as they come, its ledger when it ends.

A token that has left cannot be taken back. So only the tier whose answer is always taken is
streamed in this way.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from hybridserve_llm.cascade.climb import Climb, Tier
from hybridserve_llm.cascade.policy import LAST_RESORT
from hybridserve_llm.errors import EngineFailed, HybridServeError
from hybridserve_llm.values.answers import Chunk, Usage
from hybridserve_llm.values.ends import unfit_end
from hybridserve_llm.values.ledger import Ledger
from hybridserve_llm.values.requests import EngineRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveAnswer:
    """Hold the answer of a tier that has begun to stream; read it once, through `chunks`."""

    climb: Climb
    tier: str
    model: str
    first_chunk: Chunk
    rest: AsyncGenerator[Chunk]

    @property
    def ledger(self) -> Ledger | None:
        """Return the request's ledger; None until the stream has ended."""
        return self.climb.ledger

    async def chunks(self) -> AsyncGenerator[Chunk]:
        """Yield the engine's chunks in order, then close the ledger.

        The chunk with the usage is among them. Closing the generator aborts the engine's work.

        Raises:
            EngineFailed, EngineUnavailable, DeadlineExceeded: The stream broke, or its end is not
                known to be that of a whole answer. What was sent stays sent, and the attempt is
                recorded as failed.
        """
        usage = Usage()
        try:
            chunk: Chunk | None = self.first_chunk
            while chunk is not None:
                usage = chunk.usage or usage
                self._refuse_unfit(chunk)
                yield chunk
                chunk = await anext(self.rest, None)
        except HybridServeError as exc:
            self.climb.failed(exc, usage)
            exc.ledger = self.climb.close(ended_by=exc)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self.climb.aborted(usage)
            self.climb.close()
            raise
        else:
            self.climb.answered(LAST_RESORT, usage)
            self.climb.close()
        finally:
            await self.rest.aclose()

    def _refuse_unfit(self, chunk: Chunk) -> None:
        """Raise EngineFailed where the chunk ends a choice that is not known to be whole."""
        for finish_reason in chunk.finish_reasons.values():
            fault = None if finish_reason is None else unfit_end(finish_reason)
            if fault is not None:
                raise EngineFailed(f"tier {self.tier!r}: {fault}")

    async def abandon(self) -> None:
        """End the engine's work and close the ledger, if nobody read the answer to its end."""
        if self.climb.ledger is None:
            await self.rest.aclose()
            self.climb.aborted()
            self.climb.close()


async def go_live(climb: Climb, tier: Tier, attempt_deadline_s: float | None) -> LiveAnswer:
    """Open the stream of the final tier, and return once its first chunk has come.

    After `attempt_deadline_s` (monotonic) nothing more is waited for.

    Raises:
        EngineFailed: The stream ended without a chunk.
        HybridServeError: Every other error that the engine raises before its first chunk.
    """
    rest = tier.engine.stream(
        EngineRequest(
            request=climb.request,
            top_logprobs=climb.request.client_top_logprobs,
            attempt_deadline_s=attempt_deadline_s,
        )
    )
    first = await anext(rest, None)
    if first is None:
        raise EngineFailed(f"tier {tier.name!r} sent an empty stream")
    climb.first_token_came()
    return LiveAnswer(climb=climb, tier=tier.name, model=tier.model, first_chunk=first, rest=rest)
