"""Switches each defence off in a copy of the tree, sees that its tests fail, and prints the table of README.md.

python -m tests.bypass [WORD ...]: all, or those whose description has one of the words in it.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bypass.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
COPIED = ("gateway", "guard_runtime", "tests", "pyproject.toml", "policies", "config.yaml")


def main(words: Sequence[str]) -> int:
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.off for word in words)]
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in COPIED:
            _copy(ROOT / name, tree / name)
        for mutant in chosen:
            for test in mutant.tests:
                failed = _fails(mutant, test, tree)
                survived += not failed
                verdict = "fails" if failed else "PASSES"
                sys.stdout.write(f"| `{test}` | {mutant.off} | `{mutant.file}` | {verdict} |\n")
                sys.stdout.flush()
    return survived


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    else:
        shutil.copy(source, target)


def _fails(mutant: Mutant, test: str, tree: Path) -> bool:
    """Whether the test, which passes as things are, fails with the defence off: by an assertion or a missed wait, not
    because there is no such test."""
    file = tree / mutant.file
    source = file.read_text(encoding="utf-8")
    file.write_text(mutant.edit.applied(source), encoding="utf-8")
    try:
        options = ("-x", "-q", "-p", "no:cacheprovider")
        command = [sys.executable, "-m", "pytest", *options, "tests/bypass", "-k", _only(test)]
        done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=600, check=False)
    finally:
        file.write_text(source, encoding="utf-8")
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{mutant.off}: {done.stdout[-2000:]}")
    return done.returncode == 1


def _only(test: str) -> str:
    """pytest's -k matches inside names: no other test's name may begin with this one's."""
    longer = {other for mutant in MUTANTS for other in mutant.tests if other.startswith(test) and other != test}
    return " and not ".join((f"test_{test}", *sorted(longer)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
