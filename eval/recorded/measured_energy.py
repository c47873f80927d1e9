"""Read joules per token of models from measured runs of engines: CSV, one row a run.

Columns needed: `model`, `gpu` and `energy_per_token_j` (or `avg_power_w` of all GPUs together and
`output_tokens_per_s`). Used where there: `active_params_b`, `params_b`, `task`, `avg_batch_size`.
A model that was not measured is read off a line through the dense models that were. A model's
figure is that of its best run: an engine that is as busy as it was ever measured. What an engine
costs at a given load is another question, which the planner's model answers
(`loaded_energy.py`).
"""

import csv
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.recorded.model_names import active_billions, same_model
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.profiles.gpu_types import gpu_type

_NEEDED = ("model", "gpu")
_ENERGY = ("energy_per_token_j", "avg_power_w", "output_tokens_per_s")
_ANY_TASK = "any"
_FEWEST_TO_FIT = 2
_MEMORY = re.compile(r"[-_ ]?\d+ ?gb$")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyRun:
    """Hold one measured run, with joules for each output token; None is what the file leaves out.

    `batch` is the mean number of sequences that decoded at a time.
    """

    model: str
    gpu: str
    task: str
    active_params_b: float | None
    params_b: float | None
    batch: float | None
    per_token_j: float

    @property
    def is_dense(self) -> bool:
        """Return True where all its parameters take part in every token."""
        return self.active_params_b is not None and self.active_params_b == self.params_b


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEnergy:
    """Hold the joules of one output token of `model`, and in words where they come from."""

    model: str
    per_token_j: float
    is_measured: bool
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEnergies:
    """Hold joules per token of models, in the order asked for, of one GPU type and one task."""

    gpu: str
    task: str
    of_model: tuple[TokenEnergy, ...]

    def assumptions(self) -> list[str]:
        """Return what was taken for granted, one sentence an entry."""
        lines = [f"Joules per output token on {self.gpu}, task {self.task}, best measured run."]
        return lines + [f"{found.model}: {found.source}." for found in self.of_model]


def read_energy_runs(path: Path) -> list[EnergyRun]:
    """Return the runs in `path` whose energy is known.

    Raises:
        ConfigError: The file cannot be read, lacks a column, or has a value that is not a number
            above 0.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            missing = [name for name in _NEEDED if name not in columns]
            if _ENERGY[0] not in columns and not set(_ENERGY[1:]) <= set(columns):
                missing.append(f"{_ENERGY[0]} (or {_ENERGY[1]} and {_ENERGY[2]})")
            if missing:
                raise ConfigError(f"measurements {path} lack the columns {', '.join(missing)}")
            runs = [_run(row, f"{path}, line {reader.line_num}") for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise ConfigError(f"cannot read measurements {path}: {exc}") from exc
    return [run for run in runs if run is not None]


def _run(row: Mapping[str, str | None], where: str) -> EnergyRun | None:
    per_token_j, watts, rate = (_number(row, name, where) for name in _ENERGY)
    if per_token_j is None and watts is not None and rate is not None:
        per_token_j = watts / rate
    model = (row.get("model") or "").strip()
    if per_token_j is None or not model:
        return None
    return EnergyRun(
        model=model,
        gpu=(row.get("gpu") or "").strip(),
        task=(row.get("task") or _ANY_TASK).strip(),
        active_params_b=_number(row, "active_params_b", where),
        params_b=_number(row, "params_b", where),
        batch=_number(row, "avg_batch_size", where),
        per_token_j=per_token_j,
    )


def _number(row: Mapping[str, str | None], name: str, where: str) -> float | None:
    """Return the column's number above 0; None where the column or its value is missing."""
    text = (row.get(name) or "").strip()
    if not text or text.lower() == "nan":
        return None
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{where}: {name} is {text!r}, not a number") from None
    if not 0 < value < math.inf:
        raise ConfigError(f"{where}: {name} is {text}; it must be above 0")
    return value


def token_energies(
    runs: Sequence[EnergyRun],
    models: Sequence[str],
    *,
    gpu: str,
    task: str | None,
    sizes_b: Mapping[str, float],
) -> TokenEnergies:
    """Return joules per output token of every one of `models` on `gpu`.

    Args:
        runs: What was measured.
        models: Names as records have them (`llama3.1-8b`); versions and sizes are compared.
        gpu: Type of GPU, as the file writes it or as the catalogue of GPU types knows it.
        task: Task of the runs; None takes the one that most of `models` were measured on, and of
            several the one that most dense models were.
        sizes_b: Active parameters in 1e9 of models whose names do not say them.

    Raises:
        ConfigError: No run is of this GPU or task; a size is not known; or too few dense models
            were measured to estimate those that were not.
    """
    on_gpu = [run for run in runs if _same_gpu(run.gpu, gpu)]
    if not on_gpu:
        there = ", ".join(sorted({run.gpu for run in runs})) or "nothing"
        raise ConfigError(f"--gpu {gpu}: the measurements are of {there}")
    chosen = task if task is not None else _task_of_most(on_gpu, models)
    of_task = [run for run in on_gpu if run.task == chosen]
    if not of_task:
        tasks = ", ".join(sorted({run.task for run in on_gpu}))
        raise ConfigError(f"--task {chosen}: the measurements are of {tasks}")
    return TokenEnergies(
        gpu=gpu,
        task=chosen,
        of_model=tuple(_of_model(of_task, name, sizes_b) for name in models),
    )


def _task_of_most(runs: Sequence[EnergyRun], models: Sequence[str]) -> str:
    """Return the task that most of `models` were measured on; of several, most dense models.

    Those that were not measured are read off the line through the dense ones.
    """
    measured, dense = Counter[str](), Counter[str]()
    for name in models:
        measured.update({run.task for run in runs if same_model(run.model, name)})
    dense.update(task for task, _ in {(run.task, run.model) for run in runs if run.is_dense})
    tasks = dict.fromkeys(run.task for run in runs)
    return max(tasks, key=lambda task: (measured[task], dense[task]))


def _of_model(runs: Sequence[EnergyRun], name: str, sizes_b: Mapping[str, float]) -> TokenEnergy:
    own = [run for run in runs if same_model(run.model, name)]
    if own:
        best = min(own, key=lambda run: run.per_token_j)
        batch = "" if best.batch is None else f" at a mean batch of {best.batch:.0f}"
        return TokenEnergy(
            model=name,
            per_token_j=best.per_token_j,
            is_measured=True,
            source=f"{best.per_token_j:.4g} J, measured as {best.model}{batch}",
        )
    size_b = sizes_b.get(name, active_billions(name))
    if size_b is None:
        raise ConfigError(
            f"{name!r} was not measured, and its name does not contain a size like 8b; give its "
            f"active parameters, --active-parameters {name}=8 for 8 billion, or leave it out of "
            "--chain"
        )
    return _from_others(runs, name, size_b)


def _from_others(runs: Sequence[EnergyRun], name: str, size_b: float) -> TokenEnergy:
    """Return a point of the straight line of log joules over log active parameters.

    The line is fitted to dense models.

    A mixture of experts reads more weights than it computes with, so its tokens cost more than its
    active parameters suggest: it takes no part in the fit.
    """
    best: dict[tuple[str, float], float] = {}
    for run in runs:
        if run.is_dense and run.active_params_b is not None:
            key = (run.model, run.active_params_b)
            best[key] = min(best.get(key, math.inf), run.per_token_j)
    sizes = np.array([size for _, size in best])
    if len(set(sizes)) < _FEWEST_TO_FIT:
        raise ConfigError(
            f"{name!r} was not measured, and {len(set(sizes))} sizes of dense models are too few "
            f"to estimate it from; needed: {_FEWEST_TO_FIT}, with active_params_b and params_b"
        )
    slope, intercept = np.polyfit(np.log(sizes), np.log(list(best.values())), 1)
    per_token_j = float(np.exp(intercept + slope * math.log(size_b)))
    inside = sizes.min() <= size_b <= sizes.max()
    how = "interpolated" if inside else "extrapolated"
    return TokenEnergy(
        model=name,
        per_token_j=per_token_j,
        is_measured=False,
        source=f"{per_token_j:.4g} J, not measured: {how} to {size_b:g}e9 active parameters from "
        f"{len(best)} dense models of {sizes.min():g}e9 to {sizes.max():g}e9, as their power "
        f"{slope:.2f}",
    )


def _same_gpu(one: str, other: str) -> bool:
    """Return True for equal names, memory sizes aside, or names of one type of the catalogue."""
    if _MEMORY.sub("", one.casefold()) == _MEMORY.sub("", other.casefold()):
        return True
    try:
        return gpu_type(one) == gpu_type(other)
    except ConfigError:
        return False
