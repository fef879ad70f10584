"""The example of guard_runtime as a library runs, and prints what the page says it prints."""

import re
import subprocess
import sys

import pytest

from tests.docs.pages import LANGUAGES, ROOT, blocks

NUMBER = re.compile(r"0\.\d+")
"""A score is the shipped guard's own, and another version may give another one."""


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_example_runs_and_prints_what_the_page_says(language: str) -> None:
    example, output = blocks(ROOT / "docs" / language / "explanation" / "library.md")
    ran = subprocess.run(
        [sys.executable, "-c", example.text], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert NUMBER.sub("SCORE", ran.stdout) == NUMBER.sub("SCORE", output.text)
