"""A streamed answer of the final tier: its tokens leave as they come, its ledger when it ends.

A token that has left cannot be taken back, so this is used for the tier whose answer is taken
whatever it says, and for no other.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from hybridserve_llm.errors import HybridServeError
from hybridserve_llm.values.answers import Chunk, Usage
from hybridserve_llm.values.ledger import Ledger, Verdict


class Finish(Protocol):
    """Closes the attempt's record and gives the request's whole ledger."""

    def __call__(
        self,
        verdict: Verdict,
        reason: str,
        usage: Usage,
        ttft_s: float | None,
        ended_by: HybridServeError | None = None,
    ) -> Ledger:
        """The ledger, `ttft_s` and `usage` as the stream told them; `ended_by` broke it."""


@dataclass(slots=True, kw_only=True)
class LiveAnswer:
    """Chunks of the answering tier, to be read once through `chunks`; then `ledger` is there."""

    tier: str
    model: str
    first_chunk: Chunk
    ttft_s: float
    rest: AsyncGenerator[Chunk]
    finish: Finish
    ledger: Ledger | None = None

    async def chunks(self) -> AsyncGenerator[Chunk]:
        """The engine's chunks in order, usage chunk included; closing it aborts the engine's work.

        Raises:
            EngineFailed, EngineUnavailable, DeadlineExceeded: The stream broke; what was sent
                stays sent, and the attempt is recorded as failed.
        """
        usage = Usage()
        try:
            chunk: Chunk | None = self.first_chunk
            while chunk is not None:
                usage = chunk.usage or usage
                yield chunk
                chunk = await anext(self.rest, None)
        except HybridServeError as exc:
            self.finish(Verdict.FAIL, str(exc), usage, self.ttft_s, exc)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self.finish(Verdict.ABORT, "given up", usage, self.ttft_s)
            raise
        else:
            reason = "last tier that may be asked"
            self.ledger = self.finish(Verdict.ACCEPT, reason, usage, self.ttft_s)
        finally:
            await self.rest.aclose()

    async def abandon(self) -> None:
        """Ends the engine's work when the answer will not be read at all."""
        await self.rest.aclose()
        self.finish(Verdict.ABORT, "given up", Usage(), self.ttft_s)
