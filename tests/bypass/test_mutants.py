"""Each defence that `python -m tests.bypass` switches off stands where it is said to stand, and so do its tests."""

import pytest

from tests.bypass.__main__ import ROOT
from tests.bypass.mutants import MUTANTS, Mutant

TESTS = "".join(path.read_text("utf-8") for path in sorted((ROOT / "tests/bypass").glob("test_*.py")))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.off)
def test_a_defence_stands_once_where_it_is_said_to_stand(mutant: Mutant) -> None:
    mutant.edit.applied((ROOT / mutant.file).read_text("utf-8"))
    for test in mutant.tests:
        assert f"def test_{test}(" in TESTS
