"""Read what an engine counts of its own work, from its `/metrics`.

Counters are exact at any moment, so a window need not begin or end with a request. A request that
is cut by an edge of the window counts with the tokens that were made inside it.
"""

from dataclasses import dataclass

from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.load.metrics_text import Samples

_NAMES = {
    "prompt_tokens": ("vllm:prompt_tokens_total",),
    "output_tokens": ("vllm:generation_tokens_total",),
    "preemptions": ("vllm:num_preemptions_total",),
    "n_first_tokens": ("vllm:time_to_first_token_seconds_count",),
    "ttft_sum_s": ("vllm:time_to_first_token_seconds_sum",),
    # vLLM 0.22 knows both names, later versions the first alone.
    "n_intervals": (
        "vllm:inter_token_latency_seconds_count",
        "vllm:time_per_output_token_seconds_count",
    ),
    "interval_sum_s": (
        "vllm:inter_token_latency_seconds_sum",
        "vllm:time_per_output_token_seconds_sum",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCounters:
    """Hold totals since the engine started or, as a difference, of a stretch of time.

    Attributes:
        prompt_tokens: Of prompts whose computation ended.
        output_tokens: Generated.
        preemptions: Requests thrown out of the batch for lack of KV cache, to be computed again.
        n_first_tokens: Requests that had their first token.
        ttft_sum_s: Their seconds to it, inside the engine, added up.
        n_intervals: Pairs of neighbouring tokens of a request.
        interval_sum_s: Seconds between them, added up.
    """

    prompt_tokens: float
    output_tokens: float
    preemptions: float
    n_first_tokens: float
    ttft_sum_s: float
    n_intervals: float
    interval_sum_s: float

    def since(self, earlier: "EngineCounters") -> "EngineCounters":
        """Return what was added since `earlier`."""
        return EngineCounters(
            **{name: getattr(self, name) - getattr(earlier, name) for name in _NAMES}
        )

    @property
    def ttft_s(self) -> float | None:
        """Return the mean seconds to the first token; None where none came."""
        return self.ttft_sum_s / self.n_first_tokens if self.n_first_tokens else None

    @property
    def itl_s(self) -> float | None:
        """Return the mean seconds between two tokens of a request; None without two."""
        return self.interval_sum_s / self.n_intervals if self.n_intervals else None


def counters_of(metrics: str) -> EngineCounters:
    """Return the counters in `metrics`, Prometheus' text format, added up over labels.

    Raises:
        CannotBeDone: One is missing: the engine is no vLLM of a version known here.
    """
    samples = Samples.of(metrics)
    return EngineCounters(**{field: _first(samples, names) for field, names in _NAMES.items()})


def _first(samples: Samples, names: tuple[str, ...]) -> float:
    for name in names:
        if (total := samples.total(name)) is not None:
            return total
    raise CannotBeDone(
        f"the engine's /metrics has no {' or '.join(names)}: it cannot be measured "
        "(vLLM 0.22 to 0.33 have it)"
    )
