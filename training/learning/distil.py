"""Distillation: a narrower, shallower student learns the teacher's logits and pooled states beside the labels."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate.utils import reduce
from tokenizers import Tokenizer
from torch import Tensor, nn
from tqdm import tqdm

from training.data.rows import BadInput, Row, read_rows
from training.learning import model as models
from training.learning.batches import Batch, Example, collate, examples, passes, sampled
from training.learning.frame import Frame, add_sources
from training.learning.model import GuardModel
from training.learning.scores import TOKENS_PER_PASS, by_group, logits_of, table
from training.learning.trainer import LabelLoss, Trainer, processes
from training.recipe import Matching, Recipe, read_recipe

IMPORTANCE_ROWS = 400


@dataclass(frozen=True, slots=True)
class Lesson:
    """The teachers' answers: logits [rows, 9] and pooled states [rows, matched layers, hidden], half precision; and
    which rows are taught, 1 or 0 [rows]."""

    logits: Tensor
    states: Tensor
    taught: Tensor


@dataclass(frozen=True, slots=True)
class DistilLoss:
    """Each row's loss against labels, teacher logits (softened by temperature) and teacher states (cosine)."""

    labels: LabelLoss
    lesson: Lesson
    matching: Matching

    def __call__(self, model: GuardModel, batch: Batch) -> Tensor:
        """float [rows], weighted."""
        reading = model.read(batch.input_ids, batch.attention_mask)
        soft = torch.sigmoid(self.lesson.logits[batch.indices.cpu()].float() / self.matching.temperature)
        soft = soft.to(reading.logits.device)
        logits = nn.functional.binary_cross_entropy_with_logits(
            reading.logits / self.matching.temperature, soft, reduction="none"
        )
        taught = self.lesson.states[batch.indices.cpu()].float().to(reading.logits.device)
        seen = torch.stack(reading.states[1:], 1)
        states = (1 - nn.functional.cosine_similarity(seen, taught, dim=-1)).mean(1)
        matched = (logits[:, 0] + logits[:, 1:].mean(1)) * self.matching.temperature**2 * self.matching.logits
        listens = self.lesson.taught[batch.indices.cpu()].to(reading.logits.device)
        total: Tensor = (matched + states * self.matching.states) * batch.weights * listens
        return total + (1 - listens * (1 - self.matching.labels)) * self.labels.of(reading.logits, batch)


def lesson(
    teachers: Sequence[GuardModel], found: Sequence[Example], depth: int, taught: Sequence[bool] | None = None
) -> Lesson:
    """What the teachers say of every example, in the mean; `depth` states of the first one, evenly spaced over its
    layers, the last one included. Processes share the work."""
    listens = torch.ones(len(found)) if taught is None else torch.tensor(taught, dtype=torch.float32)
    layers = teachers[0].encoder.config.num_hidden_layers
    matched = [round((i + 1) * layers / depth) for i in range(depth)]
    hidden = teachers[0].encoder.config.hidden_size
    logits = torch.zeros(len(found), teachers[0].head.out_features)
    states = torch.zeros(len(found), depth, hidden)
    process = processes()
    groups = list(passes(found, TOKENS_PER_PASS))[process.process_index :: process.num_processes]
    with torch.inference_mode():
        for group in tqdm(groups, desc="teachers", mininterval=5, disable=not process.is_main_process):
            batch = collate(group)
            readings = [teacher.read(batch.input_ids, batch.attention_mask) for teacher in teachers]
            logits[batch.indices] = torch.stack([reading.logits for reading in readings]).mean(0)
            states[batch.indices] = torch.stack([readings[0].states[i] for i in matched], 1)
    return Lesson(reduce(logits, "sum").half(), reduce(states, "sum").half(), listens)


def student(guard: GuardModel, tokenizer: Tokenizer, rows: Sequence[Row], recipe: Recipe) -> GuardModel:
    """The guard cut to the recipe's layers and feed-forward neurons, with tokens for the sources of texts where the
    recipe wants them; what is left keeps its weights."""
    if recipe.sources:
        add_sources(guard, tokenizer)
    if recipe.layers:
        models.with_layers(guard.encoder, recipe.layers)
    if recipe.neurons is not None and recipe.neurons < guard.encoder.config.intermediate_size:
        group = examples(tokenizer, rows[:: max(1, len(rows) // IMPORTANCE_ROWS)], recipe.max_tokens, recipe.mix)
        _narrow(guard, group, recipe.neurons)
    return guard


def _narrow(guard: GuardModel, found: Sequence[Example], neurons: int) -> None:
    """Keep in each layer the neurons whose activation, times the weight it is read with, is largest on `found`."""
    layers = list(guard.encoder.encoder.layer)
    sums = [torch.zeros(guard.encoder.config.intermediate_size) for _ in layers]
    hooks = [
        layer.intermediate.register_forward_hook(_adding(total)) for layer, total in zip(layers, sums, strict=True)
    ]
    with torch.inference_mode():
        for group in passes(found, TOKENS_PER_PASS):
            batch = collate(group)
            guard(batch.input_ids, batch.attention_mask)
    for layer, total, hook in zip(layers, sums, hooks, strict=True):
        hook.remove()
        importance = total * layer.output.dense.weight.detach().norm(dim=0)
        kept = importance.topk(neurons).indices.sort().values
        layer.intermediate.dense = _rows(layer.intermediate.dense, kept)
        layer.output.dense = _columns(layer.output.dense, kept)
    guard.encoder.config.intermediate_size = neurons


def _adding(total: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def add(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        total.add_(output.detach().abs().sum(dim=(0, 1)))

    return add


def _rows(linear: nn.Linear, kept: Tensor) -> nn.Linear:
    cut = nn.Linear(linear.in_features, len(kept))
    cut.weight.data, cut.bias.data = linear.weight.data[kept].clone(), linear.bias.data[kept].clone()
    return cut


def _columns(linear: nn.Linear, kept: Tensor) -> nn.Linear:
    cut = nn.Linear(len(kept), linear.out_features)
    cut.weight.data, cut.bias.data = linear.weight.data[:, kept].clone(), linear.bias.data.clone()
    return cut


@dataclass(frozen=True, slots=True)
class School:
    """Folders: the teachers, what the student starts from (a teacher itself, or base weights), and the result."""

    teachers: tuple[Path, ...]
    start: Path
    out: Path


def distilled(school: School, rows: Sequence[Row], recipe: Recipe) -> GuardModel:
    """The trained student, saved in `school.out`. Teachers and student share the tokenizer of `school.start`, but for
    the tokens of sources, which the student may be the first to have."""
    tokenizer = models.load_tokenizer(school.start)
    chosen = sampled(rows, recipe.mix, recipe.seed)
    pupil = student(models.load(school.start), tokenizer, chosen, recipe)
    found = examples(tokenizer, chosen, recipe.max_tokens, recipe.mix)
    teachers = [models.load(folder).eval() for folder in school.teachers]
    listening = [not recipe.matching.taught or row.source in recipe.matching.taught for row in chosen]
    taught = lesson(teachers, _asked(teachers, found, tokenizer), pupil.encoder.config.num_hidden_layers, listening)
    labels = LabelLoss(recipe.smoothing, recipe.category_weight)
    trained = Trainer(pupil, recipe, school.out).train(found, DistilLoss(labels, taught, recipe.matching))
    if processes().is_main_process:
        models.save(trained, tokenizer, school.out)
    return trained


def _asked(teachers: Sequence[GuardModel], found: Sequence[Example], tokenizer: Tokenizer) -> list[Example]:
    """The examples as teachers read them that may not know the tokens of sources."""
    known = min(teacher.encoder.config.vocab_size for teacher in teachers)
    if known >= tokenizer.get_vocab_size():
        return list(found)
    frame = Frame.of(tokenizer)
    return [replace(example, tokens=frame.without(example.tokens)) for example in found]


def main() -> int:
    """`python -m training.learning.distil --recipe R.yaml --teacher DIR --start DIR --rows F.jsonl
    --dev D.jsonl --out DIR`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True, nargs="+", help="several teach their mean")
    parser.add_argument("--start", type=Path, help="what the student is cut from; the first teacher where not given")
    parser.add_argument("--rows", type=Path, required=True, nargs="+")
    parser.add_argument("--dev", type=Path, required=True, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    try:
        recipe = read_recipe(given.recipe)
        rows = [row for path in given.rows for row in read_rows(path)]
        dev = {path.stem: read_rows(path) for path in given.dev}
        trained = distilled(School(tuple(given.teacher), given.start or given.teacher[0], given.out), rows, recipe)
    except BadInput as exc:
        print(exc, file=sys.stderr)
        return 2
    if not processes().is_main_process:
        return 0
    tokenizer = models.load_tokenizer(given.out)
    for name, held in dev.items():
        print(
            f"{name}\n{table(by_group(held, logits_of(trained, tokenizer, held, recipe.max_tokens)[:, 0]))}", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
