"""A training stage: rows in, a guard folder out, figures on dev printed. Pre-training and fine-tuning are stages."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import reduce
from tokenizers import Tokenizer
from torch import Tensor

from training.data.rows import BadInput, Row, read_rows
from training.learning import model as models
from training.learning.batches import collate, examples, passes, sampled
from training.learning.distil import student
from training.learning.model import GuardModel, pooled
from training.learning.scores import TOKENS_PER_PASS, by_group, logits_of, table
from training.learning.trainer import LabelLoss, Trainer, processes
from training.recipe import Hard, Recipe, read_recipe


@dataclass(frozen=True, slots=True)
class Stage:
    """A recipe, the guard or base weights to start from, and the folder for the result (and its checkpoints)."""

    recipe: Recipe
    base: Path
    out: Path


def run(stage: Stage, rows: Sequence[Row]) -> GuardModel:
    """Train on `rows` and save; where the recipe says `hard`, only rows that are hard for the starting guard (and some
    easy ones). An interrupted stage continues from its checkpoint."""
    recipe = stage.recipe
    tokenizer = models.load_tokenizer(stage.base)
    chosen = sampled(rows, recipe.mix, recipe.seed)
    guard = student(models.load(stage.base), tokenizer, chosen, recipe)
    if recipe.hard is not None:
        chosen = hardest(guard, tokenizer, chosen, recipe)
    found = examples(tokenizer, chosen, recipe.max_tokens, recipe.mix)
    print(f"{stage.out}: {len(chosen)} of {len(rows)} rows, {sum(len(e.tokens) for e in found)} tokens", flush=True)
    trained = Trainer(guard, recipe, stage.out).train(found, LabelLoss(recipe.smoothing, recipe.category_weight))
    if processes().is_main_process:
        models.save(trained, tokenizer, stage.out)
    return trained


def hardest(guard: GuardModel, tokenizer: Tokenizer, rows: Sequence[Row], recipe: Recipe) -> list[Row]:
    """The hardest share of the rows, and an even sample of the easy rest, in the old order."""
    hard = recipe.hard or Hard()
    order = difficulty(guard, tokenizer, rows, recipe, hard).argsort(descending=True).tolist()
    cut = round(hard.share * len(order))
    generator = torch.Generator().manual_seed(recipe.seed)
    easy = torch.randperm(len(order) - cut, generator=generator)[: round(hard.easy * (len(order) - cut))]
    kept = sorted(order[:cut] + [order[cut + i] for i in easy.tolist()])
    return [rows[i] for i in kept]


def difficulty(guard: GuardModel, tokenizer: Tokenizer, rows: Sequence[Row], recipe: Recipe, hard: Hard) -> Tensor:
    """How far dropout passes over the pooled state disagree, plus how far they are from the label, up to undecided:
    rows that are surely wrong are often wrongly labelled. Processes share the work.
    """
    out, process = torch.zeros(len(rows)), processes()
    generator = torch.Generator().manual_seed(recipe.seed)
    guard.eval()
    with torch.inference_mode():
        groups = list(passes(examples(tokenizer, rows, recipe.max_tokens // 2, recipe.mix), TOKENS_PER_PASS))
        for group in groups[process.process_index :: process.num_processes]:
            batch = collate(group)
            state = pooled(guard.encoder(batch.input_ids, batch.attention_mask).last_hidden_state, batch.attention_mask)
            masks = torch.rand(hard.passes, *state.shape, generator=generator) >= hard.dropout
            chances = torch.sigmoid(guard.head(state * masks / (1 - hard.dropout))[..., 0])
            out[batch.indices] = chances.std(0) + (chances.mean(0) - batch.targets[:, 0]).abs().clamp(max=0.5)
    shared: Tensor = reduce(out, "sum")
    return shared


def parser(description: str | None) -> argparse.ArgumentParser:
    """The switches every stage takes."""
    found = argparse.ArgumentParser(description=description)
    found.add_argument("--recipe", type=Path, required=True)
    found.add_argument("--base", type=Path, required=True, help="base weights, or an earlier stage's folder")
    found.add_argument("--rows", type=Path, required=True, nargs="+")
    found.add_argument("--dev", type=Path, default=[], nargs="*")
    found.add_argument("--out", type=Path, required=True)
    return found


def command(given: argparse.Namespace) -> int:
    """Run a stage from its switches. 0 when done, 2 when what was given is wrong."""
    try:
        recipe = read_recipe(given.recipe)
        rows = [row for path in given.rows for row in read_rows(path)]
        dev = {path.stem: read_rows(path) for path in given.dev}
        trained = run(Stage(recipe, given.base, given.out), rows)
    except BadInput as exc:
        print(exc, file=sys.stderr)
        return 2
    tokenizer = models.load_tokenizer(given.base)
    if not processes().is_main_process:
        return 0
    for name, held in dev.items():
        margins = logits_of(trained, tokenizer, held, recipe.max_tokens)[:, 0]
        print(f"{name}\n{table(by_group(held, margins))}", flush=True)
    return 0
