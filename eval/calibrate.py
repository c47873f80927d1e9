"""`hs-calibrate`: from labelled answers to a certified policy.

`hs-calibrate records FILE` fits and certifies on recorded answers of all tiers. This file alone
prints: results to stdout, errors to stderr.
"""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from eval.calibration_report import Report, report_of
from eval.records_csv import Records, outcomes_of, read_records, tier_costs
from eval.splits import (
    DEFAULT_N_CERTIFY,
    DEFAULT_N_FIT,
    Splits,
    bootstrap_splits,
    disjoint_splits,
)
from hybridserve_llm.calibration.certify import Promise, calibrate
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.errors import ConfigError, HybridServeError

_EXIT_CONFIG, _EXIT_CANNOT = 2, 3
_TABLE_WIDTH = 80


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `hs-calibrate`; exit status 0 certified, 2 wrong usage, 3 nothing certifiable."""
    options = _parser().parse_args(arguments)
    try:
        report = _records(options)
    except HybridServeError as exc:
        print(f"hs-calibrate: error: {' '.join(str(exc).split())}", file=sys.stderr)
        return _EXIT_CONFIG if isinstance(exc, ConfigError) else _EXIT_CANNOT
    if options.json:
        print(json.dumps(report.as_json()))
    else:
        _print_report(report)
    return 0 if report.certified else _EXIT_CANNOT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hs-calibrate", description="Fit and certify when a cascade takes a small answer."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    records = commands.add_parser("records", help="from recorded answers of all tiers")
    records.add_argument("file", type=Path, help="CSV: one row per question and model")
    records.add_argument(
        "--chain", type=_names, help="the tiers, cheapest first, a,b,c; default: all, by cost"
    )
    records.add_argument("--epsilon", type=_share, default=0.02, help="greatest loss, e.g. 0.02")
    records.add_argument("--delta", type=_share, default=0.1, help="chance that it is exceeded")
    records.add_argument("--loss", choices=("net", "harm"), default="net")
    records.add_argument(
        "--cost", type=_cost, action="append", default=[], metavar="MODEL=X", help="per request"
    )
    records.add_argument("--n-fit", type=_positive, help=f"default {DEFAULT_N_FIT}")
    records.add_argument("--n-certify", type=_positive, help=f"default {DEFAULT_N_CERTIFY}")
    records.add_argument(
        "--bootstrap", action="store_true", help="draw both with replacement; test on the file"
    )
    records.add_argument("--decisions", type=Path, metavar="CSV", help="who answers each question")
    records.add_argument("--seed", type=_seed, default=0)
    records.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def _records(options: argparse.Namespace) -> Report:
    records = read_records(options.file)
    given = dict(options.cost)
    chain = _chain(records, options.chain, given)
    costs, cost_source = tier_costs(records, chain, given)
    outcomes, n_incomplete = outcomes_of(records, chain, costs)
    splits = _splits(options, outcomes)
    promise = Promise(loss=options.loss, epsilon=options.epsilon, delta=options.delta)
    calibration = calibrate(splits.fit, splits.certify, promise, seed=options.seed)
    report = report_of(
        calibration, splits, cost_source=cost_source, n_incomplete=n_incomplete, seed=options.seed
    )
    if options.decisions is not None:
        _write_decisions(options.decisions, report)
    return report


def _chain(
    records: Records, wished: tuple[str, ...] | None, given: dict[str, float]
) -> tuple[str, ...]:
    for name in given:
        if name not in records.models:
            raise ConfigError(f"--cost {name}: no such model; {', '.join(records.models)}")
    if wished is None:
        costs, _ = tier_costs(records, records.models, given)
        by_cost = dict(zip(records.models, costs, strict=True))
        wished = tuple(sorted(records.models, key=by_cost.__getitem__))
    for name in wished:
        if name not in records.models:
            raise ConfigError(f"--chain: no model {name!r}; {', '.join(records.models)}")
    if len(wished) < 2 or len(set(wished)) < len(wished):
        raise ConfigError(f"--chain {','.join(wished)}: at least two tiers, each once")
    return wished


def _splits(options: argparse.Namespace, outcomes: Outcomes) -> Splits:
    if not options.bootstrap:
        return disjoint_splits(outcomes, options.n_fit, options.n_certify, options.seed)
    return bootstrap_splits(
        outcomes,
        options.n_fit or DEFAULT_N_FIT,
        options.n_certify or DEFAULT_N_CERTIFY,
        options.seed,
    )


def _write_decisions(path: Path, report: Report) -> None:
    """One row per question of the reported set.

    Raises:
        ConfigError: The file cannot be written.
    """
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("split", "query_id", "model"))
            writer.writerows((*question, model) for question, model in report.decisions)
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc}") from exc


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def _cost(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    cost = float(value)
    if not name or not 0 < cost < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not MODEL=X with X above 0")
    return name, cost


def _print_report(report: Report) -> None:
    """The result in words and two tables, at 80 columns."""
    console = Console(width=_TABLE_WIDTH, highlight=False, markup=False)
    console.print(report.headline(), soft_wrap=False)
    tiers = Table(
        box=None, header_style="bold", title="on the test questions", title_justify="left"
    )
    for heading in ("tier", "cost", "accuracy", "answers", "asked"):
        tiers.add_column(heading, justify="left" if heading == "tier" else "right")
    for tier in report.tiers:
        tiers.add_row(
            tier.name,
            f"{tier.cost:.4g}",
            f"{tier.accuracy:.3f}",
            f"{tier.answered:.1%}",
            f"{tier.asked:.1%}",
        )
    console.print(tiers)
    chains = Table(
        box=None,
        header_style="bold",
        title="chains, as judged on the fit questions",
        title_justify="left",
    )
    chains.add_column("chain")
    chains.add_column("expected cost", justify="right")
    chains.add_column("of the last tier alone", justify="right")
    for chain in report.chains[:6]:
        chains.add_row(" > ".join(chain.tiers), f"{chain.mean_cost:.4g}", f"{chain.cost_share:.1%}")
    console.print(chains)
    for line in report.remarks():
        console.print(line, soft_wrap=False)
