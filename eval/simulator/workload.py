"""Make the requests to simulate: their arrival times, and the lengths of prompts and answers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridserve_llm.errors import ConfigError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# What the front of a stream loses to engines that fill, at most.
_FILLING_SHARE, _FILLING_S = 0.1, 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CountingWindow:
    """Hold the seconds between which joules and goodput are counted, the same for all cascades."""

    begins_s: float
    ends_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Hold n requests in order of arrival.

    Attributes:
        arrival_s: Seconds since the start, never falling, [n].
        prompt_tokens: At least 1, [n].
        output_tokens: At least 1, [n].
    """

    arrival_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def span_s(self) -> float:
        """Return the seconds from the first arrival to the last."""
        return float(self.arrival_s[-1] - self.arrival_s[0])

    @property
    def mean_per_s(self) -> float:
        """Return the requests a second; infinite where all come at once."""
        return len(self) / self.span_s if self.span_s else np.inf

    @property
    def window(self) -> CountingWindow:
        """Return the window from a tenth of the span, 300 s at most, to the last arrival.

        Engines fill before it and drain after it. Where all requests come at once the window has no
        end.
        """
        if not self.span_s:
            return CountingWindow(begins_s=0.0, ends_s=np.inf)
        filling_s = min(_FILLING_SHARE * self.span_s, _FILLING_S)
        begin_s, end_s = float(self.arrival_s[0]), float(self.arrival_s[-1])
        return CountingWindow(begins_s=begin_s + filling_s, ends_s=end_s)

    def taken(self, index: Ints) -> "Requests":
        """Return the requests of `index`, in its order."""
        return Requests(
            arrival_s=self.arrival_s[index],
            prompt_tokens=self.prompt_tokens[index],
            output_tokens=self.output_tokens[index],
        )


def checked_requests(arrival_s: Floats, prompt_tokens: Ints, output_tokens: Ints) -> Requests:
    """Return the requests in order of arrival, time counted from the first; lengths of 0 become 1.

    Raises:
        ConfigError: There are none, or a time or a length is not a number of at least 0.
    """
    if not len(arrival_s):
        raise ConfigError("there are no requests to simulate; at least one is needed")
    if not np.all(np.isfinite(arrival_s)):
        raise ConfigError("a request's time of arrival is not a finite number")
    if prompt_tokens.min() < 0 or output_tokens.min() < 0:
        raise ConfigError(
            f"a request has {min(prompt_tokens.min(), output_tokens.min())} tokens; 0 at least"
        )
    order = np.argsort(arrival_s, kind="stable")
    return Requests(
        arrival_s=arrival_s[order] - arrival_s[order[0]],
        prompt_tokens=np.maximum(prompt_tokens[order], 1),
        output_tokens=np.maximum(output_tokens[order], 1),
    )


def overlaid(requests: Requests, copies: int, *, seed: int) -> Requests:
    """Lay `copies` of the trace over each other, each turned by a random part of its span.

    A copy's requests that the turn pushes past the end come in at the start, so that the rate is
    the trace's times `copies` at both ends. The first copy is not turned.

    Raises:
        ConfigError: `copies` is below 1.
    """
    if copies < 1:
        raise ConfigError(f"{copies} copies of the trace; at least 1")
    shifts = np.random.default_rng(seed).uniform(0, max(requests.span_s, 1e-9), copies)
    shifts[0] = 0.0
    turned = (requests.arrival_s[None, :] + shifts[:, None]).ravel()
    over = turned > requests.span_s
    turned[over] -= requests.span_s
    return checked_requests(
        turned,
        np.tile(requests.prompt_tokens, copies),
        np.tile(requests.output_tokens, copies),
    )


def poisson(lengths: Requests, *, requests_per_s: float, n_requests: int, seed: int) -> Requests:
    """Draw a Poisson process whose requests have lengths drawn from those of `lengths`.

    Raises:
        ConfigError: The rate is not above 0, or there are no requests.
    """
    if not requests_per_s > 0 or n_requests < 1:
        raise ConfigError(
            f"{n_requests} requests at {requests_per_s:g} a second; both must be above 0"
        )
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(lengths), n_requests)
    return checked_requests(
        np.cumsum(random.exponential(1 / requests_per_s, n_requests)),
        lengths.prompt_tokens[drawn],
        lengths.output_tokens[drawn],
    )
