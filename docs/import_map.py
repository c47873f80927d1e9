"""Count and draw the import graph of the packages, by rooms.

    python docs/import_map.py            print rooms, arrows, circles and arrows that run up
    python docs/import_map.py --draw     also write docs/map.svg

A room is a subfolder or a top-level file of a package. An arrow runs from a room to one that it
imports; imports inside functions count. The floors come from the contracts in pyproject.toml.
"""

import argparse
import ast
import functools
import sys
import tomllib
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs/map.svg"
PACKAGES = ("eval", "launch", "hybridserve_llm", "hybridserve_llm.server")

Graph = Mapping[str, frozenset[str]]

_BOX_WIDTH, _BOX_HEIGHT, _GAP, _FLOOR_HEIGHT = 104, 30, 14, 66
_TITLE_HEIGHT, _MARGIN = 34, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomMap:
    """Hold the rooms of one package and the arrows between them.

    Attributes:
        lines: Lines of code files of each room, tests not among them.
        arrows: For each room, the rooms that it imports.
        floors: The rooms of each floor, from the top floor down.
        circles: Groups of rooms that import each other, and groups of files that do.
    """

    package: str
    lines: Mapping[str, int]
    arrows: Graph
    floors: tuple[tuple[str, ...], ...]
    circles: tuple[tuple[str, ...], ...]

    @property
    def n_arrows(self) -> int:
        """Return the number of arrows between rooms."""
        return sum(len(targets) for targets in self.arrows.values())

    @property
    def arrows_up(self) -> tuple[str, ...]:
        """List the arrows that do not run to a lower floor."""
        height = {room: -i for i, floor in enumerate(self.floors) for room in floor}
        return tuple(
            f"{room} -> {target}"
            for room, targets in sorted(self.arrows.items())
            for target in sorted(targets)
            if height.get(room, 0) <= height.get(target, 0)
        )


def room_map(package: str) -> RoomMap:
    """Read the sources of `package` and return the map of its rooms."""
    files = _modules()
    imports = _imports()
    rooms = {name: room for name in files if (room := _room_of(name, package))}
    arrows: dict[str, set[str]] = {room: set() for room in rooms.values()}
    lines = dict.fromkeys(arrows, 0)
    for name, room in rooms.items():
        lines[room] += len(files[name].read_bytes().splitlines())
        arrows[room] |= {rooms[other] for other in imports[name] if other in rooms} - {room}
    graph = {room: frozenset(targets) for room, targets in arrows.items()}
    inside = {name: frozenset(imports[name] & rooms.keys()) for name in rooms}
    return RoomMap(
        package=package,
        lines=lines,
        arrows=graph,
        floors=_floors(package),
        circles=(*circles_of(graph), *circles_of(inside)),
    )


@functools.cache
def _modules() -> dict[str, Path]:
    """Return the source file of every module of the product."""
    found = {}
    for package in ("hybridserve_llm", "launch", "eval"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def _imports() -> dict[str, set[str]]:
    """Return for every module of the product those that it imports."""
    modules = _modules()
    return {name: _imported(path, modules.keys()) for name, path in modules.items()}


def _imported(path: Path, modules: Set[str]) -> set[str]:
    """Return the modules of ours that a file imports, at its top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            known = {f"{node.module}.{alias.name}" for alias in node.names} & modules
            names |= known or {node.module}
    return names & modules


def _room_of(module: str, package: str) -> str | None:
    """Return the room that a module lies in; None outside of the package, and for its face."""
    if not module.startswith(f"{package}."):
        return None
    return module.removeprefix(f"{package}.").split(".")[0]


def _floors(package: str) -> tuple[tuple[str, ...], ...]:
    """Return the floors of a package, as its contract in pyproject.toml lists them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for contract in settings["tool"]["importlinter"]["contracts"]:
        layers = [[name.strip() for name in row.split("|")] for row in contract.get("layers", ())]
        if contract.get("containers") == [package]:
            return tuple(map(tuple, layers))
        if "containers" not in contract and package == "hybridserve_llm" and layers:
            prefix = f"{package}."
            inner = (tuple(n.removeprefix(prefix) for n in row) for row in layers)
            return (("testing",), *(row for row in inner if not {"launch", "eval"} & set(row)))
    return ()


def circles_of(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """Return the groups of nodes that reach each other (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[tuple[str, ...]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            place = stack.index(node)
            if len(group := stack[place:]) > 1:
                found.append(tuple(sorted(group)))
            del stack[place:]

    for node in graph:
        if node not in index:
            visit(node)
    return tuple(found)


def as_text(rooms: RoomMap) -> str:
    """Return the map of one package in words, from the top floor down."""
    head = (
        f"{rooms.package}: {len(rooms.lines)} rooms, {rooms.n_arrows} arrows, "
        f"{len(rooms.circles)} circles, {len(rooms.arrows_up)} arrows up"
    )
    rows = [
        f"  {room:18} {rooms.lines[room]:6,} lines -> {', '.join(sorted(rooms.arrows[room]))}"
        for floor in rooms.floors
        for room in floor
        if room in rooms.lines
    ]
    faults = [f"  circle: {' '.join(group)}" for group in rooms.circles]
    return "\n".join([head, *rows, *faults, *(f"  up: {arrow}" for arrow in rooms.arrows_up)])


def as_svg(maps: Iterable[RoomMap]) -> str:
    """Return one picture of several packages, two panels in a row."""
    drawn = [_panel(rooms) for rooms in maps]
    panels, y, right_edge = [], _MARGIN, 0
    for start in range(0, len(drawn), 2):
        row, x = drawn[start : start + 2], _MARGIN
        for picture, width, _ in row:
            panels.append(f'<g transform="translate({x},{y})">\n{picture}\n</g>')
            x += width + 3 * _MARGIN
        right_edge = max(right_edge, x)
        y += max(height for _, _, height in row) + _MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right_edge} {y}" '
            'font-family="sans-serif" font-size="12">',
            "<title>The rooms of HybridServe-LLM; every arrow is an import and runs down</title>",
            '<rect width="100%" height="100%" fill="white"/>',
            *panels,
            "</svg>\n",
        ]
    )


def _panel(rooms: RoomMap) -> tuple[str, int, int]:
    """Return the drawing of one package, with its width and height."""
    floors = [[room for room in floor if room in rooms.lines] for floor in rooms.floors]
    n_widest = max(map(len, floors))
    width = n_widest * (_BOX_WIDTH + _GAP)
    places: dict[str, tuple[float, float]] = {}
    for i, floor in enumerate(floors):
        left = (width - len(floor) * (_BOX_WIDTH + _GAP)) / 2
        for j, room in enumerate(floor):
            places[room] = (left + j * (_BOX_WIDTH + _GAP), _TITLE_HEIGHT + i * _FLOOR_HEIGHT)
    title = f"{rooms.package}/ : {len(rooms.lines)} rooms, {rooms.n_arrows} arrows"
    parts = [f'<text y="16" font-size="15" font-weight="bold">{escape(title)}</text>']
    for room, targets in sorted(rooms.arrows.items()):
        for target in sorted(targets):
            (x1, y1), (x2, y2) = places[room], places[target]
            half = _BOX_WIDTH / 2
            parts.append(
                f'<line x1="{x1 + half:g}" y1="{y1 + _BOX_HEIGHT:g}" x2="{x2 + half:g}" '
                f'y2="{y2:g}" stroke="#8aa0b8" stroke-width="1"/>'
            )
    for room, (x, y) in places.items():
        parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="5" '
            f'fill="#eef3f8" stroke="#44586e"/><text x="{x + _BOX_WIDTH / 2:g}" '
            f'y="{y + _BOX_HEIGHT / 2 + 4:g}" text-anchor="middle">{escape(room)}</text>'
        )
    return "\n".join(parts), width, _TITLE_HEIGHT + len(floors) * _FLOOR_HEIGHT


def main() -> int:
    """Print the maps, and draw them with `--draw`; return 1 where there is a circle or arrow up."""
    parser = argparse.ArgumentParser(description="Count and draw the import graph by rooms.")
    parser.add_argument("--draw", action="store_true", help="also write docs/map.svg")
    options = parser.parse_args()
    maps = [room_map(package) for package in PACKAGES]
    sys.stdout.write("\n".join(as_text(rooms) for rooms in maps) + "\n")
    if options.draw:
        PICTURE.write_text(as_svg(maps), encoding="utf-8")
    return int(any(rooms.circles or rooms.arrows_up for rooms in maps))


if __name__ == "__main__":
    sys.exit(main())
