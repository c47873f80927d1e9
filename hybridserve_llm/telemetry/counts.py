"""Count requests and attempts, and report the counts when Prometheus scrapes.

prometheus_client's own counters take a lock and check their arguments at every step: 7 us a request
of two attempts, where these take 2. They belong to one thread, that of the event loop: requests are
counted there, and `/metrics` is answered there.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from hybridserve_llm.values.joules import SettledEnergy
from hybridserve_llm.values.ledger import Gap, RequestEnd, RequestKind, Verdict

NONE = "none"
"""The label where no tier answered, or where nothing is metered."""

LATENCY_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
_ENERGY_BUCKETS_J = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)


class Tally:
    """Count values in a histogram: how many were at most each bound, and their sum."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Begin with no values; `bounds` rise, and values above the last are counted too."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one value; O(log of the bounds)."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def taken(self) -> "Tallied":
        """Return the counts, and begin again at 0."""
        counted = Tallied(tuple(self._counts), self.sum)
        self._counts, self.sum = [0] * len(self._counts), 0.0
        return counted

    def absorb(self, counted: "Tallied") -> None:
        """Add the counts that a tally of the same bounds made elsewhere."""
        self._counts = [a + b for a, b in zip(self._counts, counted.counts, strict=True)]
        self.sum += counted.sum

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """Return upper bounds as Prometheus writes them, each with the count of values up to it."""
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True))

    @property
    def is_empty(self) -> bool:
        """Return True where nothing was counted."""
        return not any(self._counts)


class Tallied(NamedTuple):
    """Hold the values of a histogram: how many fell into each bucket, and their sum."""

    counts: tuple[int, ...]
    sum: float


class TierJoules:
    """Count active joules of users' requests, by the tier that answered (`none`: no tier did).

    Attributes:
        request_energy_j: Joules over all tiers of a request.
        answer_energy_j: Joules of the tier that answered, alone.
    """

    __slots__ = ("answer_energy_j", "request_energy_j")

    def __init__(self) -> None:
        self.request_energy_j = Tally(_ENERGY_BUCKETS_J)
        self.answer_energy_j = Tally(_ENERGY_BUCKETS_J)


class TalliedJoules(NamedTuple):
    """Hold the `TierJoules` of one tier, as counted since the last time."""

    tier: str
    request_energy_j: Tallied
    answer_energy_j: Tallied


class JoulesTally:
    """Count the energy of users' requests; joules that are not known are no observation."""

    def __init__(self) -> None:
        self.tiers = defaultdict[str, TierJoules](TierJoules)

    def count(self, energy: SettledEnergy) -> None:
        """Count a request, unless it is no user's."""
        if energy.booking != "user":
            return
        tier = energy.tier or NONE
        own_j = None if energy.tier is None else energy.tiers.get(energy.tier)
        if energy.active_j is not None:
            self.tiers[tier].request_energy_j.add(energy.active_j)
        if own_j is not None:
            self.tiers[tier].answer_energy_j.add(own_j)

    def taken(self) -> tuple[TalliedJoules, ...]:
        """Return the counts, and begin again at 0."""
        return tuple(
            TalliedJoules(tier, one.request_energy_j.taken(), one.answer_energy_j.taken())
            for tier, one in self.tiers.items()
            if not one.request_energy_j.is_empty or not one.answer_energy_j.is_empty
        )

    def absorb(self, counted: TalliedJoules) -> None:
        """Add counts that were made elsewhere."""
        mine = self.tiers[counted.tier]
        mine.request_energy_j.absorb(counted.request_energy_j)
        mine.answer_energy_j.absorb(counted.answer_energy_j)


class KindCounts:
    """Count all requests of one kind: their ends, their attempts, and their times."""

    __slots__ = ("attempts", "failures", "latency_s", "requests", "ttft_s", "uncovered")

    def __init__(self) -> None:
        self.uncovered: dict[Gap, int] = {}
        self.requests: dict[tuple[str, RequestEnd], int] = {}
        self.attempts: dict[tuple[str, Verdict], int] = {}
        self.failures: dict[tuple[str, str], int] = {}
        self.latency_s = Tally(LATENCY_BUCKETS_S)
        self.ttft_s = Tally(LATENCY_BUCKETS_S)


class TierCounts:
    """Count one tier over all requests; tokens are None until an engine reported some."""

    __slots__ = ("completion_tokens", "confidence", "latency_s", "prompt_tokens", "ttft_s")

    def __init__(self) -> None:
        self.latency_s = Tally(LATENCY_BUCKETS_S)
        self.ttft_s = Tally(LATENCY_BUCKETS_S)
        self.confidence = Tally(_CONFIDENCE_BUCKETS)
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None


class CountsCollector(Collector):
    """Report the counts to Prometheus; a value that was never counted has no sample."""

    def __init__(
        self,
        kinds: Mapping[RequestKind, KindCounts],
        tiers: Mapping[str, TierCounts],
        joules: Mapping[str, TierJoules],
    ) -> None:
        self._kinds = kinds
        self._tiers = tiers
        self._joules = joules

    def describe(self) -> Iterator[Metric]:
        """Return nothing: a registry then does not collect when this is registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield all families, as they stand now."""
        yield from _ends(self._kinds)
        yield from _tokens(self._tiers)
        yield from _histograms(_OF_KINDS, "kind", self._kinds)
        yield from _histograms(_OF_TIERS, "tier", self._tiers)
        yield from _histograms(_OF_JOULES, "tier", self._joules)


class CountOf(Collector):
    """Report one counter that another object keeps; it is read when scraped."""

    def __init__(self, name: str, meaning: str, read: Callable[[], int]) -> None:
        """Report the value of `read` as the counter `name`, given without `_total`."""
        self._name = name
        self._meaning = meaning
        self._read = read

    def describe(self) -> Iterator[Metric]:
        """Return nothing: a registry then does not collect when this is registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the one counter."""
        counter = CounterMetricFamily(self._name, self._meaning)
        counter.add_metric([], self._read())
        yield counter


class ResponseCounts(Collector):
    """Count responses by HTTP status, also of requests for which no tier was asked."""

    def __init__(self) -> None:
        self._by_status: dict[int, int] = {}

    def add(self, status: int) -> None:
        """Count one response."""
        self._by_status[status] = self._by_status.get(status, 0) + 1

    def describe(self) -> Iterator[Metric]:
        """Return nothing: a registry then does not collect when this is registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the one counter."""
        yield counter_of(
            "hybridserve_responses",
            "Responses of the two endpoints that generate, by HTTP status",
            ("status",),
            (((str(status),), n) for status, n in self._by_status.items()),
        )


def counter_of(
    name: str, meaning: str, labels: Sequence[str], counts: Iterable[tuple[Sequence[str], int]]
) -> CounterMetricFamily:
    """Return the counter `name`, given without `_total`, with a sample for each of `counts`."""
    family = CounterMetricFamily(name, meaning, labels=labels)
    for values, count in counts:
        family.add_metric(values, count)
    return family


def _ends(kinds: Mapping[RequestKind, KindCounts]) -> Iterator[Metric]:
    yield counter_of(
        "hybridserve_requests",
        "Requests that ended, by the tier that answered (none: no tier did)",
        ("kind", "tier", "end"),
        (((kind, *of), n) for kind, one in kinds.items() for of, n in one.requests.items()),
    )
    yield counter_of(
        "hybridserve_attempts",
        "Attempts of requests that ended, by tier and decision",
        ("kind", "tier", "decision"),
        (((kind, *of), n) for kind, one in kinds.items() for of, n in one.attempts.items()),
    )
    yield counter_of(
        "hybridserve_failed_attempts",
        "Attempts that gave no answer, so that a tier was passed over, by the class of the error",
        ("kind", "tier", "error"),
        (((kind, *of), n) for kind, one in kinds.items() for of, n in one.failures.items()),
    )
    yield counter_of(
        "hybridserve_uncovered_answers",
        "Answers that no certificate covers, by the reason",
        ("kind", "gap"),
        (((kind, gap), n) for kind, one in kinds.items() for gap, n in one.uncovered.items()),
    )


def _tokens(tiers: Mapping[str, TierCounts]) -> Iterator[Metric]:
    known = {tier: (one.prompt_tokens, one.completion_tokens) for tier, one in tiers.items()}
    yield counter_of(
        "hybridserve_prompt_tokens",
        "Prompt tokens that engines reported",
        ("tier",),
        (((tier,), n) for tier, (n, _) in known.items() if n is not None),
    )
    yield counter_of(
        "hybridserve_completion_tokens",
        "Output tokens that engines reported, of rejected answers too",
        ("tier",),
        (((tier,), n) for tier, (_, n) in known.items() if n is not None),
    )


def _histograms(
    families: Mapping[str, tuple[str, str]],
    label: str,
    counted: Mapping[RequestKind, KindCounts] | Mapping[str, TierCounts | TierJoules],
) -> Iterator[Metric]:
    for name, (field, meaning) in families.items():
        family = HistogramMetricFamily(f"hybridserve_{name}", meaning, labels=[label])
        for value, counts in counted.items():
            tally: Tally = getattr(counts, field)
            if not tally.is_empty:
                family.add_metric([value], tally.buckets, tally.sum)
        yield family


_OF_KINDS = {
    "request_latency_seconds": (
        "latency_s",
        "Seconds from a request's arrival to its answer's end",
    ),
    "request_ttft_seconds": (
        "ttft_s",
        "Seconds from a streamed request's arrival to the first token that left for its client",
    ),
}
_OF_TIERS = {
    "attempt_latency_seconds": ("latency_s", "Seconds of one tier's attempt"),
    "attempt_ttft_seconds": (
        "ttft_s",
        "Seconds from asking a tier to its first token, where it streamed to the client",
    ),
    "attempt_confidence_ratio": (
        "confidence",
        "Confidence in a tier's answers to the cascade's requests, where it was computed",
    ),
}
_OF_JOULES = {
    "request_energy_joules": (
        "request_energy_j",
        "Active joules of a user's request over all its tiers, where they were metered",
    ),
    "answer_energy_joules": (
        "answer_energy_j",
        "Active joules that the tier which answered a user's request used itself for it, where "
        "they were metered",
    ),
}
