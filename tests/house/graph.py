"""The import graph of the product packages, drawn room by room: a room is a folder, or a file beside the folders."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
PACKAGES = ("gateway", "guard_runtime", "training", "evaluation", "export", "benchmarks")


_PAGE = re.compile(r"\b([A-Za-z_-]{2,}\.md)\b")
_WRITTEN = frozenset({"MANIFEST.md"})
"""Pages that a command writes beside what it makes."""


@dataclass(slots=True)
class Room:
    """A room of a package. `floor` counts from the bottom: a room stands above every room it imports.
    `up` are the rooms it imports although they import it too, directly or through others."""

    name: str
    files: int = 0
    imports: set[str] = field(default_factory=set)
    floor: int = 0
    up: set[str] = field(default_factory=set)


def rooms(package: str) -> Mapping[str, Room]:
    """The rooms of one package by name, from the imports that stand in its files."""
    graph = grimp.build_graph(package, cache_dir=None)
    found: dict[str, Room] = {}
    for module in graph.modules - {package}:
        room = found.setdefault(_room(module), Room(_room(module)))
        room.files += 1
        room.imports |= {_room(other) for other in graph.find_modules_directly_imported_by(module) if other != package}
    for room in found.values():
        room.imports.discard(room.name)
    for room in found.values():
        room.up = {other for other in room.imports if room.name in _reached(found, other)}
    _set_floors(found)
    return found


def circles(package_rooms: Mapping[str, Room]) -> set[frozenset[str]]:
    """Groups of rooms that import each other in a circle."""
    return {
        frozenset(other for other in _reached(package_rooms, room.name) if room.name in _reached(package_rooms, other))
        for room in package_rooms.values()
        if room.up
    }


def long_files(limit: int) -> Iterator[str]:
    """Every product file of more lines than `limit`."""
    for path in _product_files():
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > limit:
            yield f"{path.relative_to(ROOT)}: {lines} lines"


def long_functions(limit: int) -> Iterator[str]:
    """Every function in a product file of more lines than `limit`."""
    for path in _product_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > limit:
                    yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines"


def full_folders(limit: int) -> Iterator[str]:
    """Every folder of gateway, guard_runtime and training with more Python files than `limit`, `__init__.py` apart."""
    for package in PACKAGES:
        for folder in (ROOT / package, *(path for path in (ROOT / package).rglob("*") if path.is_dir())):
            files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
            if len(files) > limit:
                yield f"{folder.relative_to(ROOT)}: {len(files)} files"


def missing_pages() -> Iterator[str]:
    """Every page (.md) that a product file cites and that is nowhere in the repository."""
    pages = {path.name for path in ROOT.glob("*.md")}
    pages |= {path.name for folder in ("docs", "guard_runtime", "tests") for path in (ROOT / folder).rglob("*.md")}
    for path in _product_files():
        for page in _PAGE.findall(path.read_text(encoding="utf-8")):
            if page not in pages | _WRITTEN:
                yield f"{path.relative_to(ROOT)}: {page}"


def _product_files() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def _room(module: str) -> str:
    return module.split(".")[1]


def _reached(package_rooms: Mapping[str, Room], start: str) -> set[str]:
    """Every room that `start` imports, directly or through others."""
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        for other in package_rooms[waiting.pop()].imports - reached:
            reached.add(other)
            waiting.append(other)
    return reached


def _set_floors(package_rooms: Mapping[str, Room]) -> None:
    """Raises each room above those it imports, arrows up left out."""
    for _ in package_rooms:
        for room in package_rooms.values():
            below = [package_rooms[other].floor for other in room.imports - room.up]
            room.floor = max(below, default=-1) + 1
