"""Read measured runs of engines for `eval/studies/planner_fit.py`: CSV, one row a run.

A run is an engine that was kept at a batch. Runs of one model on one set of GPUs and of one task
make a curve over the batch.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.profiles.gpu_types import GpuType, gpu_type
from hybridserve_llm.profiles.known_models import known_model_facts
from hybridserve_llm.profiles.step_work import Floats

_NEEDED = ("model", "gpu", "num_gpus", "avg_batch_size", "avg_output_tokens", "output_tokens_per_s")
_NUMBERS = ("num_gpus", "avg_batch_size", "avg_output_tokens", "output_tokens_per_s")
_ENERGY = ("energy_per_token_j", "avg_power_w")
_ANY_TASK = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCurve:
    """Hold runs of one model, task and replica, batch rising; every array is [n].

    Attributes:
        model: Hub id.
        task: What was asked; runs of one task have prompts of one kind.
        batch: Mean sequences that decoded at a time.
        output_tokens: Mean per request.
        step_time_s: Mean seconds between tokens of a sequence: batch over tokens per second.
        power_w: Of each GPU; None where the file has neither power nor energy.
    """

    model: str
    task: str
    facts: ModelFacts
    gpu: GpuType
    tensor_parallel_size: int
    batch: Floats
    output_tokens: Floats
    step_time_s: Floats
    power_w: Floats | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """Hold the content of a file.

    Attributes:
        curves: All that can be used.
        skipped: By model, why its rows were not used.
        n_incomplete: Rows without a number that is needed.
    """

    curves: tuple[MeasuredCurve, ...]
    skipped: Mapping[str, str]
    n_incomplete: int

    @property
    def n_points(self) -> int:
        """Return the number of runs in all curves."""
        return sum(len(curve.batch) for curve in self.curves)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Hold one row of the file."""

    model: str
    task: str
    gpu: str
    n_gpus: int
    n_copies: int
    batch: float
    output_tokens: float
    tokens_per_s: float
    power_w: float | None


def read_measurements(path: Path) -> Measurements:
    """Read the runs in the CSV file `path`.

    Columns needed: `model` (hub id), `gpu`, `num_gpus`, `avg_batch_size`, `avg_output_tokens`,
    `output_tokens_per_s`; for energy `avg_power_w` of all GPUs together, or `energy_per_token_j`.
    Used where there: `task`, `dp`. All GPUs of a run share every layer, whether the file calls that
    tensor or expert parallelism.

    Raises:
        ConfigError: The file cannot be read, lacks a column, has a value that is not a number or
            not above 0, or holds no run that can be used.
    """
    runs: dict[tuple[str, str, str, int], list[_Run]] = defaultdict(list)
    skipped: dict[str, str] = {}
    facts: dict[str, ModelFacts | None] = {}
    n_incomplete = 0
    has_power = True
    for run in _runs(path):
        if run is None:
            n_incomplete += 1
            continue
        if run.model not in facts:
            facts[run.model] = known_model_facts(run.model)
        if (reason := _why_skipped(run, facts[run.model])) is not None:
            skipped[run.model] = reason
        else:
            has_power = has_power and run.power_w is not None
            runs[(run.model, run.task, run.gpu, run.n_gpus)].append(run)
    if not runs:
        raise ConfigError(
            f"measurements {path} hold no run that can be used"
            + "".join(f"; {model}: {reason}" for model, reason in skipped.items())
        )
    curves = tuple(
        _curve(group, known, has_power=has_power)
        for (model, *_), group in runs.items()
        if (known := facts[model]) is not None
    )
    return Measurements(curves=curves, skipped=skipped, n_incomplete=n_incomplete)


def _runs(path: Path) -> Iterator[_Run | None]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            if missing := [name for name in _NEEDED if name not in columns]:
                raise ConfigError(f"measurements {path} lack the columns {', '.join(missing)}")
            for row in reader:
                yield _run(row, f"{path}, line {reader.line_num}")
    except OSError as exc:
        raise ConfigError(f"cannot read measurements {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"measurements {path} are not UTF-8 text") from exc


def _run(row: Mapping[str, str | None], where: str) -> _Run | None:
    """Return the run of a row; None where a number that is needed was not measured."""
    values = {name: _number(row.get(name), name, where) for name in (*_NUMBERS, *_ENERGY, "dp")}
    n_gpus, batch, output, rate = (values[name] for name in _NUMBERS)
    model = (row.get("model") or "").strip()
    if not model or n_gpus is None or batch is None or output is None or rate is None:
        return None
    per_token_j = values["energy_per_token_j"]
    power = values["avg_power_w"]
    if power is None and per_token_j is not None:
        power = per_token_j * rate
    return _Run(
        model=model,
        task=(row.get("task") or _ANY_TASK).strip(),
        gpu=(row.get("gpu") or "").strip(),
        n_gpus=int(n_gpus),
        n_copies=int(values["dp"] or 1),
        batch=batch,
        output_tokens=output,
        tokens_per_s=rate,
        power_w=power,
    )


def _number(text: str | None, name: str, where: str) -> float | None:
    if text is None or not text.strip():
        return None
    try:
        value = float(text)
    except ValueError as exc:
        raise ConfigError(f"{where}: {name} is {text!r}, not a number") from exc
    if math.isnan(value):
        return None
    if not 0 < value < math.inf:
        raise ConfigError(f"{where}: {name} is {text}; it must be above 0")
    return value


def _why_skipped(run: _Run, facts: ModelFacts | None) -> str | None:
    if run.n_copies > 1:
        return "attention on copies of the data (dp above 1) is not modelled"
    if facts is None:
        return "its sizes are not in the catalogue"
    try:
        gpu_type(run.gpu)
    except ConfigError as exc:
        return str(exc)
    return None


def _curve(runs: list[_Run], facts: ModelFacts, *, has_power: bool) -> MeasuredCurve:
    ordered = sorted(runs, key=lambda run: run.batch)
    first = ordered[0]
    batch = np.array([run.batch for run in ordered])
    watts = [run.power_w / run.n_gpus for run in ordered if run.power_w is not None]
    return MeasuredCurve(
        model=first.model,
        task=first.task,
        facts=facts,
        gpu=gpu_type(first.gpu),
        tensor_parallel_size=first.n_gpus,
        batch=batch,
        output_tokens=np.array([run.output_tokens for run in ordered]),
        step_time_s=batch / np.array([run.tokens_per_s for run in ordered]),
        power_w=np.array(watts) if has_power else None,
    )
