"""Joules at a stated load: idle GPUs are paid for, and what cannot be planned is said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.cli import main
from eval.recorded.loaded_energy import LoadedTiers
from eval.recorded.question_tokens import QuestionTokens
from eval.recorded.records_csv import read_records
from hybridserve_llm.errors import CannotBeDone, ConfigError

CHAIN = ("llama3.1-8b", "llama3.1-70b")
Planned = Callable[..., LoadedTiers]


@pytest.fixture
def planned(write_csv: Callable[..., Path], record: Callable[..., Any]) -> Planned:
    """Tiers that were recorded with 90 + 10 tokens a request."""

    def plan(rate: float, chain: tuple[str, ...] = CHAIN, n_gpus: int = 8) -> LoadedTiers:
        records = read_records(write_csv([record(i, name) for i in range(3) for name in chain]))
        tokens = QuestionTokens.of_records(records, chain)
        return LoadedTiers(chain, tokens, gpu="H100", n_gpus=n_gpus, requests_per_s=rate)

    return plan


def test_a_request_costs_more_where_gpus_wait_more(planned: Planned) -> None:
    alone = {"llama3.1-70b": 1.0}
    slow, fast = planned(0.1).energy(alone), planned(10).energy(alone)
    assert slow.energy_j > 10 * fast.energy_j  # a hundredth of the requests share the idle watts


def test_a_tier_that_is_asked_nothing_costs_nothing(planned: Planned) -> None:
    tiers = planned(1.0)
    alone = tiers.energy({"llama3.1-70b": 1.0})
    assert tiers.energy({"llama3.1-8b": 0.0, "llama3.1-70b": 1.0}) == alone
    assert alone.n_gpus >= 2  # 141 GB of weights do not fit in 80
    assert alone.grade == "fleet-fit"


def test_a_load_beyond_the_gpus_cannot_be_done(planned: Planned) -> None:
    with pytest.raises(CannotBeDone, match="2 GPUs do not carry 1e"):
        planned(1e6, n_gpus=2).energy({"llama3.1-70b": 1.0})


def test_a_model_of_unknown_size_is_an_error(planned: Planned) -> None:
    with pytest.raises(ConfigError, match="sizes of 'small-1b' are not in the catalogue"):
        planned(1.0, chain=("small-1b",))


@pytest.mark.slow
def test_both_figures_stand_in_the_result(
    tmp_path: Path,
    write_csv: Callable[..., Path],
    make_rows: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_csv(make_rows(300, skills={"llama3.1-8b": 0.8, "llama3.1-70b": 1.0}))
    energy = tmp_path / "energy.csv"
    energy.write_text(
        "model,gpu,energy_per_token_j\nLlama-3.1-8B-Instruct,H100,0.07\nLlama-3.1-70B,H100,0.4\n"
    )
    options = ["records", str(path), "--energy", str(energy), "--gpu", "H100", "--rate", "2"]
    assert main([*options, "--epsilon", "0.1", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["rows"]
    loaded = row["loaded"]
    assert row["energy_last_j"] == pytest.approx(40)  # measured: 100 tokens at 0.4 J
    assert loaded["energy_last_j"] != pytest.approx(40)
    assert loaded["ratio"] == pytest.approx(loaded["energy_last_j"] / loaded["energy_j"])
    assert main([*options, "--epsilon", "0.1"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "at 2 requests per second" in printed
    assert "llama3.1-8b as meta-llama/Llama-3.1-8B-Instruct" in printed
