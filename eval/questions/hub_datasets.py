"""Read the rows of a Hugging Face dataset, named by its hub id or a folder, as JSON lines.

The package `datasets` is optional and imported when a dataset is asked for: it takes seconds and
brings pandas. Code that a dataset ships is never run.
"""

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson

from hybridserve_llm.errors import CannotBeDone, ConfigError

_SAVED_MARKS = ("state.json", "dataset_dict.json")
"""Files that `save_to_disk` leaves in its folder: one for a single split, one for several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetName:
    """Name the rows to read: as `datasets.load_dataset` takes them, or a folder.

    Attributes:
        path: An id such as `openai/gsm8k`, a folder of data files, or one of `save_to_disk`.
        subset: The configuration, such as `main`; None where there is one only.
        split: Such as `test` or `test[:500]`; None where there is one only.
        revision: Commit, tag or branch on the hub; None takes the newest.
    """

    path: str
    subset: str | None = None
    split: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        parts = [self.path, self.subset, self.split, self.revision and f"at {self.revision}"]
        return "dataset " + ", ".join(filter(None, parts))


def dataset_lines(name: DatasetName) -> bytes:
    """Return the rows as JSON lines; columns that are null in a row are left out of it.

    The bytes depend on the rows alone, so their hash names the data wherever it was loaded from.

    Raises:
        ConfigError: The package is not installed; there is no such dataset, subset or split; a
            split has to be named; or a row holds what JSON cannot say, such as an image.
        CannotBeDone: The hub could not be reached, and the dataset is not in its cache.
    """
    package = _datasets_package()
    found = _loaded(package, name)
    if isinstance(found, Mapping):
        if len(found) != 1:
            raise ConfigError(
                f"{name} has the splits {', '.join(map(str, found))}; name one: --split"
            )
        (found,) = found.values()
    return _json_lines(found, name)


def _datasets_package() -> ModuleType:
    try:
        return importlib.import_module("datasets")
    except ModuleNotFoundError as exc:
        raise ConfigError(
            "--dataset needs the package datasets: pip install 'hybridserve-llm[datasets]'"
        ) from exc


def _loaded(package: ModuleType, name: DatasetName) -> Any:
    """Represent a dataset, or several by split."""
    try:
        if any((Path(name.path) / mark).is_file() for mark in _SAVED_MARKS):
            return _saved(package, name)
        return package.load_dataset(
            name.path, name.subset, split=name.split, revision=name.revision
        )
    except (FileNotFoundError, ValueError, package.exceptions.DatasetsError) as exc:
        raise ConfigError(f"{name}: {_first_line(exc)}") from exc
    except OSError as exc:  # connections, the hub's own errors, disks
        raise CannotBeDone(f"{name}: {_first_line(exc)}") from exc


def _saved(package: ModuleType, name: DatasetName) -> Any:
    """Read what `save_to_disk` wrote, of which a split can be named, and nothing else."""
    if name.subset or name.revision:
        raise ConfigError(f"{name}: a saved dataset has neither subsets nor revisions")
    found = package.load_from_disk(name.path)
    if name.split is None:
        return found
    there = list(found) if isinstance(found, Mapping) else [str(found.split)]
    if name.split not in there:
        raise ConfigError(f"{name}: no such split; there: {', '.join(there)}")
    return found[name.split] if isinstance(found, Mapping) else found


def _json_lines(rows: Iterable[Mapping[str, Any]], name: DatasetName) -> bytes:
    lines = []
    for number, row in enumerate(rows, start=1):
        known = {column: value for column, value in row.items() if value is not None}
        try:
            lines.append(orjson.dumps(known))
        except orjson.JSONEncodeError as exc:
            raise ConfigError(f"{name}, row {number} cannot be written as JSON: {exc}") from exc
    return b"".join(line + b"\n" for line in lines)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
