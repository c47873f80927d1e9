"""Share the joules of a span among the requests that ran in it; needs no clock and no meter.

    replica   |--idle--|====== busy ======|--idle--|
    requests           [   A   ]
                         [      B         ]
    windows   |        |   1 s   | rest   |        |   cut where busy or idle begins

A window's joules are shared by the tokens computed in it: prompt tokens that were not cached, and
output. On a batching engine that is within 7 to 10 % (median) of sharing by the work of every step,
where counting output alone is 26 to 50 % off (compared on simulated batches, for this design).

How a request's tokens lie in time is known only in part: the prompt before the first token, the
output after it, each evenly; where the first token's time is not known, both evenly over all of it.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from hybridserve_llm.energy.account import Account

LONGEST_WINDOW_S = 1.0
SHORTEST_IDLE_S = 0.02
"""A shorter gap is no idle time: meters move every 0.1 s, and a busy server has many such gaps."""


class Booking(StrEnum):
    """Name the kind of work that joules are booked on."""

    USER = "user"
    SHADOW = "shadow"
    CALIBRATION = "calibration"
    IDLE = "idle"
    OTHERS = "others"
    """On a shared device, what no engine of this cascade used."""
    PARKED = "parked"
    """GPUs that were given to the cascade and that its plan leaves without work."""


@dataclass(slots=True, kw_only=True, eq=False)
class Stint:
    """Hold one request's time on one replica; a retry on another replica is a stint of its own.

    Attributes:
        end_s: None while it runs.
        first_token_s: Time of its first token; None where that was not seen.
        prompt_tokens: Tokens that were computed, so without cached ones; None where not known.
        output_tokens: None where not known, as of a request that was given up.
        accounts: The joules charged to it so far, by component. In the books, all stints of a
            request on one tier share their accounts.
    """

    request_id: str
    tier: str
    replica: str
    booking: Booking
    start_s: float
    end_s: float | None = None
    first_token_s: float | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    accounts: dict[str, Account] = field(default_factory=dict)

    def seconds_in(self, start_s: float, end_s: float) -> float:
        """Return how long it ran between the two."""
        begin_s = start_s if start_s > self.start_s else self.start_s
        finish_s = end_s if self.end_s is None or end_s < self.end_s else self.end_s
        return finish_s - begin_s if finish_s > begin_s else 0.0


class StintSweep:
    """Find the stints of windows that follow each other, without a search over all for each."""

    def __init__(self, stints: Iterable[Stint]) -> None:
        self._waiting = sorted(stints, key=lambda one: one.start_s, reverse=True)
        self._running: list[Stint] = []

    def within(self, start_s: float, end_s: float) -> list[Stint]:
        """Return the stints that ran in the span.

        It must not lie before the last span that was asked for.
        """
        while self._waiting and self._waiting[-1].start_s < end_s:
            self._running.append(self._waiting.pop())
        self._running = [one for one in self._running if one.end_s is None or one.end_s > start_s]
        return list(self._running)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWeights:
    """Weigh a prompt token and an output token; a step model of the tier may give them."""

    prompt: float = 1.0
    output: float = 1.0


class Slice(NamedTuple):
    """Hold a stint's part inside one window: its seconds, and the tokens it computed.

    It is a tuple, as one is made for every stint of every window. `tokens` are (prompt, output),
    None where the stint's are not known.
    """

    stint: Stint
    seconds: float
    tokens: tuple[float, float] | None


def busy_edges(stints: Iterable[Stint]) -> list[float]:
    """Return the moments at which a replica turns busy or idle, in order.

    It stays busy over a gap shorter than `SHORTEST_IDLE_S`, whose joules its requests then share.
    """
    edges: list[float] = []
    busy_until_s = -math.inf
    for stint in sorted(stints, key=lambda one: one.start_s):
        if stint.start_s > busy_until_s + SHORTEST_IDLE_S:
            edges += [busy_until_s, stint.start_s]
        busy_until_s = max(busy_until_s, math.inf if stint.end_s is None else stint.end_s)
    return [edge for edge in (*edges, busy_until_s) if math.isfinite(edge)]


def windows(
    start_s: float, end_s: float, edges: Iterable[float], *, longest_s: float = LONGEST_WINDOW_S
) -> list[tuple[float, float]]:
    """Cut the span from `start_s` to `end_s` at every edge, and so that no part is too long."""
    cuts = [start_s, *sorted({edge for edge in edges if start_s < edge < end_s}), end_s]
    found = []
    for begin_s, finish_s in itertools.pairwise(cuts):
        n_parts = max(1, math.ceil((finish_s - begin_s) / longest_s))
        step_s = (finish_s - begin_s) / n_parts
        inner = [begin_s + i * step_s for i in range(n_parts)]
        found += [(a, b) for a, b in itertools.pairwise([*inner, finish_s]) if b > a]
    return found


def tokens_in(stint: Stint, start_s: float, end_s: float) -> tuple[float, float] | None:
    """Return prompt and output tokens computed in the span; None where they are not known."""
    if stint.end_s is None or stint.prompt_tokens is None or stint.output_tokens is None:
        return None
    first_s = stint.first_token_s
    if first_s is None or not stint.start_s < first_s < stint.end_s:
        share = _overlap(stint.start_s, stint.end_s, start_s, end_s)
        return stint.prompt_tokens * share, stint.output_tokens * share
    return (
        stint.prompt_tokens * _overlap(stint.start_s, first_s, start_s, end_s),
        stint.output_tokens * _overlap(first_s, stint.end_s, start_s, end_s),
    )


def _overlap(begin_s: float, finish_s: float, start_s: float, end_s: float) -> float:
    """Return the share of the time from `begin_s` to `finish_s` that lies in the span."""
    if finish_s <= begin_s:
        return 0.0
    return max(0.0, min(finish_s, end_s) - max(begin_s, start_s)) / (finish_s - begin_s)


def slices(stints: Iterable[Stint], start_s: float, end_s: float) -> list[Slice]:
    """Return each stint's part inside the window, without stints that did not run in it."""
    found = []
    for stint in stints:
        began_s, ended_s = stint.start_s, stint.end_s
        if ended_s is not None and start_s <= began_s < ended_s <= end_s:  # all of it, as most are
            prompt, output = stint.prompt_tokens, stint.output_tokens
            tokens = None if prompt is None or output is None else (prompt, output)
            found.append(Slice(stint, ended_s - began_s, tokens))
            continue
        seconds = stint.seconds_in(start_s, end_s)
        if seconds > 0:
            found.append(Slice(stint, seconds, tokens_in(stint, start_s, end_s)))
    return found


def shares(present: Sequence[Slice], *, weights: TokenWeights) -> list[float]:
    """Return how the stints that ran in a window share it, in their order; the parts sum to 1.

    A stint whose tokens are not known counts as the others do per second. Where no token is known
    to have been computed, all share by the seconds they ran. Empty where none ran.
    """
    if not present:
        return []
    prompt, output = weights.prompt, weights.output
    known = [one for one in present if one.tokens is not None]
    by_tokens = [prompt * one.tokens[0] + output * one.tokens[1] for one in known if one.tokens]
    known_weight = math.fsum(by_tokens)
    if known_weight == 0:
        return split(1.0, [one.seconds for one in present])
    if len(known) == len(present):
        return split(1.0, by_tokens, whole=known_weight)
    per_s = known_weight / math.fsum(one.seconds for one in known)
    known_parts = iter(by_tokens)
    return split(
        1.0, [per_s * one.seconds if one.tokens is None else next(known_parts) for one in present]
    )


def split(amount: float, weights: Sequence[float], *, whole: float | None = None) -> list[float]:
    """Share `amount` by weight; the parts sum to it to the last digit but one.

    Equal parts where all weights are 0. The heaviest part takes what rounding left over. `whole` is
    the sum of the weights, where somebody added them up already.
    """
    if whole is None:
        whole = math.fsum(weights)
    if whole > 0:
        # Not weight * (amount / whole), which is infinite where all weights are next to nothing.
        parts = [amount * (weight / whole) for weight in weights]
    else:
        parts = [amount / len(weights)] * len(weights)
    parts[parts.index(max(parts))] += amount - math.fsum(parts)
    return parts
