"""Fixtures of the training tests."""

from pathlib import Path

import pytest

from tests.training import tiny
from training.learning import weights


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder of tiny base weights, read from an E5S1 file."""
    source = tiny.base_file(tmp_path / "tiny.bin")
    seen = tiny.write(tmp_path / "seen.jsonl", tiny.rows(40))
    weights.write_base(source, seen, tmp_path / "base", weights.Pruning(seen=1))
    return tmp_path / "base"
