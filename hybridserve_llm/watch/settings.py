"""Hold the settings of the watch: the policies it watches, and how."""

from dataclasses import dataclass, field
from typing import Literal

from hybridserve_llm.watch.eprocess import loss_budget

Level = Literal["normal", "strict", "escalate"]
"""Policy for the router: the certified one, the stricter one, or the last tier for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowSettings:
    """Say how much is shadowed, and at what cost.

    Attributes:
        share: Share of accepted answers that is drawn, in (0, 1].
        floor_per_day: Answers a day that are drawn at least, where that many are accepted.
        queue_size: Answers that wait; more are dropped.
        concurrency: Answers that are asked of the last tier at a time.
        timeout_s: Seconds that the last tier has for one answer.
        priority: vLLM's `priority` of these requests (higher is later), for engines started with
            `--scheduling-policy priority`; others answer it with an error, so None sends none.
        seed: Seed of the draw.
    """

    share: float = 0.02
    floor_per_day: float = 20.0
    queue_size: int = 32
    concurrency: int = 2
    timeout_s: float = 120.0
    priority: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"share {self.share} must lie in (0, 1]")
        if self.floor_per_day < 0.0 or self.timeout_s <= 0.0:
            raise ValueError("floor_per_day must be 0 or more, timeout_s above 0")
        if self.queue_size < 1 or self.concurrency < 1:
            raise ValueError("queue_size and concurrency must be 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedPolicy:
    """Describe a certified policy, as far as it is watched.

    Attributes:
        epsilon: Certified bound on the share of all requests that are answered below the last tier
            and lose by it. For shadowing without a grader this is the bound on disagreement.
        acceptance: Share of all requests that each tier below the last accepts, in (0, 1].
    """

    epsilon: float
    acceptance: tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        if not self.acceptance:
            raise ValueError("a policy that accepts nothing below the last tier needs no watch")
        for _, share in self.acceptance:
            loss_budget(self.epsilon, share)
        loss_budget(self.epsilon, self.total_acceptance)

    @property
    def total_acceptance(self) -> float:
        """Return the share of all requests that some tier below the last accepts."""
        return min(1.0, sum(share for _, share in self.acceptance))


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedCascade:
    """Hold the policy that serves, and the stricter certified one, where one exists.

    `fingerprint` is the certificate's; a kept state of another fingerprint is not continued.
    """

    fingerprint: str
    policy: WatchedPolicy
    strict_policy: WatchedPolicy | None = None

    @property
    def tiers(self) -> tuple[str, ...]:
        """Return every tier whose answers either policy accepts."""
        policies = [policy for policy in (self.policy, self.strict_policy) if policy is not None]
        return tuple(dict.fromkeys(tier for policy in policies for tier, _ in policy.acceptance))

    def policy_at(self, level: Level) -> WatchedPolicy:
        """Return the policy that is watched at `level`; at "escalate", the one watched last."""
        return self.policy if level == "normal" else self.strict_policy or self.policy


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """Say how a cascade is watched.

    Attributes:
        shadow: Settings of the shadows.
        delta: Share of false alarms over `horizon_requests` requests, all tiers together.
        horizon_requests: Requests that `delta` is for.
        warning_e_value: Evidence that warns; 20 is passed without cause in at most 5 % of horizons.
        adwin_delta: ADWIN's own `delta`, per check of its window.
        save_interval_s: Seconds between two writes of the state; an alarm is written at once.
    """

    shadow: ShadowSettings = field(default_factory=ShadowSettings)
    delta: float = 0.0005
    horizon_requests: float = 100_000
    warning_e_value: float = 20.0
    adwin_delta: float = 0.002
    save_interval_s: float = 30.0
