"""Show what `hs-eval records` found: JSON, or tables of 80 columns."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from eval.judging.intervals import Interval
from eval.judging.ways import Way
from eval.recorded.loaded_energy import LoadedEnergy
from eval.recorded.measured_energy import TokenEnergies
from eval.rivals.records_draws import Draws, EpsilonOverDraws
from eval.rivals.records_study import EpsilonFigures, Study
from hybridserve_llm.calibration.loss_tests import Loss
from hybridserve_llm.reporting.blocks import Bullets, Table, print_blocks
from hybridserve_llm.reporting.readable import four_digits, or_dash

_SIZES = ("n_fit", "n_certify", "n_test", "n_incomplete")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedStudy:
    """Hold the cascades of a study, in its order, and the last tier alone at a stated load."""

    requests_per_s: float
    sizes: str
    last: LoadedEnergy
    rows: tuple[LoadedEnergy, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsReport:
    """Hold a study and its inputs; `draws` is None of one, `loaded` where no load was stated.

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
        """Return what a reader has to know of the figures, one sentence an entry."""
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
        """Return one JSON object; absent is null."""
        return {
            "rows": [
                {**_row_json(row), "loaded": _loaded_json(self.loaded, i)}
                for i, row in enumerate(self.study.rows)
            ],
            "draws": None if self.draws is None else self.draws.as_json(),
            "fixed": [_way_json(way) for way in self.study.fixed],
            "per_token": [asdict(found) for found in self.energies.of_model],
            "gpu": self.energies.gpu,
            "task": self.energies.task,
            "prompt_weight": self.prompt_weight,
            "loss": self.loss,
            "delta": self.delta,
            **{name: getattr(self, name) for name in _SIZES},
            "seed": self.seed,
            "holdout": self.is_holdout,
            "assumptions": self.assumptions(),
        }


def _way_json(way: Way) -> dict[str, Any]:
    fields = ("name", "chain", "accuracy", "ratio", "certified", "asked")
    return way.as_json(*fields, cost_name="energy_j")


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
        "energy_j": cascade.cost,
        "energy_last_j": row.energy_last_j,
        "saved_j": row.saved_j,
        "saved_j_interval": row.saved_j_interval,
        "ratio": cascade.ratio,
        "certified": cascade.certified,
        "asked": cascade.asked,
        "rivals": [_way_json(way) for way in row.rivals],
        "random_at_equal_energy": _way_json(row.equal_energy),
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
    """Print energy at every epsilon, the other ways of answering, then the assumptions."""
    study, draws = report.study, report.draws
    last = study.fixed[len(report.energies.of_model) - 1]
    promise = f"{report.loss} loss certified at delta {report.delta:g}"
    giant = f"{last.name}: {_right(last)} % right, {four_digits(last.cost)} J a request"
    if draws is None:
        certified = _certified(f"{promise}; {giant}", study)
    else:
        certified = _over_draws(f"{promise}, mean of {len(draws.seeds)} draws; {giant}", draws)
    at_load = [] if report.loaded is None else [_at_load(report.loaded, study)]
    others = _others("", study.rows) if draws is None else _others("mean ", draws.rows)
    print_blocks([certified, *at_load, others, _fixed(study)], console)
    print_blocks([Bullets(tuple(report.assumptions()))], console)


def _certified(caption: str, study: Study) -> Table:
    def chain(row: EpsilonFigures) -> str:
        names = " > ".join(row.cascade.chain)
        return names if row.cascade.certified else f"nothing certified: {names}"

    def difference(row: EpsilonFigures) -> str:
        return _with_range(row.difference, row.difference_interval, 100)

    return Table.of(
        study.rows,
        caption,
        {
            "epsilon": _epsilon,
            "chain": chain,
            "% right": lambda row: _right(row.cascade),
            "difference, points": difference,
            "J": lambda row: four_digits(row.cascade.cost),
            "ratio": lambda row: or_dash(row.cascade.ratio, ".2f"),
        },
    )


def _over_draws(caption: str, draws: Draws) -> Table:
    """Return the cascade at every epsilon: means over the draws, with their 95 % intervals."""

    def mean(row: EpsilonOverDraws, figure: str, unit: float = 1.0) -> str:
        spread = row.cascade.spread[figure]
        return _with_range(spread.mean, spread.interval, unit)

    return Table.of(
        draws.rows,
        caption,
        {
            "epsilon": _epsilon,
            "certified": lambda row: f"{100 * (row.cascade.certified or 0):.0f} %",
            "exceeded": lambda row: f"{100 * row.exceeded:.0f} %",
            "difference, points": lambda row: mean(row, "difference", 100),
            "J": lambda row: four_digits(row.cascade.cost),
            "ratio": lambda row: mean(row, "ratio"),
        },
    )


def _at_load(loaded: LoadedStudy, study: Study) -> Table:
    last = loaded.last
    return Table.of(
        zip(study.rows, loaded.rows, strict=True),
        f"by the planner's model at {loaded.requests_per_s:g} requests per second ({last.grade}): "
        f"last tier alone {four_digits(last.energy_j)} J a request on {last.n_gpus} GPUs",
        {
            "epsilon": lambda both: _epsilon(both[0]),
            "J": lambda both: four_digits(both[1].energy_j),
            "ratio": lambda both: f"{last.energy_j / both[1].energy_j:.2f}",
            "GPUs": lambda both: str(both[1].n_gpus),
        },
    )


def _others(which: str, rows: Sequence[EpsilonFigures | EpsilonOverDraws]) -> Table:
    """Return each way at each epsilon, as "ratio (% right)"."""
    each = zip(*((row.cascade, *row.rivals, row.equal_energy) for row in rows), strict=True)
    return Table(
        caption=f"{which}ratio of joules (% right), each certified at epsilon",
        header=("way", *map(_epsilon, rows)),
        rows=tuple((ways[0].name, *map(_ratio_and_right, ways)) for ways in each),
    )


def _ratio_and_right(way: Way) -> str:
    is_uncertified = way.certified is not None and not way.certified
    return "-" if is_uncertified else f"{or_dash(way.ratio, '.2f')} ({_right(way)})"


def _fixed(study: Study) -> Table:
    return Table.of(
        study.fixed,
        "ways that promise nothing",
        {
            "way": lambda way: way.name,
            "% right": _right,
            "J": lambda way: four_digits(way.cost),
            "ratio": lambda way: or_dash(way.ratio, ".2f"),
        },
    )


def _epsilon(row: EpsilonFigures | EpsilonOverDraws) -> str:
    return f"{100 * row.epsilon:g} %"


def _right(way: Way) -> str:
    return f"{100 * way.accuracy:.1f}"


def _with_range(value: float, interval: Interval | None, unit: float) -> str:
    """Return a value with its interval where there is one, both times `unit`."""
    shown = f"{round(unit * value, 2) + 0.0:.2f}"
    if interval is None:
        return shown
    return f"{shown} ({unit * interval[0]:.2f} to {unit * interval[1]:.2f})"
