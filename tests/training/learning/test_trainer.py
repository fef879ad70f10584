"""Training: it learns, it resumes to the same figures, it shares work evenly, and its recipes are strict."""

import random
from pathlib import Path

import pytest
import torch

from tests.training import tiny
from training.data.rows import BadInput, Row, read_rows
from training.learning import model as models
from training.learning.batches import Batch, collate, encode, encode_windows, examples, sampled, steps
from training.learning.model import GuardModel
from training.learning.scores import figures, logits_of
from training.learning.stage import Stage, hardest, run
from training.learning.trainer import LabelLoss, Trainer
from training.recipe import Mix, Recipe, read_recipe


def rows_of(folder: Path, count: int, seed: int = 0) -> list[Row]:
    return read_rows(tiny.write(folder / f"rows-{seed}.jsonl", tiny.rows(count, seed)))


def accuracy(model: GuardModel, base: Path, rows: list[Row]) -> float:
    margins = logits_of(model, models.load_tokenizer(base), rows, 16)[:, 0]
    return figures([row.unsafe for row in rows], margins).accuracy


def test_a_stage_learns_what_the_rows_teach_and_saves_it(base: Path, tmp_path: Path) -> None:
    held = rows_of(tmp_path, 60, seed=9)
    run(Stage(tiny.recipe(epochs=6), base, tmp_path / "out"), rows_of(tmp_path, 160))
    assert accuracy(models.load(base), base, held) < 0.8
    assert accuracy(models.load(tmp_path / "out").eval(), base, held) > 0.9


class Interrupted(Exception):
    pass


def test_an_interrupted_run_resumes_and_ends_with_the_same_weights(base: Path, tmp_path: Path) -> None:
    recipe = tiny.recipe(dropout=0.2, checkpoint_minutes=1e-9)
    found = examples(models.load_tokenizer(base), rows_of(tmp_path, 60), 16, recipe.mix)

    def start(folder: Path) -> Trainer:
        torch.manual_seed(1)
        return Trainer(models.load(base), recipe, folder)

    calls = 0

    def broken(model: GuardModel, batch: Batch) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise Interrupted
        return LabelLoss(0.02, 0.5)(model, batch)

    whole = start(tmp_path / "whole").train(found, LabelLoss(0.02, 0.5))
    with pytest.raises(Interrupted):
        start(tmp_path / "cut").train(found, broken)
    random.seed(3)
    torch.manual_seed(99)
    resumed = start(tmp_path / "cut").train(found, LabelLoss(0.02, 0.5))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_checkpoint_of_another_recipe_is_not_continued(base: Path, tmp_path: Path) -> None:
    found = examples(models.load_tokenizer(base), rows_of(tmp_path, 40), 16, Mix())
    Trainer(models.load(base), tiny.recipe(), tmp_path / "out").train(found, LabelLoss(0.0, 0.5))
    torch.manual_seed(1)
    fresh = Trainer(models.load(base), tiny.recipe(rate=1e-3), tmp_path / "other").train(found, LabelLoss(0.0, 0.5))
    torch.manual_seed(1)
    again = Trainer(models.load(base), tiny.recipe(rate=1e-3), tmp_path / "out").train(found, LabelLoss(0.0, 0.5))
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in fresh.state_dict().items())


def test_categories_count_only_where_an_unsafe_row_names_them(base: Path, tmp_path: Path) -> None:
    unsafe = tiny.row(0, label="unsafe", prompt="坏")
    named = tiny.row(1, label="unsafe", prompt="坏", categories=["prompt_attack"])
    safe = tiny.row(2, prompt="坏")
    rows = read_rows(tiny.write(tmp_path / "r.jsonl", [unsafe, named, safe]))
    batch = collate(examples(models.load_tokenizer(base), rows, 16, Mix()))
    logits = torch.zeros(3, 9)
    logits[:, 1:] = 5.0
    without = LabelLoss(0.0, 0.0).of(logits, batch)
    extra = LabelLoss(0.0, 1.0).of(logits, batch) - without
    assert extra[0] == 0 and extra[1] > 1 and extra[2] == 0


def test_gradient_steps_do_not_depend_on_how_rows_are_cut_into_passes(base: Path, tmp_path: Path) -> None:
    found = examples(models.load_tokenizer(base), rows_of(tmp_path, 48), 16, Mix())
    ends = []
    for tokens in (64, 4096):
        torch.manual_seed(1)
        recipe = tiny.recipe(dropout=0.0, epochs=1, tokens_per_pass=tokens)
        trainer = Trainer(models.load(base), recipe, tmp_path / str(tokens))
        ends.append(trainer.train(found, LabelLoss(0.0, 0.5)).state_dict())
    assert all(torch.allclose(ends[0][k], ends[1][k], atol=1e-3) for k in ends[0])


def test_an_epoch_reads_every_row_once_in_an_order_that_the_seed_decides(base: Path, tmp_path: Path) -> None:
    found = examples(models.load_tokenizer(base), rows_of(tmp_path, 50), 16, Mix())
    once, same, other = (steps(found, 8, 64, seed) for seed in (1, 1, 2))
    assert sorted(e.index for step in once for group in step for e in group) == list(range(50))
    assert once == same and once != other
    assert all(max(len(e.tokens) for e in g) * len(g) <= 64 or len(g) == 1 for step in once for g in step)


def test_long_rows_keep_head_and_tail_and_an_answer_keeps_its_question(base: Path, tmp_path: Path) -> None:
    long = tiny.row(0, prompt="坏" + "花" * 200 + "骗")
    pair = tiny.row(1, direction="response", prompt="花" * 200 + "骗", response="坏" + "好" * 200 + "人")
    rows = read_rows(tiny.write(tmp_path / "r.jsonl", [long, pair]))
    tokenizer = models.load_tokenizer(base)
    alone, both = encode(tokenizer, rows, 24)
    words = tokenizer.decode(list(alone))
    assert len(alone) == 24 and words.startswith("坏") and words.endswith("骗")
    cut = both.index(2)
    assert len(both) == 24 and both[cut : cut + 2] == (2, 2)
    assert tokenizer.decode(list(both[:cut])).endswith("骗") and tokenizer.decode(list(both[cut:])).endswith("人")


def test_sampling_caps_each_source_and_label(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 100)
    kept = sampled(rows, Mix(cap=5), 1)
    assert kept == sampled(rows, Mix(cap=5), 1) != sampled(rows, Mix(cap=5), 2)
    assert len(kept) == 40 and len(sampled(rows, Mix(cap=5, caps={"tiny": 3}), 1)) == 24


def test_hard_rows_are_those_the_guard_gets_wrong(base: Path, tmp_path: Path) -> None:
    run(Stage(tiny.recipe(epochs=6), base, tmp_path / "out"), rows_of(tmp_path, 160))
    rows = rows_of(tmp_path, 60, seed=5)
    wrong = [
        tiny.row(900 + i, label="unsafe" if i % 2 else "safe", prompt="好花人" if i % 2 else "坏骗人") for i in range(6)
    ]
    mislabelled = read_rows(tiny.write(tmp_path / "wrong.jsonl", wrong))
    recipe = tiny.recipe(max_tokens=32, hard={"share": 0.1, "easy": 0.0})
    chosen = hardest(models.load(tmp_path / "out"), models.load_tokenizer(base), [*rows, *mislabelled], recipe)
    assert {row.id for row in mislabelled} <= {row.id for row in chosen} and len(chosen) == 7


def test_recipes_refuse_unknown_keys_and_wrong_values_by_name(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("epohcs: 3\nrate: -1\nmix: {cap: many}\n", encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        read_recipe(path)
    assert all(key in str(caught.value) for key in ("epohcs", "rate", "mix.cap"))


@pytest.mark.parametrize("path", sorted(Path("training/recipes").glob("*.yaml")), ids=lambda p: p.name)
def test_the_recipes_that_ship_are_valid(path: Path) -> None:
    if path.name in {"libra-mini.yaml", "quick.yaml"}:
        pytest.importorskip("training.pipeline")
        from training.pipeline import read_pipeline  # noqa: PLC0415 - training.pipeline imports every other part

        assert all(isinstance(read_recipe(path.parent / step.recipe), Recipe) for step in read_pipeline(path).steps)
    else:
        assert isinstance(read_recipe(path), Recipe)


def test_a_long_text_trains_in_one_of_servings_windows_whatever_its_label(base: Path, tmp_path: Path) -> None:
    tokenizer = models.load_tokenizer(base)
    long = "好" * 20 + "花" * 20
    rows = [tiny.row(0, prompt=long), tiny.row(1, prompt=long, label="unsafe"), tiny.row(2, prompt="好花")]
    answers = [tiny.row(3 + n, direction="response", prompt="坏" * 30, response=long) for n in range(8)]
    read = read_rows(tiny.write(tmp_path / "long.jsonl", [*rows, *answers]))
    whole, cut = encode(tokenizer, read, 24), encode_windows(tokenizer, read, 24)
    assert cut[2] == whole[2] and all(cut[n] != whole[n] for n in (0, 1))
    space, good, flower, bad = (tokenizer.token_to_id(character) for character in "▁好花坏")
    for tokens in cut[3:]:
        assert len(tokens) <= 24 and tokens[:11] == (0, *[bad] * 8, 2, 2)
        assert set(tokens[11:-1]) <= {space, good, flower}
    assert len(set(cut[3:])) > 1


def test_a_result_can_keep_a_share_of_the_weights_it_started_from(base: Path, tmp_path: Path) -> None:
    run(Stage(tiny.recipe(), base, tmp_path / "start"), rows_of(tmp_path, 40))
    for name, kept in (("whole", 0.0), ("half", 0.5)):
        run(Stage(tiny.recipe(kept=kept), tmp_path / "start", tmp_path / name), rows_of(tmp_path, 40, seed=1))
    start, whole, half = (models.load(tmp_path / name).state_dict() for name in ("start", "whole", "half"))
    assert not torch.equal(whole["head.weight"], start["head.weight"])
    for name, value in half.items():
        assert torch.allclose(value, (start[name] + whole[name]) / 2, atol=1e-6), name
