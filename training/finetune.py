"""Stage 2: fine-tune a guard on labelled rows."""

import argparse
import sys
from pathlib import Path

from training import model as models
from training.batches import examples, sampled
from training.recipe import read_recipe
from training.rows import BadInput, read_rows
from training.scores import by_group, logits_of, table
from training.trainer import LabelLoss, Trainer


def main() -> int:
    """`python -m training.finetune --recipe R.yaml --base DIR --rows F.jsonl --dev D.jsonl --out DIR`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True, help="base weights or an earlier stage's folder")
    parser.add_argument("--rows", type=Path, required=True, nargs="+")
    parser.add_argument("--dev", type=Path, required=True, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    try:
        recipe = read_recipe(given.recipe)
        rows = [row for path in given.rows for row in read_rows(path)]
        dev = {path.stem: read_rows(path) for path in given.dev}
        guard = models.load(given.base)
        tokenizer = models.load_tokenizer(given.base)
        if recipe.layers:
            models.with_layers(guard.encoder, recipe.layers)
    except BadInput as exc:
        print(exc, file=sys.stderr)
        return 2
    chosen = sampled(rows, recipe.mix, recipe.seed)
    found = examples(tokenizer, chosen, recipe.max_tokens, recipe.mix)
    print(f"{len(chosen)} of {len(rows)} rows, {sum(len(e.tokens) for e in found)} tokens", flush=True)
    trained = Trainer(guard, recipe, given.out).train(found, LabelLoss(recipe.smoothing, recipe.category_weight))
    models.save(trained, tokenizer, given.out)
    for name, held in dev.items():
        margins = logits_of(trained, tokenizer, held, recipe.max_tokens)[:, 0]
        print(f"{name}\n{table(by_group(held, margins))}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
