"""Draw the accepted answers that are shadowed."""

import math
import random
from dataclasses import dataclass

from hybridserve_llm.interfaces import Clock
from hybridserve_llm.watch.settings import ShadowSettings

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Count accepted answers so far: all, and those of about the last day, at wall time `at_s`."""

    n_accepted: int = 0
    n_recent: float = 0.0
    at_s: float = 0.0


class ShadowSampler:
    """Draw each accepted answer with probability max(share, floor_per_day / answers a day), <= 1.

    Answers a day are counted with weights that fade by a factor e each day. A start without history
    draws everything until `floor_per_day` answers were drawn, then fewer and fewer. So about a
    hundred labels come soon after a restart, when something is most likely to have changed.
    """

    def __init__(
        self, settings: ShadowSettings, *, clock: Clock, traffic: Traffic | None = None
    ) -> None:
        self._settings = settings
        self._clock = clock
        self.traffic = traffic or Traffic(at_s=clock.wall_s())
        # Goes on from where it stood, so that a restart does not repeat the same draws.
        seed = f"{settings.seed}:{self.traffic.n_accepted}"
        self._random = random.Random(seed)  # noqa: S311 - a sample, nothing secret

    def picks(self) -> bool:
        """Return True where the answer accepted just now is drawn; call it once for each answer."""
        now_s = self._clock.wall_s()
        old = self.traffic
        # Wall time may be set back; then nothing has faded.
        fading = math.exp(-max(0.0, now_s - old.at_s) / _DAY_S)
        self.traffic = Traffic(
            n_accepted=old.n_accepted + 1, n_recent=old.n_recent * fading + 1.0, at_s=now_s
        )
        floor = self._settings.floor_per_day / self.traffic.n_recent
        return self._random.random() < max(self._settings.share, floor)
