"""Asks a running cascade the same questions in every way, and reads what its engines used for each.

    block 0   small   medium   giant    alone   cascade      each way: ask, wait for rest, read
    block 1   medium  giant    alone    cascade small        the next way goes first
    …

Ways take turns block by block, since machines change their speed while hours pass, and each goes
first equally often, since an engine that saw a prompt before may have parts of it cached.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import openai
from openai import AsyncOpenAI
from pydantic import TypeAdapter, ValidationError

from eval.asking.collect import PATHS, tier_attempt, words_of_fault
from eval.asking.engine_counters import CascadeCounters, Counters, grown, used_between
from eval.asking.first_failure import first_failure
from eval.asking.ledger import answer_text
from eval.asking.streamed_answer import streamed
from eval.questions.prompts import LabelledPrompt, PromptSet
from eval.recorded.attempts import RecordedAttempt, RecordedTier
from eval.recorded.measured_run import (
    ALONE,
    CASCADE,
    Block,
    IdleWindow,
    ServedAnswer,
    ServedAttempt,
)
from eval.recorded.run_file import RunFile
from hybridserve_llm.errors import CannotBeDone

N_WARM_UP = 32
"""Questions that each tier is asked first, unmeasured: an engine's first ones cost more."""

Told = TypeVar("Told")
_ATTEMPTS = TypeAdapter(list[dict[str, Any]])
_FIELDS = tuple(field.name for field in fields(ServedAttempt))


class Measurement:
    """One run against one cascade; goes on where its file ends."""

    def __init__(
        self,
        client: AsyncOpenAI,
        prompts: PromptSet,
        file: RunFile,
        *,
        counters: CascadeCounters,
        told: Callable[[str, int, int], None],
    ) -> None:
        """`told` hears of every block that ended: its way, how many are done, and of how many."""
        self._client = client
        self._file = file
        self._counters = counters
        self._told = told
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
        """In the order of the first block."""
        return (*self._tiers, ALONE, CASCADE)

    async def run(self, *, idle_s: float) -> None:
        """Measures every block that is not in the file, between two idle windows of `idle_s`.

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
            self._told(way, len(self._file.run.blocks), n_all)
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

    async def _block(self, way: str, index: int) -> Block:
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
        return Block(
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
        self, prompts: Sequence[LabelledPrompt], ask: Callable[[LabelledPrompt], Awaitable[Told]]
    ) -> list[Told]:
        """What `ask` gives for each prompt, in their order, a few at a time."""
        told: dict[int, Told] = {}
        waiting = iter(enumerate(prompts))

        async def worker() -> None:
            for place, prompt in waiting:  # shared by all workers: each takes the next
                told[place] = await ask(prompt)

        with first_failure():
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._concurrency, len(prompts))):
                    group.create_task(worker())
        return [told[place] for place in range(len(prompts))]

    async def _attempt(self, tier: RecordedTier, prompt: LabelledPrompt) -> RecordedAttempt:
        return await tier_attempt(self._client, prompt, tier, self._sampling)

    async def _served(self, model: str, prompt: LabelledPrompt) -> ServedAnswer:
        """The answer to a plain request, which asks for no log-probabilities."""
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
            return _failed(prompt, fault, latency_s=loop.time() - started_s)
        latency_s = loop.time() - started_s
        # A grader that runs code waits for it, and other answers come meanwhile.
        return await asyncio.to_thread(
            served_answer, response, prompt, latency_s=latency_s, ttft_s=ttft_s
        )


def served_answer(
    response: object, prompt: LabelledPrompt, *, latency_s: float, ttft_s: float | None
) -> ServedAnswer:
    """The answer that a response tells of, graded.

    Raises:
        CannotBeDone: The response is not one of a HybridServe front end.
    """
    try:
        choices, ledger = response["choices"], response["hybridserve"]  # type: ignore[index]
        answer = answer_text(choices[0])
        attempts = _ATTEMPTS.validate_python(ledger["attempts"])
        return ServedAnswer(
            split=prompt.split,
            query_id=prompt.query_id,
            correct=prompt.grader(answer),
            answer=answer,
            fault=None,
            tier=ledger["tier"],
            certified=ledger["certified"],
            latency_s=latency_s,
            ttft_s=ttft_s,
            attempts=tuple(
                ServedAttempt(**{name: one[name] for name in _FIELDS}) for one in attempts
            ),
        )
    except (TypeError, KeyError, IndexError, ValidationError) as exc:
        raise CannotBeDone(f"the server's answer is not that of a HybridServe: {exc!r}") from exc


def _failed(prompt: LabelledPrompt, fault: str, *, latency_s: float) -> ServedAnswer:
    return ServedAnswer(
        split=prompt.split,
        query_id=prompt.query_id,
        correct=None,
        answer=None,
        fault=fault,
        tier=None,
        certified=None,
        latency_s=latency_s,
        attempts=(),
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
