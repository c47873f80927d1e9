"""What a request costs at each model of the recorded answers that we publish figures of."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from eval.recorded.records_csv import Records, outcomes_of, read_records, tier_costs
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.errors import ConfigError

KNOWN_COSTS = {
    "llama3.2-1b": 0.012,
    "llama3.2-3b": 0.032,
    "llama3.1-8b": 0.077,
    "llama3.1-70b": 0.479,
    "llama3.1-405b": 2.06,
}
"""Cost of a request by model; only the ratios within a file matter."""

LIST_PRICES = {
    # US dollars of 2024 for a million prompt tokens, which are 20 times the output here: list
    # prices of OpenAI, and of Fireworks for any dense model above 16 billion parameters. They were
    # written down from memory and not checked against a price list.
    "gpt-4o-mini": 0.15,
    "qwen2.5-32b-coder-instruct": 0.9,
    "qwen2.5-72b-instruct": 0.9,
    "gpt-4o": 2.5,
}
"""The same for models whose names do not tell a size."""


def costs_for(records: Records, given: Mapping[str, float]) -> dict[str, float]:
    """Cost of a request by model, rising: as given, else as known, else by size and tokens.

    Raises:
        ConfigError: Some models have a given cost and some not, or nothing tells a cost.
    """
    for source in (given, KNOWN_COSTS, LIST_PRICES):
        if all(name in source for name in records.models):
            costs = {name: source[name] for name in records.models}
            break
    else:
        mine = {name: cost for name, cost in given.items() if name in records.models}
        costs = dict(zip(records.models, tier_costs(records, records.models, mine)[0], strict=True))
    return dict(sorted(costs.items(), key=lambda item: item[1]))


def costs_of_tiers(
    records: Records, chain: Sequence[str], given: Mapping[str, float]
) -> tuple[tuple[float, ...], str]:
    """As `tier_costs`; list prices where names do not tell sizes and all prices are known.

    Raises:
        ConfigError: Some tiers have a given cost and some not, or nothing tells a cost.
    """
    try:
        return tier_costs(records, chain, given)
    except ConfigError:
        if given or not all(name in LIST_PRICES for name in chain):
            raise
    source = "list prices of a prompt token in 2024, from memory and unchecked; better give --cost"
    return tuple(LIST_PRICES[name] for name in chain), source


def outcomes_at(path: Path, costs: Mapping[str, float]) -> Outcomes:
    """The file's questions that every model answered, tiers in the order of `costs`.

    Raises:
        ConfigError: The file cannot be read, or no question has an answer of every model.
    """
    return outcomes_of(read_records(path), list(costs), list(costs.values()))[0]
