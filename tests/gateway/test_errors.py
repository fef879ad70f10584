"""The error trees drawn at the top of the error modules are those of the classes."""

import inspect
import re
from types import ModuleType

import pytest

import gateway.errors
import guard_runtime.errors

LINE = re.compile(r"^( *)[*+-] (\w+)(?: +(\d{3}))?")


def drawn(module: ModuleType) -> dict[str, tuple[str | None, int | None]]:
    """Each class of the drawing: its parent, and its status where one is given."""
    found: dict[str, tuple[str | None, int | None]] = {}
    above: list[tuple[int, str]] = []
    for line in (module.__doc__ or "").splitlines():
        if match := LINE.match(line):
            depth, name, status = len(match[1]), match[2], match[3]
            above = [(other, parent) for other, parent in above if other < depth]
            found[name] = (above[-1][1] if above else None, int(status) if status else None)
            above.append((depth, name))
    return found


@pytest.mark.parametrize("module", [gateway.errors, guard_runtime.errors], ids=lambda module: module.__name__)
def test_the_tree_at_the_top_of_the_file_is_that_of_its_classes(module: ModuleType) -> None:
    classes = {
        name: cls
        for name, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, Exception) and cls.__module__ == module.__name__
    }
    tree = drawn(module)
    parents = {name: cls.__base__.__name__ if cls.__base__ is not Exception else None for name, cls in classes.items()}
    assert {name: parent for name, (parent, _) in tree.items()} == parents
    for name, (_, status) in tree.items():
        assert status in (None, getattr(classes[name], "status", None)), name
