"""A mutant's line is looked for in the function that it names, and nowhere else."""

import pytest

from tests.support.source_edit import SourceEdit

SOURCE = """LIMIT = 1


def first() -> int:
    return 1


class Box:
    size = 1

    async def first(self) -> int:
        return 1
"""


def test_only_the_named_function_is_changed() -> None:
    assert SourceEdit("first", "return 1", "return 2").applied(SOURCE) == SOURCE.replace("return 1", "return 2", 1)
    changed = SourceEdit("Box.first", "return 1", "return 2").applied(SOURCE)
    assert changed.endswith("        return 2\n")
    assert changed.count("return 1") == 1


def test_a_class_and_the_file_are_searched_as_a_whole() -> None:
    assert "size = 2" in SourceEdit("Box", "size = 1", "size = 2").applied(SOURCE)
    assert SourceEdit("", "LIMIT = 1", "LIMIT = 2").applied(SOURCE).startswith("LIMIT = 2")


@pytest.mark.parametrize(
    ("function", "old", "message"),
    [
        ("first", "LIMIT", "stands 0 times in first"),
        ("", "return 1", "stands 2 times in the file"),
        ("Box.second", "return 1", r"there is no Box\.second"),
        ("LIMIT", "1", "there is no LIMIT"),
    ],
)
def test_a_line_that_has_moved_says_where_it_was_looked_for(function: str, old: str, message: str) -> None:
    with pytest.raises(LookupError, match=message):
        SourceEdit(function, old, "").applied(SOURCE)
