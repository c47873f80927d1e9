"""Means over many draws of `hs-eval records`, and the tables that show them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.cli import main
from eval.judging.ways import Way
from eval.rivals.records_draws import draws_of_studies
from eval.rivals.records_study import EpsilonFigures, Study


def way(accuracy: float, energy_j: float, *, certified: bool | None = True) -> Way:
    return Way(
        name="cascade",
        chain=("small", "big"),
        accuracy=accuracy,
        cost=energy_j,
        ratio=100 / energy_j,
        certified=certified,
        asked={"small": 1.0, "big": 0.5},
    )


def study(accuracy: float, energy_j: float, *, certified: bool = True) -> Study:
    """The last tier is right at 0.9 of the questions and takes 100 J."""
    found = way(accuracy, energy_j, certified=certified)
    row = EpsilonFigures(
        epsilon=0.02,
        cascade=found,
        accuracy_last=0.9,
        energy_last_j=100.0,
        difference=accuracy - 0.9,
        difference_interval=None,
        loss=0.9 - accuracy,
        saved_j=100 - energy_j,
        saved_j_interval=None,
        rivals=(replace(found, name="rival"),),
        equal_energy=replace(found, certified=None),
    )
    return Study(rows=(row,), fixed=())


def test_means_and_shares_over_draws() -> None:
    # Accuracies 0.89, 0.87, 0.90 and, uncertified, 0.90: the second loses 3 points of 2 allowed.
    studies = [study(0.89, 50), study(0.87, 25), study(0.9, 50), study(0.9, 100, certified=False)]
    draws = draws_of_studies(studies, range(7, 11))
    assert draws.seeds == (7, 8, 9, 10)
    [row] = draws.rows
    assert row.exceeded == 0.25
    assert row.cascade.certified == 0.75
    assert row.cascade.spread["accuracy"].mean == pytest.approx(0.89)  # 3.56 / 4
    assert row.cascade.spread["difference"].mean == pytest.approx(-0.01)
    assert row.cascade.spread["energy_j"].mean == pytest.approx(56.25)  # 225 / 4
    # Ratios 2, 4, 2 and 1: the mean of ratios, and not the ratio of means
    assert (
        row.cascade.spread["ratio"].mean,
        row.cascade.spread["ratio"].least,
        row.cascade.spread["ratio"].most,
    ) == (2.25, 1, 4)
    assert row.cascade.spread["ratio"].interval is None  # of four draws
    assert row.equal_energy.certified is None
    assert [rival.name for rival in row.rivals] == ["rival"]


def test_five_draws_have_an_interval() -> None:
    # Joules 48, 49, 50, 51, 52: mean 50, s = sqrt(10 / 4) = 1.5811, s / sqrt(5) = 0.7071;
    # t of 4 degrees of freedom at 97.5 % is 2.7764 (any table): 50 -+ 1.9632
    draws = draws_of_studies([study(0.9, joules) for joules in range(48, 53)], range(5))
    interval = draws.rows[0].cascade.spread["energy_j"].interval
    assert interval == pytest.approx((48.0368, 51.9632), abs=1e-4)


def test_draws_that_do_not_differ_have_an_interval_of_no_width() -> None:
    draws = draws_of_studies([study(0.9, 50)] * 5, range(5))
    assert draws.rows[0].cascade.spread["ratio"].interval == (2.0, 2.0)


@pytest.fixture(scope="module")
def options(cascade_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    energy = tmp_path_factory.mktemp("energy") / "runs.csv"
    energy.write_text(
        "model,gpu,energy_per_token_j\nSmall-1B,H100,0.01\nMid-8B,H100,0.08\nBig-70B,H100,0.7\n"
    )
    chain = ["--chain", "small-1b,big-70b", "--epsilon", "0.05"]
    return ["records", str(cascade_csv), "--energy", str(energy), "--gpu", "H100", *chain]


@pytest.mark.slow
def test_the_command_draws_with_seeds_from_its_seed_on(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, Any]] = []
    for seed in ("3", "4"):
        assert main([*options, "--seed", seed, "--json"]) == 0
        single = json.loads(capsys.readouterr().out)
        assert single["draws"] is None
        rows += single["rows"]
    assert main([*options, "--seed", "3", "--seeds", "2", "--json"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert both["draws"]["seeds"] == [3, 4]
    assert both["rows"] == rows[:1]  # the first draw, as it is alone
    [drawn] = both["draws"]["rows"]
    ratios = [row["ratio"] for row in rows]
    assert drawn["cascade"]["ratio"]["mean"] == pytest.approx(sum(ratios) / 2)
    assert drawn["cascade"]["certified"] == sum(row["certified"] for row in rows) / 2
    names = [way["name"] for way in drawn["rivals"]]
    assert names == [rival["name"] for rival in rows[0]["rivals"]]
    fixed = [way["name"] for way in both["fixed"]]
    assert fixed[-2:] == ["perfect chain", "oracle"]


@pytest.mark.slow
def test_the_tables_of_many_draws_fit_80_columns(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options, "--seeds", "2"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "mean of 2 draws" in " ".join(printed.split())
    assert "seeds 0 to 1" in " ".join(printed.split())
    assert "mean ratio of joules" in printed
