"""What `hs-eval records` says: JSON, or tables of 80 columns."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from eval.recorded.loaded_energy import LoadedEnergy
from eval.recorded.measured_energy import TokenEnergies
from eval.reports.readable import points
from eval.rivals.records_draws import Draws, Spread, WayOverDraws
from eval.rivals.records_study import EpsilonFigures, Study, WayFigures
from hybridserve_llm.calibration.loss_tests import Loss


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedStudy:
    """The cascades of a study, in its order, and the last tier alone at a stated load."""

    requests_per_s: float
    sizes: str
    last: LoadedEnergy
    rows: tuple[LoadedEnergy, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsReport:
    """A study with what it was made of; `draws` is None of one, `loaded` where no load was stated.

    With several draws `study` is the first.
    """

    study: Study
    draws: Draws | None
    loaded: LoadedStudy | None
    energies: TokenEnergies
    prompt_weight: float
    loss: Loss
    delta: float
    n_fit: int
    n_certify: int
    n_test: int
    n_incomplete: int
    is_holdout: bool
    seed: int

    def assumptions(self) -> list[str]:
        """What a reader has to know of the figures, one sentence an entry."""
        lines = self.energies.assumptions()
        lines.append(
            f"A prompt token costs {self.prompt_weight:g} of an output token, whose joules hold "
            "the prompts of the measured run already: an upper estimate, as --prompt-weight 0 is a "
            "lower one. What an engine draws while it waits is not counted."
        )
        if self.is_holdout:
            drawn = "fitted, certified and tested on questions of their own"
        else:
            drawn = "fit and certify drawn with replacement, the whole file is the truth"
        lines.append(
            f"Questions: {self.n_fit} to fit, {self.n_certify} to certify, {self.n_test} to test "
            f"({drawn}; {self._seeds()})."
        )
        if self.loaded is not None:
            lines.append(
                "At a load: the GPUs of the best plan, idle or busy, and no parked ones; sizes of "
                f"{self.loaded.sizes}."
            )
        if self.n_incomplete:
            lines.append(f"Left out, not answered by every model: {self.n_incomplete} questions.")
        return lines

    def _seeds(self) -> str:
        if self.draws is None:
            return f"seed {self.seed}; one draw is noise, --seeds shows the mean of several"
        more = "; tables of what promises nothing and at a load are of the first"
        return f"seeds {self.seed} to {self.draws.seeds[-1]}{more}"

    def as_json(self) -> dict[str, Any]:
        """One JSON object; absent is null."""
        return {
            "rows": [
                {**_row_json(row), "loaded": _loaded_json(self.loaded, i)}
                for i, row in enumerate(self.study.rows)
            ],
            "draws": None if self.draws is None else asdict(self.draws),
            "fixed": [asdict(way) for way in self.study.fixed],
            "per_token": [asdict(found) for found in self.energies.of_model],
            "gpu": self.energies.gpu,
            "task": self.energies.task,
            "prompt_weight": self.prompt_weight,
            "loss": self.loss,
            "delta": self.delta,
            "n_fit": self.n_fit,
            "n_certify": self.n_certify,
            "n_test": self.n_test,
            "n_incomplete": self.n_incomplete,
            "holdout": self.is_holdout,
            "seed": self.seed,
            "assumptions": self.assumptions(),
        }


def _row_json(row: EpsilonFigures) -> dict[str, Any]:
    cascade = row.cascade
    return {
        "epsilon": row.epsilon,
        "chain": list(cascade.chain),
        "accuracy": cascade.accuracy,
        "accuracy_last": row.accuracy_last,
        "accuracy_difference": row.difference,
        "accuracy_difference_interval": row.difference_interval,
        "loss": row.loss,
        "energy_j": cascade.energy_j,
        "energy_last_j": row.energy_last_j,
        "saved_j": row.saved_j,
        "saved_j_interval": row.saved_j_interval,
        "ratio": cascade.ratio,
        "certified": cascade.certified,
        "asked": cascade.asked,
        "rivals": [asdict(way) for way in row.rivals],
        "random_at_equal_energy": asdict(row.equal_energy),
    }


def _loaded_json(loaded: LoadedStudy | None, row: int) -> dict[str, Any] | None:
    if loaded is None:
        return None
    own, last = loaded.rows[row], loaded.last
    return {
        "requests_per_s": loaded.requests_per_s,
        "energy_j": own.energy_j,
        "energy_last_j": last.energy_j,
        "ratio": last.energy_j / own.energy_j,
        "n_gpus": own.n_gpus,
        "n_gpus_last": last.n_gpus,
        "grade": own.grade,
    }


def print_records_report(report: RecordsReport, console: Console) -> None:
    """Energy at every epsilon, the other ways of answering, then the assumptions."""
    if report.draws is None:
        console.print(_certified(report))
    else:
        console.print(_over_draws(report, report.draws))
    if report.loaded is not None:
        console.print(_at_load(report.loaded, report.study))
    console.print(_others(report) if report.draws is None else _others_over_draws(report.draws))
    console.print(_fixed(report))
    for line in report.assumptions():
        console.print(line)


def _certified(report: RecordsReport) -> Table:
    last = report.study.fixed[len(report.energies.of_model) - 1]
    title = (
        f"{report.loss} loss certified at delta {report.delta:g}; {last.name}: "
        f"{100 * last.accuracy:.1f} % right, {last.energy_j:.4g} J a request"
    )
    table = _table(title, "epsilon", "chain")
    for heading in ("% right", "difference, points", "J", "ratio"):
        table.add_column(heading, justify="right")
    for row in report.study.rows:
        chain = " > ".join(row.cascade.chain)
        table.add_row(
            f"{100 * row.epsilon:g} %",
            chain if row.cascade.certified else f"nothing certified: {chain}",
            f"{100 * row.cascade.accuracy:.1f}",
            _difference(row),
            f"{row.cascade.energy_j:.4g}",
            f"{row.cascade.ratio:.2f}",
        )
    return table


def _over_draws(report: RecordsReport, draws: Draws) -> Table:
    """The cascade at every epsilon: means over the draws, with their 95 % intervals."""
    last = report.study.fixed[len(report.energies.of_model) - 1]
    title = (
        f"{report.loss} loss certified at delta {report.delta:g}, mean of {len(draws.seeds)} "
        f"draws; {last.name}: {100 * last.accuracy:.1f} % right, {last.energy_j:.4g} J a request"
    )
    table = _table(title, "epsilon")
    for heading in ("certified", "exceeded", "difference, points", "J", "ratio"):
        table.add_column(heading, justify="right")
    for row in draws.rows:
        table.add_row(
            f"{100 * row.epsilon:g} %",
            f"{100 * (row.cascade.certified or 0):.0f} %",
            f"{100 * row.exceeded:.0f} %",
            _mean(row.cascade.difference, 100),
            f"{row.cascade.energy_j.mean:.4g}",
            _mean(row.cascade.ratio),
        )
    return table


def _others_over_draws(draws: Draws) -> Table:
    """Each way at each epsilon, as "mean ratio (mean % right)"."""
    table = _table("mean ratio of joules (% right), each certified at epsilon", "way")
    for row in draws.rows:
        table.add_column(f"{100 * row.epsilon:g} %", justify="right")
    each = ((row.cascade, *row.rivals, row.equal_energy) for row in draws.rows)
    for ways in zip(*each, strict=True):
        table.add_row(ways[0].name, *(_mean_cell(way) for way in ways))
    return table


def _mean_cell(way: WayOverDraws) -> str:
    if way.certified == 0:
        return "-"
    return f"{way.ratio.mean:.2f} ({100 * way.accuracy.mean:.1f})"


def _mean(spread: Spread, unit: float = 1.0) -> str:
    """The mean with its interval, both times `unit`."""
    if spread.interval is None:
        return f"{unit * spread.mean:.2f}"
    low, high = spread.interval
    return f"{unit * spread.mean:.2f} ({unit * low:.2f} to {unit * high:.2f})"


def _at_load(loaded: LoadedStudy, study: Study) -> Table:
    last = loaded.last
    table = _table(
        f"by the planner's model at {loaded.requests_per_s:g} requests per second ({last.grade}): "
        f"last tier alone {last.energy_j:.4g} J a request on {last.n_gpus} GPUs",
        "epsilon",
    )
    for heading in ("J", "ratio", "GPUs"):
        table.add_column(heading, justify="right")
    for row, own in zip(study.rows, loaded.rows, strict=True):
        ratio = last.energy_j / own.energy_j
        epsilon = f"{100 * row.epsilon:g} %"
        table.add_row(epsilon, f"{own.energy_j:.4g}", f"{ratio:.2f}", str(own.n_gpus))
    return table


def _difference(row: EpsilonFigures) -> str:
    """In points, with its interval where there is one."""
    if row.difference_interval is None:
        return points(row.difference).removesuffix(" points")
    low, high = row.difference_interval
    return f"{100 * row.difference:.2f} ({100 * low:.2f} to {100 * high:.2f})"


def _others(report: RecordsReport) -> Table:
    """Each way at each epsilon, as "ratio (% right)"."""
    table = _table("ratio of joules (% right), each certified at epsilon", "way")
    for row in report.study.rows:
        table.add_column(f"{100 * row.epsilon:g} %", justify="right")
    for ways in zip(*(_ways(row) for row in report.study.rows), strict=True):
        table.add_row(ways[0].name, *(_cell(way) for way in ways))
    return table


def _ways(row: EpsilonFigures) -> Iterator[WayFigures]:
    yield row.cascade
    yield from row.rivals
    yield row.equal_energy


def _cell(way: WayFigures) -> str:
    return "-" if way.certified is False else f"{way.ratio:.2f} ({100 * way.accuracy:.1f})"


def _fixed(report: RecordsReport) -> Table:
    table = _table("ways that promise nothing", "way")
    for heading in ("% right", "J", "ratio"):
        table.add_column(heading, justify="right")
    for way in report.study.fixed:
        table.add_row(
            way.name, f"{100 * way.accuracy:.1f}", f"{way.energy_j:.4g}", f"{way.ratio:.2f}"
        )
    return table


def _table(title: str, *texts: str) -> Table:
    table = Table(box=None, header_style="bold", title=title, title_justify="left")
    for heading in texts:
        table.add_column(heading)
    return table
