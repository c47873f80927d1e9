"""`hs-eval planner-fit`: fits the model of step time and power, and says how far off it is.

The constants that the product ships (`hybridserve_llm/profiles/`) are what this program fits to the
public measurements named there. docs/planner-fit.md has its figures.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from eval.studies.planner_fit_constants import Fit, fit_constants
from eval.studies.planner_fit_points import MeasuredCurve, Measurements, read_measurements
from eval.studies.planner_fit_scores import (
    Family,
    Ratios,
    after_two_points,
    by_id,
    by_shape,
    family_of,
    fitted_on,
    left_out,
    mape,
    predicted,
    read_off_tables,
)

_PREFIX: dict[Family, str] = {"dense": "", "moe": "moe_", "hybrid": "hybrid_"}
_TABLE_WIDTH = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerFit:
    """Constants of every GPU type of a file, and predictions of the runs in it.

    Attributes:
        lomo: Predictions with the model's id left out of the fit; `lomo_shape` with all models of
            its shape left out.
        two_points: `lomo`, corrected by two runs of each curve, at the runs between them.
        tables: Inner runs of each curve, read off a table of its others.
    """

    measurements: Measurements
    fits: tuple[Fit, ...]
    lomo: tuple[Ratios, ...]
    lomo_shape: tuple[Ratios, ...]
    two_points: tuple[Ratios, ...]
    tables: tuple[Ratios, ...]

    def as_json(self) -> dict[str, Any]:
        """Errors in percent, null where there is nothing to score, and the constants."""
        values: dict[str, Any] = {}
        for family, prefix in _PREFIX.items():
            for name, ratios in self._scored():
                of_family = [one for one in ratios if family_of(one.curve.facts) == family]
                values[f"{prefix}step_time_mape_{name}"] = mape(r.step_time for r in of_family)
                values[f"{prefix}energy_mape_{name}"] = mape(r.energy for r in of_family)
            values[f"{prefix}n_points"] = _n_points(self.measurements.curves, family)
        return {
            **values,
            "n_points": self.measurements.n_points,
            "dense_n_points": values["n_points"],
            "n_incomplete": self.measurements.n_incomplete,
            "models": sorted({curve.model for curve in self.measurements.curves}),
            "skipped": dict(self.measurements.skipped),
            "remarks": list(self.remarks()),
            "fits": {fit.step.gpu: asdict(fit) for fit in self.fits},
        }

    def remarks(self) -> tuple[str, ...]:
        """What a reader of the figures has to know."""
        found = []
        for fit in self.fits:
            of_gpu = [c for c in self.measurements.curves if c.gpu.name == fit.step.gpu]
            models = {by_id(curve) for curve in fitted_on(of_gpu)}
            if len(models) < 2:
                found.append(
                    f"{fit.step.gpu}: with {len(models)} model to fit on, leaving it out leaves "
                    "guesses only; its lomo is the error of guesses"
                )
        if any(curve.power_w is None for curve in self.measurements.curves):
            found.append("power and energy are missing, at least in part: no energy was scored")
        return tuple(found)

    def _scored(self) -> tuple[tuple[str, tuple[Ratios, ...]], ...]:
        return (
            ("lomo", self.lomo),
            ("2pt", self.two_points),
            ("lomo_shape", self.lomo_shape),
            ("table", self.tables),
        )


def planner_fit(path: Path) -> PlannerFit:
    """Fits the constants of every GPU type in the file `path`, and scores them.

    Raises:
        ConfigError: The file cannot be used; see `read_measurements`.
    """
    measurements = read_measurements(path)
    by_gpu: dict[str, list[MeasuredCurve]] = defaultdict(list)
    for curve in measurements.curves:
        by_gpu[curve.gpu.name].append(curve)
    fits = []
    lomo: list[Ratios] = []
    lomo_shape: list[Ratios] = []
    two_points: list[Ratios] = []
    for gpu, curves in by_gpu.items():
        full = fit_constants(fitted_on(curves), gpu=gpu)
        fits.append(full)
        pairs = left_out(curves, full, by_id)
        lomo += [predicted(curve, fit) for curve, fit in pairs]
        two_points += _known(after_two_points(curve, fit) for curve, fit in pairs)
        lomo_shape += [predicted(curve, fit) for curve, fit in left_out(curves, full, by_shape)]
    return PlannerFit(
        measurements=measurements,
        fits=tuple(fits),
        lomo=tuple(lomo),
        lomo_shape=tuple(lomo_shape),
        two_points=tuple(two_points),
        tables=_known(read_off_tables(curve) for curve in measurements.curves),
    )


def print_planner_fit(result: PlannerFit, console: Console) -> None:
    """The errors as a table of 80 columns, the constants below."""
    values = result.as_json()
    table = Table(box=None, header_style="bold", title_justify="left", title="mean error in %")
    table.add_column("models")
    for heading in ("runs", "step time", "J/token", "2 points: step time", "J/token"):
        table.add_column(heading, justify="right")
    for family, prefix in _PREFIX.items():
        if n_points := _n_points(result.measurements.curves, family):
            keys = ("step_time_mape_lomo", "energy_mape_lomo", "step_time_mape_2pt")
            cells = [_percent(values[prefix + key]) for key in (*keys, "energy_mape_2pt")]
            table.add_row(family, str(n_points), *cells)
    console.print(table)
    for fit in result.fits:
        console.print(f"constants of {fit.step.gpu}, fitted to all runs:")
        for constants in (asdict(fit.step), asdict(fit.power)):
            numbers = {name: value for name, value in constants.items() if name != "gpu"}
            console.print(
                "  " + ", ".join(f"{name} {value:.3g}" for name, value in numbers.items())
            )
    for model, reason in result.measurements.skipped.items():
        console.print(f"skipped {model}: {reason}")
    for remark in result.remarks():
        console.print(remark)


def _known(found: Iterable[Ratios | None]) -> tuple[Ratios, ...]:
    return tuple(ratios for ratios in found if ratios is not None)


def _n_points(curves: Iterable[MeasuredCurve], family: Family) -> int:
    return sum(len(curve.batch) for curve in curves if family_of(curve.facts) == family)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
