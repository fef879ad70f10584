"""Rows to curate and files to put them in."""

import json
from pathlib import Path
from typing import Any

from tests.evaluation import scripted
from tests.evaluation.scripted import write

__all__ = ["read", "row", "write"]


def row(name: str, prompt: str, label: str = "safe", **changes: Any) -> dict[str, Any]:
    """One prompt row in the data's shape, of silver quality."""
    return dict(scripted.row(name, prompt, label, **{"quality": "silver", **changes}))


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
