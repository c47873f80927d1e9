"""Read a YAML file into one frozen `CascadeConfig`.

It is the only file of this package that reads the disk, apart from `certificate.py`.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.files import read_text


def load_config(path: Path) -> CascadeConfig:
    """Read the configuration in the YAML file `path`.

    A tier's `model` that begins with `./` or `../` is taken relative to the file's folder, as are
    a tier's `profiles`, `certificate`, `server.api_keys_file`, `launch.run_folder`,
    `watch.state_file` and `records.file` when they are not absolute.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or a value is not allowed; the message
            names the key, the value and what is allowed.
    """
    text = read_text(path, name=f"config file {path}")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping with the key 'tiers', not {values!r:.60}")
    return parse_config(_with_absolute_paths(values, path.resolve().parent), source=str(path))


def parse_config(values: dict[str, Any], *, source: str) -> CascadeConfig:
    """Return the configuration in decoded `values`; `source` names their origin in errors.

    Raises:
        ConfigError: As in `load_config`; one line that names every fault.
    """
    try:
        return CascadeConfig.model_validate(values)
    except ValidationError as exc:
        faults = [_fault_text(fault) for fault in exc.errors() if not _is_miscounted(fault)]
        raise ConfigError(f"{source}: {'; '.join(faults)}") from exc


def _is_miscounted(fault: Any) -> bool:
    """Return True for a list that is too short only because pydantic left out its bad entries."""
    if fault["type"] != "too_short":
        return False
    return bool(len(fault["input"]) >= fault["ctx"]["min_length"])


def _fault_text(error: Any) -> str:
    """Return one fault of pydantic as the key, its value where that is short, and the message."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "too_short":
        n_given, n_needed = len(error["input"]), error["ctx"]["min_length"]
        given = f"{n_given} {'is' if n_given == 1 else 'are'} given"
        if where == "tiers":
            return f"a cascade needs at least {n_needed} tiers; {given}"
        return (
            f"{where} needs at least {n_needed} {'entry' if n_needed == 1 else 'entries'}; {given}"
        )
    if error["type"] == "extra_forbidden":
        return f"unknown key {where!r}"
    if error["type"] == "missing":
        return f"missing key {where!r}"
    message = error["msg"].removeprefix("Value error, ")
    if not where or isinstance(error["input"], dict):
        return f"{where}: {message}" if where else message
    return f"{where} = {error['input']!r}: {message}"


_PATHS = (
    ("certificate", "file"),
    ("server", "api_keys_file"),
    ("launch", "run_folder"),
    ("watch", "state_file"),
    ("records", "file"),
)


def _with_absolute_paths(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    resolved = dict(values)
    tiers = values.get("tiers")
    if isinstance(tiers, list):
        resolved["tiers"] = [_tier_with_absolute_paths(tier, folder) for tier in tiers]
    if isinstance(values.get("certificate"), str):
        resolved["certificate"] = {"file": str((folder / values["certificate"]).resolve())}
    for section, key in _PATHS:
        part = resolved.get(section)
        if isinstance(part, dict) and isinstance(part.get(key), str):
            resolved[section] = {**part, key: str(folder / part[key])}
    return resolved


def _tier_with_absolute_paths(tier: Any, folder: Path) -> Any:
    if not isinstance(tier, dict):
        return tier
    resolved = dict(tier)
    if str(tier.get("model", "")).startswith(("./", "../")):
        resolved["model"] = str((folder / tier["model"]).resolve())
    profiles = tier.get("profiles")
    if isinstance(profiles, list):
        resolved["profiles"] = [
            str(folder / path) if isinstance(path, str) else path for path in profiles
        ]
    return resolved
