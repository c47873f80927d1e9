"""What tiers cost whose names do not tell it."""

from collections.abc import Callable
from typing import Any

import pytest

from eval.recorded.recorded_costs import LIST_PRICES, costs_of_tiers
from eval.recorded.records_csv import read_records
from hybridserve_llm.errors import ConfigError

Make = Callable[..., Any]


def test_list_prices_stand_in_where_all_are_known_and_the_source_says_so(
    make_rows: Make, write_csv: Make
) -> None:
    chain = ("gpt-4o-mini", "gpt-4o")
    records = read_records(write_csv(make_rows(3, skills=dict.fromkeys(chain, 0.0))))
    costs, source = costs_of_tiers(records, chain, {})
    assert costs == (LIST_PRICES["gpt-4o-mini"], LIST_PRICES["gpt-4o"])
    assert "unchecked" in source
    assert costs_of_tiers(records, chain, dict.fromkeys(chain, 2.0))[0] == (2.0, 2.0)


def test_a_model_that_nobody_knows_needs_a_cost(make_rows: Make, write_csv: Make) -> None:
    chain = ("gpt-4o-mini", "mystery")
    records = read_records(write_csv(make_rows(3, skills=dict.fromkeys(chain, 0.0))))
    with pytest.raises(ConfigError, match="no --cost for 'gpt-4o-mini'"):
        costs_of_tiers(records, chain, {})
    with pytest.raises(ConfigError, match="no --cost for 'mystery'"):
        costs_of_tiers(records, chain, {"gpt-4o-mini": 1.0})
