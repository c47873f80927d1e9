"""The certificate table: its protocol, its figures and what it prints."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.recorded.recorded_costs import LIST_PRICES, costs_for, outcomes_at
from eval.recorded.records_csv import read_records
from eval.studies.certificate_page import as_markdown, as_text
from eval.studies.certificate_seeds import (
    CALIBRATED,
    CERTIFIED_WAYS,
    OURS,
    RAW,
    SeedResult,
    TableSetup,
    WayResult,
    measure_seed,
    seed_result_from,
)
from eval.studies.certificate_summary import clopper_pearson, repeated_seed, sections_of
from eval.studies.certificate_table import main
from hybridserve_llm.errors import ConfigError

Capture = pytest.CaptureFixture[str]
COSTS = {"small-1b": 1.0, "mid-8b": 8.0, "big-70b": 70.0}
FAST = ("--loss", "harm", "--epsilon", "0.05", "--n-fit", "200", "--n-certify", "400")
SETUP = TableSetup(n_fit=200, n_certify=400, delta=0.1, losses=("harm",), epsilons=(0.05,))


def result(seed: int, **ways: WayResult) -> SeedResult:
    """A seed of "f.csv" whose last tier costs 10; ways that are not told serve the last tier."""
    nothing = WayResult(cost=10.0, lost=0.0, rescued=0.0, is_settled=False)
    return SeedResult(
        file="f.csv",
        seed=seed,
        n_fit=300,
        n_certify=600,
        loss="net",
        epsilon=0.02,
        delta=0.1,
        costs={"small": 1.0, "big": 10.0},
        ways=dict.fromkeys(CERTIFIED_WAYS, nothing) | {OURS: ways["ours"], RAW: ways["raw"]},
    )


def way(cost: float, lost: float = 0.0, rescued: float = 0.0) -> WayResult:
    return WayResult(cost=cost, lost=lost, rescued=rescued, is_settled=True)


def test_a_seed_measures_every_way_on_the_whole_file(cascade_csv: Path) -> None:
    outcomes = outcomes_at(cascade_csv, COSTS)
    (found,) = measure_seed(outcomes, "cascade.csv", 0, SETUP)
    assert found.ways.keys() >= {*CERTIFIED_WAYS, "oracle", "perfect chain", "plain empirical"}
    assert found.last_cost == 70.0
    # Bounds: nothing that keeps every answer is cheaper than the oracle.
    costs = {name: each.cost for name, each in found.ways.items()}
    assert costs["oracle"] < costs["perfect chain"] < costs[OURS] < 70.0
    assert found.ways["oracle"].lost == 0.0
    assert all(0 <= each.lost <= 1 for each in found.ways.values())


def test_a_seed_can_be_repeated_and_another_differs(cascade_csv: Path) -> None:
    outcomes = outcomes_at(cascade_csv, COSTS)
    first, again, other = (measure_seed(outcomes, "f", seed, SETUP)[0] for seed in (1, 1, 2))
    assert first == again
    assert first.ways[OURS] != other.ways[OURS]
    assert first.ways["oracle"] == other.ways["oracle"]


def test_where_nothing_is_certifiable_the_last_tier_serves(cascade_csv: Path) -> None:
    # 44 questions are too few for epsilon = 0.05 and delta = 0.1 (0.95^44 = 0.105).
    few = replace(SETUP, n_certify=44)
    (found,) = measure_seed(outcomes_at(cascade_csv, COSTS), "f", 0, few)
    for name in CERTIFIED_WAYS:
        nothing = WayResult(cost=70.0, lost=0.0, rescued=0.0, is_settled=False)
        assert found.ways[name] == nothing, name


def test_a_result_survives_json(cascade_csv: Path) -> None:
    (found,) = measure_seed(outcomes_at(cascade_csv, COSTS), "f", 0, SETUP)
    assert seed_result_from(json.loads(json.dumps(found.as_json()))) == found


def test_the_figures_of_a_way() -> None:
    seeds = [
        result(0, ours=way(5.0, lost=0.01), raw=way(5.0)),
        result(1, ours=way(2.0, lost=0.03), raw=way(4.0)),
        result(2, ours=way(2.0, lost=0.03, rescued=0.02), raw=way(4.0)),
        result(3, ours=way(1.0, lost=0.02), raw=way(1.0)),
    ]
    (section,) = sections_of(seeds)
    rows = {row.way: row for row in section.rows}
    # Mean cost 10 / 4 = 2.5; ratios 2, 5, 5, 10. Net losses 0.01, 0.03, 0.01, 0.02: one above.
    assert rows[OURS].cost_ratio == pytest.approx(4.0)
    assert rows[OURS].mean_cost_ratio == pytest.approx(5.5)
    assert rows[OURS].loss == pytest.approx(0.0175)
    assert rows[OURS].violated == 0.25
    assert rows[OURS].unsettled == 0.0
    assert rows[CALIBRATED].unsettled == 1.0
    assert rows[CALIBRATED].cost_ratio == 1.0
    # log 1, log 2, log 2, log 1.
    against = section.comparisons[0]
    assert against.rival == RAW
    assert against.mean_log_ratio == pytest.approx(np.log(2) / 2)
    assert against.interval is None  # four seeds
    assert [each.rival for each in section.comparisons] == list(CERTIFIED_WAYS[1:])
    assert rows[OURS].cost_ratio_interval is None
    assert section.n_seeds == 4


def test_many_seeds_have_intervals_and_tell_which_is_dearer() -> None:
    seeds = [result(i, ours=way(5.0 + i % 2), raw=way(4.0)) for i in range(40)]
    (section,) = sections_of(seeds)
    interval = section.rows[0].cost_ratio_interval
    assert interval is not None
    # Mean cost 5.5, standard error 0.5 / sqrt(40) = 0.079: about 5.345 to 5.655.
    assert interval == pytest.approx((10 / 5.655, 10 / 5.345), abs=0.02)
    assert section.comparisons[0].is_worse
    assert not sections_of([replace_ways(seed) for seed in seeds])[0].comparisons[0].is_worse


def replace_ways(found: SeedResult) -> SeedResult:
    """The same with ours and the raw score exchanged."""
    ways = dict(found.ways)
    ways[OURS], ways[RAW] = ways[RAW], ways[OURS]
    return replace(found, ways=ways)


def test_clopper_pearson_without_hits() -> None:
    # 0 of 100: from 0 to 1 - 0.025^(1/100) = 0.0362.
    assert clopper_pearson(0, 100) == pytest.approx((0.0, 1 - 0.025 ** (1 / 100)))


def test_promises_and_files_are_kept_apart() -> None:
    first = result(0, ours=way(5.0), raw=way(5.0))
    others = [replace(first, file="g.csv"), replace(first, epsilon=0.01), replace(first, seed=1)]
    sections = sections_of([first, *others])
    assert [(each.file, each.epsilon, each.n_seeds) for each in sections] == [
        ("f.csv", 0.02, 2),
        ("g.csv", 0.02, 1),
        ("f.csv", 0.01, 1),
    ]
    assert repeated_seed([first, *others]) is None
    assert repeated_seed([first, *others, first]) is first


def test_the_text_keeps_to_80_columns_and_names_every_way() -> None:
    sections = sections_of(
        [result(i, ours=way(5.0 + i % 2, lost=0.03), raw=way(4.0)) for i in range(40)]
    )
    text = as_text(sections)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "net loss <= 0.02, delta 0.1, 40 seeds" in text
    assert "ours dearer" in text
    for name in CERTIFIED_WAYS:
        assert name in text
        assert f"| {name} |" in as_markdown(sections)


@pytest.mark.slow
def test_pieces_of_a_run_merge_to_the_whole(
    cascade_csv: Path, tmp_path: Path, capsys: Capture
) -> None:
    whole, first, second = (tmp_path / name for name in ("whole", "first", "second"))
    assert main([str(cascade_csv), *FAST, "--seeds", "2", "--out", str(whole), "--json"]) == 0
    printed = capsys.readouterr().out
    assert main([str(cascade_csv), *FAST, "--seeds", "1", "--out", str(first)]) == 0
    rest = ("--first-seed", "1", "--seeds", "1", "--workers", "2")
    assert main([str(cascade_csv), *FAST, *rest, "--out", str(second)]) == 0
    capsys.readouterr()
    assert main(["--merge", str(first), str(second), "--json"]) == 0
    assert capsys.readouterr().out == printed
    (section,) = json.loads(printed)
    assert (section["file"], section["n_seeds"]) == ("cascade.csv", 2)
    assert main(["--merge", str(first), str(whole)]) == 2
    assert "seed 0 is there twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--cost", "tiny=1"), "--cost tiny: no such model; big-70b, mid-8b, small-1b"),
        (("--cost", "small-1b=1"), "no --cost for 'mid-8b'"),
    ],
)
def test_costs_that_do_not_fit_the_file_are_refused(
    cascade_csv: Path, capsys: Capture, arguments: tuple[str, ...], said: str
) -> None:
    assert main([str(cascade_csv), *FAST, "--seeds", "1", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [("--seeds", "0"), ("--epsilon", "1"), ("--cost", "a"), ("--first-seed", "-1")]
)
def test_values_that_are_not_allowed_are_refused(
    cascade_csv: Path, capsys: Capture, wrong: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(cascade_csv), *wrong])
    assert wrong[0] in capsys.readouterr().err


def test_what_is_not_a_file_of_out_is_refused(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text('{"file": "f.csv"}\n', encoding="utf-8")
    assert main(["--merge", str(path)]) == 2
    assert "is not a file of --out" in capsys.readouterr().err
    assert main(["--merge", str(tmp_path / "missing")]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_costs_are_as_given_then_as_known_then_by_size(
    write_csv: Callable[..., Path], record: Callable[..., Any]
) -> None:
    sized = read_records(write_csv([record(0, "a-8b"), record(0, "b-1b")]))
    assert costs_for(sized, {"a-8b": 1.0, "b-1b": 2.0}) == {"a-8b": 1.0, "b-1b": 2.0}
    assert list(costs_for(sized, {}).items()) == [("b-1b", 100.0), ("a-8b", 800.0)]  # 100 tokens
    known = read_records(write_csv([record(0, "gpt-4o"), record(0, "gpt-4o-mini")]))
    assert list(costs_for(known, {})) == ["gpt-4o-mini", "gpt-4o"]
    assert costs_for(known, {"other": 1.0})["gpt-4o"] == LIST_PRICES["gpt-4o"]
    nameless = read_records(write_csv([record(0, "tiny"), record(0, "huge")]))
    with pytest.raises(ConfigError, match="does not contain a size"):
        costs_for(nameless, {})
