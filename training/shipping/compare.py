"""Guards side by side on the same rows, before calibration, with bootstrap intervals: for ablations."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from evaluation.metrics import Scored, figures
from training.data.rows import BadInput, Row, read_rows
from training.learning import model as models
from training.learning.scores import Logits, logits_of

SHOWN = ("accuracy", "macro_f1", "auroc")


def lines(sets: Mapping[str, Sequence[Row]], margins: Mapping[str, Mapping[str, Logits]]) -> Iterator[str]:
    """A table: for every set and guard, figures at p = 0.5 and AUROC, with 95 % intervals by one seed."""
    yield f"| set | rows | guard | {' | '.join(SHOWN)} |"
    yield f"|{'---|' * (3 + len(SHOWN))}"
    for name, rows in sets.items():
        unsafe = np.array([row.unsafe for row in rows])
        categories = [frozenset(row.categories) for row in rows]
        for guard, found in margins.items():
            chance = 1 / (1 + np.exp(-found[name].astype(np.float64)))
            measured = figures(Scored(unsafe, chance > 0.5, chance, categories))
            yield f"| {name} | {len(rows)} | {guard} | {' | '.join(str(measured[figure]) for figure in SHOWN)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m training.shipping.compare --guards DIR DIR --data F.jsonl ...`: a Markdown table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--guards", type=Path, required=True, nargs="+", help="folders that training wrote")
    parser.add_argument("--data", type=Path, required=True, nargs="+")
    parser.add_argument("--every", type=int, default=1, help="of each file, every so many-th row")
    parser.add_argument("--max-tokens", type=int, default=128)
    given = parser.parse_args(arguments)
    try:
        sets = {path.stem: read_rows(path)[:: given.every] for path in given.data}
        margins: dict[str, dict[str, Logits]] = {}
        for folder in given.guards:
            guard, tokenizer = models.load(folder).eval(), models.load_tokenizer(folder)
            margins[folder.name] = {
                name: logits_of(guard, tokenizer, rows, given.max_tokens)[:, 0] for name, rows in sets.items()
            }
    except BadInput as exc:
        print(exc, file=sys.stderr)
        return 2
    print("\n".join(lines(sets, margins)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
