"""The page of faults names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

from tests.docs.pages import LANGUAGES, ROOT

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_fault_names_tests_that_exist(language: str) -> None:
    page = (ROOT / "docs" / language / "reference" / "faults.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if "`tests/" in line and line.startswith("|")]
    named = {(path, name) for row in rows for path, name in NAMED.findall(row)}
    assert {f"| {letter} " for letter in "ABCDEFGHIJKLMNR"} <= {row[:4] for row in rows}
    missing = sorted((path, name) for path, name in named if name not in _functions(ROOT / path))
    assert not missing


def _functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
