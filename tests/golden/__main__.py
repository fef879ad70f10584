"""`python -m tests.golden --write` plays every golden case and writes the captures anew. Read the diff before it is
committed: every line of it is a change that somebody outside can see."""

import argparse
import shutil
import sys

from tests.golden.capture import CAPTURES, Player, file_of
from tests.golden.cases import CASES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("--write", action="store_true", required=True, help="write the captures anew")
    parser.parse_args()
    with Player() as player:
        captures = {file_of(case): player.play(case) for case in CASES}
    shutil.rmtree(CAPTURES, ignore_errors=True)
    for file, capture in captures.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(capture, encoding="utf-8")
    print(f"{len(captures)} captures written to {CAPTURES}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
