"""Stage 2: fine-tune a guard on real rows, the hard ones where the recipe says so."""

import sys

from training.learning import stage


def main() -> int:
    """`python -m training.learning.finetune --recipe R.yaml --base DIR --rows F.jsonl --dev D.jsonl --out DIR`."""
    return stage.command(stage.parser(main.__doc__).parse_args())


if __name__ == "__main__":
    sys.exit(main())
