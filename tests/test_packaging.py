"""What is shipped: version, programs, dependencies, and errors that all lead somewhere."""

import ast
import importlib
import inspect
import os
import re
import tomllib
from pathlib import Path

import pytest

import hybridserve_llm
from hybridserve_llm import errors
from hybridserve_llm.errors import CannotBeDone, ConfigError, HybridServeError
from hybridserve_llm.server.error_responses import STATUS

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
ERROR_CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, HybridServeError)
]


def test_the_version_is_one_and_has_its_changes_written_down() -> None:
    version = hybridserve_llm.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\]", changelog, flags=re.MULTILINE)
    assert PROJECT["version"] == version
    assert version in headings or "Unreleased" in headings


@pytest.mark.parametrize("target", sorted(PROJECT["scripts"].values()))
def test_every_program_can_be_imported(target: str) -> None:
    module, _, name = target.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_the_studies_are_not_in_the_wheel_and_nothing_shipped_needs_them() -> None:
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["exclude"] == ["/eval/studies"]
    assert (ROOT / "eval/studies").is_dir()
    shipped = [
        path
        for package in wheel["packages"]
        for path in (ROOT / package).rglob("*.py")
        if "studies" not in path.parts
    ]
    assert len(shipped) > 100
    needing: list[str] = []
    for path in shipped:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            needing += [path.name for name in names if name.startswith("eval.studies")]
    assert needing == []


def test_ci_runs_make_test_and_nothing_else() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    lines = [line for line in script.read_text(encoding="utf-8").splitlines() if line]
    commands = [line for line in lines if not line.startswith(("#", "set ", "cd "))]
    assert commands == ["exec make test"]


def test_every_dependency_has_its_reason() -> None:
    page = (ROOT / "docs/decisions/003-dependencies.md").read_text(encoding="utf-8")
    extras = PROJECT["optional-dependencies"]
    optional = (extras[name] for name in ("calibrate", "datasets", "drift", "otel"))
    named = [*PROJECT["dependencies"], *(one for extra in optional for one in extra)]
    required = {re.split(r"[<>=~! ]", name)[0] for name in named}
    explained = set(re.findall(r"^\| `([\w-]+)` ", page, flags=re.MULTILINE))
    assert explained == required


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "9. Accepting Warranty or Additional Liability." in text


def test_every_error_has_a_status_or_never_reaches_a_client() -> None:
    leaves = [cls for cls in ERROR_CLASSES if not cls.__subclasses__()]
    without = [
        cls.__name__
        for cls in leaves
        if cls not in STATUS and not issubclass(cls, ConfigError | CannotBeDone)
    ]
    assert without == []
    assert set(STATUS) <= set(leaves)


def test_the_drawn_tree_of_errors_is_the_real_one() -> None:
    real = {
        cls.__name__: None if cls is HybridServeError else cls.__bases__[0].__name__
        for cls in ERROR_CLASSES
    }
    assert drawn_parents(errors.__doc__ or "") == real


def drawn_parents(drawing: str) -> dict[str, str | None]:
    """Parent of every name in a tree drawn with ├── and └──; a level is four characters wide."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in drawing.splitlines():
        match = re.match(r"    ((?:[│ ]   )*(?:[├└]── )?)([A-Z]\w*)", line)
        if match:
            depth = len(match[1]) // 4
            path = [*path[:depth], match[2]]
            parents[match[2]] = path[-2] if depth else None
    return parents


def test_a_drawn_tree_is_read() -> None:
    drawing = """
    A
    ├── B
    │   └── C    some words
    └── D
"""
    assert drawn_parents(drawing) == {"A": None, "B": "A", "C": "B", "D": "A"}
