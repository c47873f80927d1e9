"""Ask a running cascade the same questions in every way, and read what its engines used.

    block 0   small   medium   giant    alone   cascade      each way: ask, wait for rest, read
    block 1   medium  giant    alone    cascade small        the next way goes first
    …

Ways take turns block by block, since machines change their speed while hours pass, and each goes
first equally often, since an engine that saw a prompt before may have parts of it cached.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial

import openai
from openai import AsyncOpenAI

from eval.asking.cascade_counters import CascadeCounters, Counters, grown, used_between
from eval.asking.collect import PATHS, tier_attempt, words_of_fault
from eval.asking.in_turn import Found, in_turn
from eval.asking.ledger import failed_answer, served_answer
from eval.asking.streamed_answer import streamed
from eval.questions.prompts import LabelledPrompt, PromptSet
from eval.recorded.attempts import RecordedAttempt, RecordedTier
from eval.recorded.measured_run import (
    ALONE,
    CASCADE,
    IdleWindow,
    MeasuredBlock,
    RunFile,
    ServedAnswer,
)
from hybridserve_llm.errors import CannotBeDone

N_WARM_UP = 32
"""Questions that each tier is asked first, unmeasured: an engine's first ones cost more."""


class Measurement:
    """Measure one run against one cascade; it goes on where its file ends."""

    def __init__(
        self,
        client: AsyncOpenAI,
        prompts: PromptSet,
        file: RunFile,
        *,
        counters: CascadeCounters,
        on_block: Callable[[str, int, int], None],
    ) -> None:
        """Call `on_block` after every block, with its way, how many are done, and of how many."""
        self._client = client
        self._file = file
        self._counters = counters
        self._on_block = on_block
        header = file.run.header
        self._tiers = {tier.name: tier for tier in header.asked.tiers}
        self._last = header.asked.tiers[-1].name
        self._cascade_model = header.served_model_name
        self._sampling = header.asked.sampling
        self._concurrency = header.concurrency
        self._is_streamed = header.is_streamed
        size = header.block_questions
        ordered = prompts.prompts
        self._parts = [ordered[i : i + size] for i in range(0, len(ordered), size)]

    @property
    def ways(self) -> tuple[str, ...]:
        """Return the ways in the order of the first block."""
        return (*self._tiers, ALONE, CASCADE)

    async def run(self, *, idle_s: float) -> None:
        """Measure every block that is not in the file, between two idle windows of `idle_s`.

        Raises:
            CannotBeDone: The server goes away, refuses or is started anew; somebody else uses it;
                or every request of a block failed. Whole blocks stay in the file.
        """
        todo = list(self._todo())
        if not todo:
            return
        for tier in self._tiers.values():
            await self._in_turn(self._parts[0][:N_WARM_UP], partial(self._attempt, tier))
        await self._idle(idle_s)
        n_all = len(self._parts) * len(self.ways)
        for way, index in todo:
            self._file.add(await self._block(way, index))
            self._on_block(way, len(self._file.run.blocks), n_all)
        await self._idle(idle_s)

    def _todo(self) -> Iterator[tuple[str, int]]:
        for index in range(len(self._parts)):
            turn = index % len(self.ways)
            for way in (*self.ways[turn:], *self.ways[:turn]):
                if not self._file.run.has_block(way, index):
                    yield way, index

    async def _idle(self, idle_s: float) -> None:
        started, before = _now(), await self._counters.at_rest()
        await asyncio.sleep(idle_s)
        after = await self._counters.at_rest()
        self._file.add(
            IdleWindow(
                started=started,
                duration_s=after.at_s - before.at_s,
                used=used_between(before, after, tuple(self._tiers)),
            )
        )

    async def _block(self, way: str, index: int) -> MeasuredBlock:
        started, before = _now(), await self._counters.at_rest()
        answers: list[ServedAnswer] = []
        recorded: list[RecordedAttempt] = []
        if way in self._tiers:
            tier = self._tiers[way]
            recorded = await self._in_turn(self._parts[index], partial(self._attempt, tier))
        else:
            model = self._cascade_model if way == CASCADE else self._last
            answers = await self._in_turn(self._parts[index], partial(self._served, model))
        after = await self._counters.at_rest()
        _check_some_answered(way, answers, recorded)
        return MeasuredBlock(
            way=way,
            index=index,
            started=started,
            duration_s=after.at_s - before.at_s,
            used=used_between(before, after, tuple(self._tiers)),
            n_shadowed=_grown(before, after, "hybridserve_watch_shadowed_total"),
            shadow_tokens=_grown(before, after, "hybridserve_watch_shadow_tokens_total"),
            answers=tuple(answers),
            recorded=tuple(recorded),
        )

    async def _in_turn(
        self, prompts: Sequence[LabelledPrompt], ask: Callable[[LabelledPrompt], Awaitable[Found]]
    ) -> list[Found]:
        return await in_turn(prompts, ask, concurrency=self._concurrency)

    async def _attempt(self, tier: RecordedTier, prompt: LabelledPrompt) -> RecordedAttempt:
        return await tier_attempt(self._client, prompt, tier, self._sampling)

    async def _served(self, model: str, prompt: LabelledPrompt) -> ServedAnswer:
        """Return the answer to a plain request, which asks for no log-probabilities."""
        body = {**prompt.body(self._sampling), "model": model}
        path, loop = PATHS[prompt.endpoint], asyncio.get_running_loop()
        started_s = loop.time()
        response: object
        ttft_s: float | None = None
        try:
            if self._is_streamed:
                response, ttft_s = await streamed(self._client, path, body)
            else:
                response = await self._client.post(path, cast_to=object, body=body)
        except openai.APIError as exc:
            fault = words_of_fault(self._client, model, exc)
            return failed_answer(prompt, fault, latency_s=loop.time() - started_s)
        latency_s = loop.time() - started_s
        # A grader that runs code waits for it, and other answers come meanwhile.
        return await asyncio.to_thread(
            served_answer, response, prompt, latency_s=latency_s, ttft_s=ttft_s
        )


def _check_some_answered(
    way: str, answers: Sequence[ServedAnswer], recorded: Sequence[RecordedAttempt]
) -> None:
    faults = [a.fault for a in answers] + [a.reason if a.has_failed else None for a in recorded]
    if faults and all(fault is not None for fault in faults):
        raise CannotBeDone(f"every request of a block failed, asked of {way}: {faults[0]}")


def _grown(before: Counters, after: Counters, name: str) -> int:
    return round(grown(before, after, name) or 0.0)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
