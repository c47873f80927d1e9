"""The shape of the code: layers, sizes, broad excepts, and the page that maps it."""

import ast
import functools
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for package in ("hybridserve_llm", "launch", "eval")
    for path in (ROOT / package).rglob("*.py")
    if "checkpoints" not in path.parts
)
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_BROAD_EXCEPTS = 2
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_sources_were_found() -> None:
    assert ROOT / "hybridserve_llm/cascade/router.py" in SOURCES
    assert ROOT / "launch/cli.py" in SOURCES


def test_import_contracts_are_kept(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    # It sets up logging anew, which would silence our loggers in the tests that follow.
    monkeypatch.setattr("logging.config.dictConfig", lambda _: None)
    status = lint_imports(config_filename="pyproject.toml", no_cache=True, no_logo=True)
    assert status == 0, capfd.readouterr().out


def test_no_file_is_over_its_limit() -> None:
    lengths = {relative(path): len(path.read_bytes().splitlines()) for path in SOURCES}
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_no_function_is_over_its_limit() -> None:
    too_long = {
        f"{relative(path)}:{node.lineno} {node.name}": n_lines
        for path in SOURCES
        for node in nodes_of(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (n_lines := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert too_long == {}


@pytest.mark.parametrize(
    ("kind", "types", "is_counted"),
    [
        ("class", (ast.ClassDef,), lambda _: True),
        (
            "function",
            (ast.FunctionDef, ast.AsyncFunctionDef),
            lambda name: name != "main" and not name.startswith("_"),
        ),
    ],
)
def test_every_name_stands_for_one_thing(
    kind: str, types: tuple[type, ...], is_counted: Callable[[str], bool]
) -> None:
    places: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, types) and is_counted(node.name):
                places.setdefault(node.name, []).append(relative(path))
    assert places
    assert {name: found for name, found in places.items() if len(found) > 1} == {}, kind


def test_no_docstring_starts_with_a_question_word() -> None:
    riddles = [
        f"{relative(path)}:{getattr(node, 'lineno', 1)} {text.splitlines()[0]}"
        for path in SOURCES
        for node in nodes_of(path)
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node))
        if re.match(r"\W*(what|whether|who|how)\b", text, re.IGNORECASE)
    ]
    assert riddles == []


def test_broad_excepts_are_counted() -> None:
    broad = [
        f"{relative(path)}:{node.lineno}"
        for path in SOURCES
        for node in nodes_of(path)
        if isinstance(node, ast.ExceptHandler) and is_broad(node)
    ]
    assert len(broad) <= MAX_BROAD_EXCEPTS, broad


def is_broad(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {name.id for name in caught if isinstance(name, ast.Name)}
    return bool(names & {"Exception", "BaseException"})


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("except Exception: pass", True),
        ("except (ValueError, BaseException): pass", True),
        ("except: pass", True),
        ("except ValueError: pass", False),
        ("except BaseExceptionGroup: pass", False),
    ],
)
def test_a_broad_except_is_recognised(statement: str, expected: bool) -> None:
    tree = ast.parse(f"try:\n    pass\n{statement}")
    (handler,) = (node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler))
    assert is_broad(handler) is expected


def test_every_folder_is_on_the_map() -> None:
    folders = {relative(path.parent) for path in SOURCES}
    assert {"hybridserve_llm/cascade", "launch/engines", "eval/judging"} <= folders
    assert sorted(name for name in folders if f"`{name}/`" not in ARCHITECTURE) == []


def test_every_path_on_the_map_exists() -> None:
    named = set(re.findall(r"`([\w./-]+(?:\.py|/))`", ARCHITECTURE))
    assert named
    assert sorted(path for path in named if not (ROOT / path).exists()) == []
