"""Measure what certified policies cost and how often they break their promise, next to rivals.

    python -m eval.studies.certificate_table FILE... [--seeds 100] [--epsilon 0.01 0.02]
        [--markdown]

For each file of recorded answers (columns: `eval/recorded/records_csv.py`) and each promise, every
seed draws fit and certify rows with replacement; the whole file is the truth. A run may be cut into
pieces: `--first-seed` and `--out`, then `--merge`.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.progress import track

from eval.commands.option_values import cost, natural, positive, share
from eval.recorded.recorded_costs import costs_for, outcomes_at
from eval.recorded.records_csv import read_records
from eval.recorded.splits import DEFAULT_N_CERTIFY, DEFAULT_N_FIT
from eval.studies.certificate_page import as_markdown, as_text
from eval.studies.certificate_seeds import SeedResult, Setup, measure_seed, seed_result_from
from eval.studies.certificate_summary import repeated_seed, sections_of
from hybridserve_llm.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One seed of one file; a value that another process can be given."""

    path: Path
    costs: Mapping[str, float]
    seed: int
    setup: Setup


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, or merges what was measured, and prints; 2 on wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        results = _merged(options.files) if options.merge else _measured(options)
    except ConfigError as exc:
        sys.stderr.write(f"eval.studies.certificate_table: error: {exc}\n")
        return 2
    sections = sections_of(results)
    if options.json:
        sys.stdout.write(json.dumps([asdict(section) for section in sections]) + "\n")
    else:
        sys.stdout.write((as_markdown if options.markdown else as_text)(sections))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="eval.studies.certificate_table", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="CSV; with --merge: files of --out")
    parser.add_argument("--seeds", type=positive, default=100, help="how many")
    parser.add_argument("--first-seed", type=natural, default=0)
    parser.add_argument("--epsilon", type=share, nargs="+", default=[0.01, 0.02])
    parser.add_argument("--loss", nargs="+", choices=("net", "harm"), default=["net", "harm"])
    parser.add_argument("--delta", type=share, default=0.1)
    parser.add_argument("--n-fit", type=positive, default=DEFAULT_N_FIT)
    parser.add_argument("--n-certify", type=positive, default=DEFAULT_N_CERTIFY)
    parser.add_argument("--cost", type=cost, action="append", default=[], metavar="MODEL=X")
    parser.add_argument("--workers", type=positive, default=1, help="processes")
    parser.add_argument("--out", type=Path, metavar="JSONL", help="add each seed's figures to it")
    parser.add_argument("--merge", action="store_true", help="print the table from such files")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON list on stdout")
    form.add_argument("--markdown", action="store_true")
    return parser


def _measured(options: argparse.Namespace) -> list[SeedResult]:
    setup = Setup(
        n_fit=options.n_fit,
        n_certify=options.n_certify,
        delta=options.delta,
        losses=tuple(options.loss),
        epsilons=tuple(options.epsilon),
    )
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    priced = _priced(options.files, dict(options.cost))
    tasks = [
        Task(path=path, costs=costs, seed=seed, setup=setup)
        for path, costs in priced
        for seed in seeds
    ]
    results: list[SeedResult] = []
    done = track(
        _worked(tasks, options.workers),
        description="seeds of files",
        total=len(tasks),
        console=Console(stderr=True),
    )
    for found in done:
        results += found
        if options.out is not None:
            _append(options.out, found)
    return results


def _priced(
    paths: Sequence[Path], given: Mapping[str, float]
) -> list[tuple[Path, Mapping[str, float]]]:
    """Every file with the cost of its models.

    Raises:
        ConfigError: A cost is given for a model that no file has, or a file cannot be used.
    """
    priced = [(path, costs_for(read_records(path), given)) for path in paths]
    models = {name for _, costs in priced for name in costs}
    for name in given:
        if name not in models:
            raise ConfigError(f"--cost {name}: no such model; {', '.join(sorted(models))}")
    return [*priced]


def _worked(tasks: Sequence[Task], n_workers: int) -> Iterator[list[SeedResult]]:
    """Results in the order of `tasks`."""
    if n_workers == 1:
        yield from map(work, tasks)
        return
    with ProcessPoolExecutor(n_workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, tasks)


def work(task: Task) -> list[SeedResult]:
    """What one seed of one file gives."""
    outcomes = outcomes_at(task.path, task.costs)
    return measure_seed(outcomes, task.path.name, task.seed, task.setup)


def _append(path: Path, results: Iterable[SeedResult]) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(result.as_json()) + "\n" for result in results)
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc.strerror}") from exc


def _merged(paths: Sequence[Path]) -> list[SeedResult]:
    results = []
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            results += [seed_result_from(json.loads(line)) for line in lines]
        except OSError as exc:
            raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
        except (ValueError, TypeError, KeyError) as exc:
            raise ConfigError(f"{path} is not a file of --out: {exc}") from exc
    if repeated := repeated_seed(results):
        raise ConfigError(f"{repeated.file}: seed {repeated.seed} is there twice")
    return results


if __name__ == "__main__":
    sys.exit(main())
