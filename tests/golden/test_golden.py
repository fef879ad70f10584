"""What a caller, an upstream and the record see of several hundred exchanges is, byte for byte, what it was."""

from collections.abc import Iterator

import pytest

from tests.golden.capture import CAPTURES, Player, file_of
from tests.golden.case import Case
from tests.golden.cases import CASES

WRITE = "If the change is meant: python -m tests.golden --write, and read the diff."


@pytest.fixture(scope="module")
def player() -> Iterator[Player]:
    with Player() as player:
        yield player


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_can_be_seen_of_an_exchange_is_what_it_was(case: Case, player: Player) -> None:
    capture = player.play(case)
    file = file_of(case)
    assert file.exists(), f"There is no capture of {case.id}. {WRITE}"
    assert capture.split("\n") == file.read_bytes().decode().split("\n"), f"{case.id} is not what it was. {WRITE}"


def test_every_capture_belongs_to_a_case() -> None:
    left_over = {file for file in CAPTURES.rglob("*") if file.is_file()} - {file_of(case) for case in CASES}
    assert not left_over, f"No case writes {sorted(map(str, left_over))}. {WRITE}"


def test_no_two_cases_have_one_name() -> None:
    assert len({case.id for case in CASES}) == len(CASES)
