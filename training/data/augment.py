"""More rows out of rows: beginnings of answers, as a stream is judged, and disguised texts of both labels."""

import argparse
import dataclasses
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random

from guard_runtime.text.normalise import normalise
from training.data.disguises import MOVES, saying, spoken
from training.data.rows import BadInput, Row, read_rows, write_rows

SAFE_PIECES = (3, 45)
"""Words of a safe answer's beginning, fewest and most; a Han character is half a word. A stream's first look is after
about 20 tokens."""

HARM_PIECES = (25, 60)
"""A harmful answer shows itself later than a safe one, and its label holds for what is shown only."""

HARM_ONCE_IN = 3
NORMALISED = 0.4
_PIECE = re.compile(r"[㐀-鿿]{2}|[^\s㐀-鿿]+|[㐀-鿿]")


def beginnings(rows: Iterable[Row], seed: int) -> Iterator[Row]:
    """The beginning of each longer safe answer, and of every third harmful one, as rows of source `beginning`."""
    for row in rows:
        chance = Random(f"{seed} {row.id}")
        if row.direction != "response" or (row.unsafe and chance.randrange(HARM_ONCE_IN)):
            continue
        fewest, most = HARM_PIECES if row.unsafe else SAFE_PIECES
        cuts = [found.end() for found in _PIECE.finditer(row.response)][fewest - 1 : most]
        if not cuts or cuts[-1] >= len(row.response):
            cuts = cuts[:-1]
        if cuts:
            text = row.response[: chance.choice(cuts)]
            yield dataclasses.replace(row, id=f"{row.id}-begin", source="beginning", response=text, weight=1.0)


def disguises(rows: Sequence[Row], count: int, seed: int) -> Iterator[Row]:
    """`count` rows of either label, each under one random move, some as serving normalises them; source `disguise`."""
    for unsafe in (True, False):
        pool = [row for row in rows if row.unsafe is unsafe]
        chance = Random(f"{seed} {unsafe}")
        for row in chance.sample(pool, min(count, len(pool))):
            text = chance.choice(MOVES)(spoken(row), chance)
            if chance.random() < NORMALISED:
                text = normalise(text).text
            if text.strip() and text != spoken(row):
                yield dataclasses.replace(saying(row, text, "disguise"), source="disguise")


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m training.data.augment --rows F.jsonl
    --out G.jsonl`: beginnings, and disguises of prompts and answers."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rows", type=Path, required=True, nargs="+")
    parser.add_argument("--disguises", type=int, default=1500, help="of each label")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        rows = list({row.id: row for path in given.rows for row in read_rows(path)}.values())
    except BadInput as exc:
        print(exc, file=sys.stderr)
        return 2
    found = [*beginnings(rows, given.seed), *disguises(rows, given.disguises, given.seed)]
    write_rows(given.out, found)
    print(f"{given.out}: {len(found)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
