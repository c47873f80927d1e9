"""The rooms of the packages and the imports between them, as `make map` counts and draws them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
BOUNDS = {"eval": (13, 45), "launch": (11, 22), "hybridserve_llm.server": (14, 26)}
"""At most so many rooms and arrows. A decision record raises a bound, and nothing else does."""
MAX_WORDS = 900


@pytest.fixture(scope="module")
def import_map() -> ModuleType:
    spec = importlib.util.spec_from_file_location("import_map", ROOT / "docs/import_map.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("package", BOUNDS)
def test_rooms_and_arrows_are_within_their_bounds(import_map: ModuleType, package: str) -> None:
    rooms = import_map.room_map(package)
    most_rooms, most_arrows = BOUNDS[package]
    assert 1 < len(rooms.lines) <= most_rooms
    assert 1 < rooms.n_arrows <= most_arrows


def test_no_import_runs_in_a_circle_or_up(import_map: ModuleType) -> None:
    for package in import_map.PACKAGES:
        rooms = import_map.room_map(package)
        assert rooms.circles == (), package
        assert rooms.arrows_up == (), package
        on_floors = {room for floor in rooms.floors for room in floor}
        assert set(rooms.lines) <= on_floors, package


def test_circles_are_found(import_map: ModuleType) -> None:
    graph = {
        "a": frozenset({"b"}),
        "b": frozenset({"c"}),
        "c": frozenset({"a", "d"}),
        "d": frozenset(),
    }
    assert import_map.circles_of(graph) == (("a", "b", "c"),)


def test_an_arrow_up_is_found(import_map: ModuleType) -> None:
    rooms = import_map.RoomMap(
        package="p",
        lines={"roof": 1, "ground": 1, "cellar": 1},
        arrows={
            "roof": frozenset({"ground"}),
            "ground": frozenset({"roof"}),
            "cellar": frozenset({"ground"}),
        },
        floors=(("roof",), ("ground", "cellar")),
        circles=(),
    )
    assert rooms.arrows_up == ("cellar -> ground", "ground -> roof")


def test_the_picture_is_as_the_code_is(import_map: ModuleType) -> None:
    drawn = import_map.as_svg([import_map.room_map(name) for name in import_map.PACKAGES])
    assert import_map.PICTURE.read_text(encoding="utf-8") == drawn, "run: make map"


def test_the_architecture_page_can_be_read_in_five_minutes() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert "](map.svg)" in page
    assert len(page.split()) <= MAX_WORDS
