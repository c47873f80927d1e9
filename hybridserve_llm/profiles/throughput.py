"""Read the throughput of a replica from its curve, by the formula of planner and profiler."""

import numpy as np

from hybridserve_llm.errors import ConfigError
from hybridserve_llm.profiles.curve import BatchCurve
from hybridserve_llm.profiles.step_work import Floats


def output_tokens_per_s(curve: BatchCurve, concurrency: float) -> float:
    """Return the output tokens per second while `concurrency` requests are in flight.

    As many sequences decode as are in flight, and each gets a token every step:

        concurrency / step_time_s(concurrency),

    the step time interpolated linearly over the batch. Prompts of others are part of the step time,
    of the lengths that the curve is of.

    Raises:
        ConfigError: The curve does not reach to `concurrency`, and nothing is extrapolated here.
    """
    first, last = float(curve.batch[0]), float(curve.batch[-1])
    if not first <= concurrency <= last:
        raise ConfigError(
            f"a curve of {first:g} to {last:g} requests at a time does not cover {concurrency:g}"
        )
    return concurrency / float(np.interp(concurrency, curve.batch, curve.step_time_s))


def requests_per_s(curve: BatchCurve, output_tokens: float) -> Floats:
    """Return the requests that end per second at every batch of `curve`, [n].

    Each has `output_tokens`. It is `output_tokens_per_s` at that batch over the output tokens of a
    request.
    """
    return np.asarray(curve.batch / (output_tokens * curve.step_time_s))
