"""Define the three demo tiers: their shapes, and how long and on what each is trained."""

from dataclasses import dataclass
from pathlib import Path

CHECKPOINTS = Path(__file__).parent / "checkpoints"
DEMO_CONFIG = CHECKPOINTS.parent / "cascade.yaml"
CONTEXT_TOKENS = 512
"""Tokens that every demo tier holds, prompt and output together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoTier:
    """Hold the shape and training recipe of one demo checkpoint (Llama architecture).

    `is_reasoning` tiers work the question step by step inside `<think>…</think>` before they
    answer. In the last `check_fraction` of the training they learn to restate the question and to
    work it a second time as a check. These are copies and come quickly once the steps are known.
    """

    name: str
    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    is_reasoning: bool
    n_training_tokens: int
    curriculum_fraction: float
    check_fraction: float = 0.0

    def learns_check(self, progress: float) -> bool:
        """Return whether the check is learnt at `progress` in [0, 1] of the training."""
        return self.is_reasoning and progress > 1 - self.check_fraction


SMALL = DemoTier(
    name="small",
    hidden_size=64,
    intermediate_size=176,
    n_layers=2,
    n_heads=2,
    is_reasoning=False,
    n_training_tokens=18_500_000,
    curriculum_fraction=0.05,
)
MEDIUM = DemoTier(
    name="medium",
    hidden_size=192,
    intermediate_size=512,
    n_layers=4,
    n_heads=6,
    is_reasoning=False,
    n_training_tokens=24_000_000,
    curriculum_fraction=0.1,
)
GIANT = DemoTier(
    name="giant",
    hidden_size=256,
    intermediate_size=688,
    n_layers=6,
    n_heads=8,
    is_reasoning=True,
    n_training_tokens=22_700_000,
    curriculum_fraction=0.25,
    check_fraction=0.5,
)
FAMILY: dict[str, DemoTier] = {tier.name: tier for tier in (SMALL, MEDIUM, GIANT)}
