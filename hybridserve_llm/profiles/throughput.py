"""Tokens per second of a replica that has a number of requests in flight, read off its curve."""

import numpy as np

from hybridserve_llm.errors import ConfigError
from hybridserve_llm.profiles.curve import BatchCurve


def output_tokens_per_s(curve: BatchCurve, concurrency: float) -> float:
    """What a replica with this curve generates while `concurrency` requests are always in flight.

    As many sequences decode as are in flight, and each gets a token every step:

        concurrency / step_time_s(concurrency),

    the step time interpolated linearly in the logarithms of both. Prompts of others are part of the
    step time, of the lengths that the curve is of. Divided by the output tokens of a request it is
    the requests per second.

    Raises:
        ConfigError: The curve does not reach to `concurrency`, and nothing is extrapolated here.
    """
    first, last = float(curve.batch[0]), float(curve.batch[-1])
    if not first <= concurrency <= last:
        raise ConfigError(
            f"a curve of {first:g} to {last:g} requests at a time says nothing of {concurrency:g}"
        )
    log_step_s = np.interp(np.log(concurrency), np.log(curve.batch), np.log(curve.step_time_s))
    return concurrency / float(np.exp(log_step_s))
