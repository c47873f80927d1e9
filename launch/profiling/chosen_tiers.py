"""Choose the tiers to measure, and check that each can hold the load."""

from hybridserve_llm.config.cascade import CascadeConfig, TierConfig
from hybridserve_llm.errors import ConfigError
from launch.profiling.options import ProfileOptions


def tiers_to_measure(config: CascadeConfig, options: ProfileOptions) -> list[TierConfig]:
    """Return the chosen tiers in the cascade's order, each checked to hold the load.

    Raises:
        ConfigError: A tier does not exist or runs elsewhere, or the load is beyond its
            `max_num_seqs` or `max_model_len`.
    """
    here = [tier for tier in config.tiers if not tier.endpoints]
    allowed = [tier.name for tier in here]
    for name in options.tiers:
        if name not in allowed:
            raise ConfigError(
                f"tier {name!r} cannot be measured: allowed are the tiers that are started from "
                f"here ({', '.join(allowed) or 'none'})"
            )
    chosen = [tier for tier in here if tier.name in (options.tiers or allowed)]
    if not chosen:
        raise ConfigError("all tiers name endpoints, and hs-profile measures what it starts itself")
    for tier in chosen:
        _check_load(tier, options)
    return chosen


def _check_load(tier: TierConfig, options: ProfileOptions) -> None:
    most, limit = options.concurrency[-1], tier.engine.max_num_seqs
    if limit is not None and most > limit:
        raise ConfigError(
            f"tier {tier.name}: {most} requests in flight are beyond max_num_seqs {limit}: "
            f"--concurrency may go up to {limit}"
        )
    tokens = options.prompt_tokens + options.output_tokens
    max_model_len = tier.engine.max_model_len
    if max_model_len is not None and tokens > max_model_len:
        raise ConfigError(
            f"tier {tier.name}: --prompt-tokens {options.prompt_tokens} and --output-tokens "
            f"{options.output_tokens} are {tokens} together, max_model_len is {max_model_len}"
        )
