"""The house stays as it is drawn: no file, function or folder grows too large, and no import runs up."""

import tomllib
from pathlib import Path

import pytest

from tests.house.graph import PACKAGES, Room, circles, full_folders, long_files, long_functions, missing_pages, rooms


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_runs_up_and_no_rooms_import_each_other_in_a_circle(package: str) -> None:
    drawn = rooms(package)
    assert {room.name: room.up for room in drawn.values() if room.up} == {}
    assert circles(drawn) == set()


def test_no_file_is_over_400_lines() -> None:
    assert list(long_files(400)) == []


def test_no_function_is_over_60_lines() -> None:
    assert list(long_functions(60)) == []


def test_no_folder_holds_more_than_14_files() -> None:
    assert list(full_folders(14)) == []


def test_every_page_that_the_code_cites_is_in_the_repository() -> None:
    assert list(missing_pages()) == []


def test_a_circle_is_seen_where_there_is_one() -> None:
    drawn = {"a": Room("a", imports={"b"}, up={"b"}), "b": Room("b", imports={"a"}, up={"a"}), "c": Room("c")}
    assert circles(drawn) == {frozenset({"a", "b"})}


def test_evaluation_may_not_import_any_room_of_the_gateway_but_the_policy() -> None:
    """The import contract lists every other room by name, so a new room must be added to it."""
    contracts = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (contract,) = [contract for contract in contracts if contract["name"].startswith("2b ")]
    assert {name.removeprefix("gateway.") for name in contract["forbidden_modules"]} == set(rooms("gateway")) - {
        "policy"
    }
