"""Stage 1: guard pre-training of base weights on many synthetic rows, every one of them."""

import sys
from pathlib import Path

from training.data.rows import BadInput
from training.learning import stage
from training.recipe import read_recipe


def main() -> int:
    """`python -m training.learning.pretrain --recipe R.yaml --base DIR --rows F.jsonl --dev D.jsonl --out DIR`."""
    given = stage.parser(main.__doc__).parse_args()
    try:
        refuse_hard(given.recipe)
    except BadInput as exc:
        print(exc, file=sys.stderr)
        return 2
    return stage.command(given)


def refuse_hard(path: Path) -> None:
    """Choosing hard rows needs a guard that already knows something."""
    if read_recipe(path).hard is not None:
        raise BadInput(f"{path}: hard: is for stage 2 (training.learning.finetune); stage 1 trains on every row")


if __name__ == "__main__":
    sys.exit(main())
