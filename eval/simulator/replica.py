"""Simulate one engine: continuous batching, chunked prefill, a KV cache, and its power.

Every step follows the rules of vLLM's V1 scheduler: sequences that decode go first, with one token
each; what `max_num_batched_tokens` leaves goes to prompts in order of arrival, the last of them in
part; a prompt is let in while `max_num_seqs` and the KV cache have room; when the cache is full the
newest sequence is put out and its tokens are computed anew later (recompute).

Steps without prompt tokens differ only in the tokens cached, one more for each sequence a step. So
a whole *stretch* of them, up to the next end of a sequence, is one event: its seconds and joules
are sums in closed form, equal to those of its steps. An arrival that can be let in cuts the stretch
at the end of the step it falls into. Time, tokens and joules are those of a simulation step by
step.

Deviations from vLLM: the cache counts tokens, not blocks of 16; a prompt is let in when all of it
fits, not its first chunk; there is no prefix cache; and steps follow each other without a gap.
"""

import math
from collections import deque
from heapq import heappop, heappush
from typing import NamedTuple

from eval.simulator.step_table import StepTable

# Seconds of work over which TDP is kept. The law of power was fitted to means over runs, in which
# steps with prompts, above the mean, stand next to steps without; and meters see no less.
_WINDOW_S = 1.0
# A step that ended just now, but for rounding, is over.
_ROUNDING = 1e-9


class Waiting(NamedTuple):
    """Hold a waiting request: prompt tokens to compute, answer tokens still to come."""

    request: int
    prompt_tokens: int
    output_tokens: int


class SoFar(NamedTuple):
    """Hold the work of an engine until some moment, and its requests at that moment."""

    energy_j: float
    busy_s: float
    sequence_s: float
    n_requests: int


class _Running(NamedTuple):
    """Hold a sequence that decodes; the step that ends it is counted from the replica's start."""

    last_step: int
    request: int
    prompt_tokens: int
    output_tokens: int


class SimulatedReplica:
    """Simulate one engine; times are seconds, requests are indices of the caller's lists.

    Attributes:
        first_token_s: When a request's first token was there, by request; below 0 until then.
        finish_s: When its last was, likewise.
        next_s: When the stretch under way ends; infinite while idle.
        energy_j: Joules while it worked, without those of idle time; complete after `close_window`.
        busy_s: Seconds in which it worked.
        sequence_s: Seconds times sequences that decoded.
        n_prompt_tokens: Prompt tokens computed, those computed anew included.
        n_output_tokens: Answer tokens made.
        n_events: Stretches so far.
        n_preempted: How often a sequence was put out.
    """

    __slots__ = (
        "_cached", "_chunk", "_done", "_ends", "_held", "_left", "_n_prompts", "_n_running",
        "_n_steps", "_partial", "_running", "_since_s", "_step", "_table", "_waiting", "_window_j",
        "_window_limit_j", "_window_s", "busy_s",
        "energy_j", "finish_s", "first_token_s", "n_events", "n_output_tokens", "n_preempted",
        "n_prompt_tokens", "next_s", "sequence_s",
    )  # fmt: skip

    def __init__(self, table: StepTable, first_token_s: list[float], finish_s: list[float]) -> None:
        self._table = table
        self.first_token_s, self.finish_s = first_token_s, finish_s
        self.next_s = math.inf
        self.energy_j = self.busy_s = self.sequence_s = 0.0
        self.n_prompt_tokens = self.n_output_tokens = self.n_preempted = self.n_events = 0
        self._waiting: deque[Waiting] = deque()
        # The prompt of which the next step computes more, and how many of its tokens are left.
        self._partial: Waiting | None = None
        self._left = 0
        # Prompts that are complete when the step under way ends.
        self._done: list[Waiting] = []
        # Sequences that decode, oldest first, and a heap of them by their ends; the heap keeps
        # those that were put out until they come up.
        self._running: dict[int, _Running] = {}
        self._ends: list[_Running] = []
        # Of the stretch under way: its steps, the sequences that decode in it, and of a step with
        # prompts their tokens and number. `_step` counts the steps before it.
        self._step = self._n_steps = self._n_running = self._chunk = self._n_prompts = 0
        # Tokens cached for sequences that decode; tokens held for these and for prompts.
        self._cached = self._held = 0
        self._since_s = 0.0
        self._window_j = self._window_limit_j = self._window_s = 0.0

    @property
    def worked_until_s(self) -> float:
        """Return the time at which its last stretch ended; of use while it is idle."""
        return self._since_s

    def arrive(self, request: int, prompt_tokens: int, output_tokens: int, at_s: float) -> bool:
        """Take a request; return True where `next_s` changed.

        `at_s` is not before an earlier event and not after `next_s`. Prompt and answer together fit
        into the KV cache: the caller checks it.
        """
        waiting = self._waiting
        waiting.append(Waiting(request, prompt_tokens, output_tokens))
        if self.next_s == math.inf:
            self._since_s = at_s
            self._open()
            return True
        # In a step with prompts it waits for the end anyway; behind another it has no turn.
        if self._chunk or self._n_steps == 1 or len(waiting) > 1:
            return False
        table, n_running = self._table, self._n_running
        if (
            n_running >= table.max_num_seqs
            or self._held + prompt_tokens + n_running > table.kv_cache_tokens
        ):
            return False
        return self._cut(at_s)

    def so_far(self, at_s: float) -> SoFar:
        """Return the work until `at_s`, which is not after `next_s`.

        Of the stretch under way the part of its seconds that has passed counts.
        """
        is_under_way = self._since_s < at_s < self.next_s < math.inf
        seconds = at_s - self._since_s if is_under_way else 0.0
        window_j, window_limit_j = self._window_j, self._window_limit_j
        if is_under_way:
            share = seconds / (self.next_s - self._since_s)
            window_j += share * self._stretch_j()
            window_limit_j += share * self._stretch_limit_j()
        return SoFar(
            energy_j=self.energy_j + min(window_j, window_limit_j),
            busy_s=self.busy_s + seconds,
            sequence_s=self.sequence_s + seconds * self._n_running,
            n_requests=len(self._running)
            + len(self._waiting)
            + len(self._done)
            + (self._partial is not None),
        )

    def end_stretch(self) -> int:
        """Go on from `next_s` with the next stretch, and return the number of requests done."""
        self._account()
        now_s, n_steps = self.next_s, self._n_steps
        self._step = step = self._step + n_steps
        made = n_steps * self._n_running
        self._cached += made
        self._held += made
        self.n_output_tokens += made
        ends, running, finish_s, n_done = self._ends, self._running, self.finish_s, 0
        while ends and ends[0][0] <= step:
            ended = heappop(ends)
            _, request, prompt_tokens, output_tokens = ended
            if running.get(request) is ended:
                del running[request]
                finish_s[request] = now_s
                left = prompt_tokens + output_tokens - 1
                self._cached -= left
                self._held -= left
                n_done += 1
        if self._done:
            n_done += self._end_prompts(now_s)
        self._since_s = now_s
        self._open()
        return n_done

    def _end_prompts(self, now_s: float) -> int:
        """Complete prompts have their first token; the number of those that need no more."""
        first_token_s, step, n_done = self.first_token_s, self._step, 0
        for request, prompt_tokens, output_tokens in self._done:
            self.n_output_tokens += 1
            if first_token_s[request] < 0:
                first_token_s[request] = now_s
            if output_tokens == 1:
                self.finish_s[request] = now_s
                self._held -= prompt_tokens
                n_done += 1
                continue
            begun = _Running(step + output_tokens - 1, request, prompt_tokens, output_tokens)
            self._running[request] = begun
            heappush(self._ends, begun)
            self._cached += prompt_tokens
        self._done = []
        return n_done

    def _open(self) -> None:
        """Begin the next stretch at `_since_s`."""
        table, n_running = self._table, len(self._running)
        self._chunk = self._n_prompts = 0
        if self._held + n_running > table.kv_cache_tokens:
            n_running = self._make_room()
        elif self._waiting or self._partial is not None:
            self._let_in(n_running)
        self._n_running = n_running
        chunk = self._chunk
        if chunk:
            self._n_steps = 1
            self.next_s = self._since_s + table.factor[n_running] * (
                table.tokens_s[n_running + chunk]
                + table.sequence_s * (n_running + self._n_prompts)
                + table.cached_s[n_running] * self._cached
            )
            return
        if not n_running:
            self._n_steps = 0
            self.next_s = math.inf
            return
        ends, running = self._ends, self._running
        while running.get(ends[0][1]) is not ends[0]:
            heappop(ends)
        room = (table.kv_cache_tokens - self._held) // n_running
        self._n_steps = min(ends[0][0] - self._step, room)
        self.next_s = self._since_s + self._decoding_s(self._n_steps)

    def _let_in(self, n_running: int) -> None:
        """Fill the next step with prompt tokens: of the request begun, then of those that wait."""
        table, waiting = self._table, self._waiting
        budget = table.max_num_batched_tokens - n_running
        n_prompts = chunk = 0
        while budget > 0:
            if self._partial is None:
                if not waiting or n_running + n_prompts >= table.max_num_seqs:
                    break
                room = table.kv_cache_tokens - self._held - n_running
                if waiting[0][1] > room:
                    break
                self._partial = waiting.popleft()
                self._left = self._partial[1]
                self._held += self._left
            n_prompts += 1
            taken = min(budget, self._left)
            budget -= taken
            chunk += taken
            self._left -= taken
            if not self._left:
                self._done.append(self._partial)
                self._partial = None
        self._chunk, self._n_prompts = chunk, n_prompts

    def _make_room(self) -> int:
        """Put out the newest until the others have room for a token each; return their number."""
        table, running = self._table, self._running
        if self._partial is not None:
            self._waiting.appendleft(self._partial)
            self._held -= self._partial.prompt_tokens
            self._partial = None
            self.n_preempted += 1
        while self._held + len(running) > table.kv_cache_tokens:
            _, (last_step, request, prompt_tokens, output_tokens) = running.popitem()
            left = last_step - self._step
            computed = prompt_tokens + output_tokens - 1 - left
            self._held -= computed
            self._cached -= computed
            # Its last token is not cached yet: it is computed with the others.
            self._waiting.appendleft(Waiting(request, computed + 1, left))
            self.n_preempted += 1
        return len(running)

    def _cut(self, at_s: float) -> bool:
        """End the stretch with the step under way at `at_s`; return True where that is sooner.

        The seconds of j steps are a j^2 + b j, see `_decoding_s`; the first j at which they reach
        `at_s` follows.
        """
        table, n_running = self._table, self._n_running
        factor, cached_s = table.factor[n_running], table.cached_s[n_running]
        a = factor * cached_s * n_running / 2
        step_s = table.tokens_s[n_running] + table.sequence_s * n_running
        b = factor * (step_s + cached_s * self._cached) - a
        passed_s = at_s - self._since_s
        steps = 2 * passed_s / (b + math.sqrt(b * b + 4 * a * passed_s))
        n_steps = max(1, math.ceil(steps - _ROUNDING))
        if n_steps >= self._n_steps:
            return False
        self._n_steps = n_steps
        self.next_s = max(at_s, self._since_s + self._decoding_s(n_steps))
        return True

    def _decoding_s(self, n_steps: int) -> float:
        """Return the seconds of steps without prompts: each adds a token to every sequence."""
        table, n_running = self._table, self._n_running
        cached = n_steps * self._cached + n_running * n_steps * (n_steps - 1) / 2
        step_s = table.tokens_s[n_running] + table.sequence_s * n_running
        return table.factor[n_running] * (n_steps * step_s + table.cached_s[n_running] * cached)

    def _account(self) -> None:
        """Add the stretch that ends to the sums."""
        seconds = self.next_s - self._since_s
        self._window_j += self._stretch_j()
        self._window_limit_j += self._stretch_limit_j()
        self._window_s += seconds
        if self._window_s >= _WINDOW_S:
            self.close_window()
        self.busy_s += seconds
        self.sequence_s += seconds * self._n_running
        self.n_prompt_tokens += self._chunk
        self.n_events += 1

    def _stretch_j(self) -> float:
        """Return the joules of the stretch under way, up to its end, without a limit of power."""
        table, n_running, n_steps = self._table, self._n_running, self._n_steps
        cached = n_steps * self._cached + n_running * n_steps * (n_steps - 1) / 2
        step_j = table.tokens_j[n_running + self._chunk] + table.sequence_j * (
            n_running + self._n_prompts
        )
        factor = table.power_factor[n_running] * table.factor[n_running]
        return factor * (n_steps * step_j + table.cached_j * cached)

    def _stretch_limit_j(self) -> float:
        """Return the joules of the stretch under way at the limit of power."""
        table = self._table
        seconds = self.next_s - self._since_s
        return table.power_factor[self._n_running] * table.power_limit_w * seconds

    def close_window(self) -> None:
        """Add the joules of the window under way to `energy_j`; to be called at the end."""
        self.energy_j += min(self._window_j, self._window_limit_j)
        self._window_j = self._window_limit_j = self._window_s = 0.0
