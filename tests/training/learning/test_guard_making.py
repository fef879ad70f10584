"""Distilling, attacking, calibrating and shipping, on a tiny guard."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.perturbations import PERTURBATIONS, perturbed
from guard_runtime.artefacts.artefact import Artefact
from guard_runtime.guards.classifier import Classifier
from tests.training import tiny
from training.data.augment import beginnings, disguises
from training.data.rows import CATEGORIES, BadInput, Row, read_rows
from training.learning import adversarial, distil
from training.learning import model as models
from training.learning.batches import examples
from training.learning.scores import figures, logits_of
from training.learning.stage import Stage, run
from training.recipe import Attack, Recipe
from training.shipping import calibrate, card, compare, ship


def rows_of(folder: Path, count: int, seed: int = 0) -> list[Row]:
    return read_rows(tiny.write(folder / f"rows-{seed}-{count}.jsonl", tiny.rows(count, seed)))


@pytest.fixture
def guard(base: Path, tmp_path: Path) -> Path:
    """A tiny guard that has learned its rows."""
    run(Stage(tiny.recipe(epochs=6), base, tmp_path / "guard"), rows_of(tmp_path, 160))
    return tmp_path / "guard"


def accuracy(folder: Path, rows: list[Row]) -> float:
    margins = logits_of(models.load(folder).eval(), models.load_tokenizer(folder), rows, 16)[:, 0]
    return figures([row.unsafe for row in rows], margins).accuracy


def test_a_smaller_student_learns_from_its_teacher(guard: Path, tmp_path: Path) -> None:
    matching = {"labels": 0.0, "logits": 1.0, "states": 1.0}
    recipe = tiny.recipe(layers=[0, 2], neurons=32, epochs=6, matching=matching)
    school = distil.School((guard,), guard, tmp_path / "student")
    distil.distilled(school, rows_of(tmp_path, 160), recipe)
    student = models.load(tmp_path / "student")
    assert student.encoder.config.num_hidden_layers == 2 and student.encoder.config.intermediate_size == 32
    assert accuracy(tmp_path / "student", rows_of(tmp_path, 60, seed=9)) > 0.9


def test_narrowing_drops_the_neurons_that_say_nothing(guard: Path, tmp_path: Path) -> None:
    model, tokenizer, rows = models.load(guard).eval(), models.load_tokenizer(guard), rows_of(tmp_path, 60)
    for layer in model.encoder.encoder.layer:
        layer.output.dense.weight.data[:, ::2] = 0
    before = logits_of(model, tokenizer, rows, 16)
    narrow = distil.student(model, tokenizer, rows, tiny.recipe(neurons=32)).eval()
    assert narrow.encoder.encoder.layer[0].intermediate.dense.out_features == 32
    assert np.abs(logits_of(narrow, tokenizer, rows, 16) - before).max() < 1e-4


def test_calibration_brings_margins_to_probabilities() -> None:
    draw = np.random.default_rng(0)
    truth = draw.random(4000) < 0.5
    margin = np.where(truth, 1.0, -1.0) * 3 + draw.standard_normal(4000) * 3 + 2
    cell = calibrate.calibrated([_row(i, unsafe) for i, unsafe in enumerate(truth)], margin)["prompt"]["zh"]
    before = 1 / (1 + np.exp(-margin))
    after = 1 / (1 + np.exp(-(margin - cell["bias"]) / cell["temperature"]))
    assert cell["bias"] == pytest.approx(2.0, abs=0.3)
    labels = truth.tolist()
    assert calibrate.calibration_error(after, labels) < 0.03 < calibrate.calibration_error(before, labels)
    assert calibrate.margins(np.array([[0.1, 0.5], [0.9, 0.2]])) == pytest.approx([0.0, np.log(9)])


def _row(number: int, unsafe: bool, source: str = "tiny") -> Row:
    return Row(f"r{number}", source, "MIT", "zh", "prompt", "好", "", bool(unsafe), (), "", "gold", 1.0)


def test_the_balanced_point_keeps_benign_alarms_within_one_in_a_hundred() -> None:
    draw = np.random.default_rng(1)
    rows = [_row(i, False, "calm") for i in range(1000)] + [_row(i, True) for i in range(1000, 1500)]
    scores = np.clip(draw.normal(0.25, 0.15, (1500, 8)), 0, 1)
    scores[1000:, 3] = np.clip(draw.normal(0.8, 0.1, 500), 0, 1)
    benign = calibrate.benign_rows(rows)
    points = calibrate.operating_points(rows, scores, benign)
    assert benign == [True] * 1000 + [False] * 500
    flagged = calibrate.flagged(rows, scores, points["balanced"])
    assert flagged[:1000].mean() <= 0.01 and flagged[1000:].mean() > 0.95
    strict = calibrate.flagged(rows, scores, points["strict"])
    assert flagged.sum() <= strict.sum()
    assert all(points["strict"]["prompt"][c] <= points["balanced"]["prompt"][c] for c in CATEGORIES)


def test_safe_rows_of_mixed_sources_and_anchors_count_for_thresholds() -> None:
    sources = [("calm", False)] * 200 + [("mixed", False)] * 100 + [("mixed", True)] * 100 + [("anchor", True)] * 2
    rows = [_row(i, unsafe, source) for i, (source, unsafe) in enumerate(sources)]
    scores = np.full((402, 8), 0.01)
    scores[200:300, 1] = scores[300:310, 1] = 0.7
    scores[300:400, 2] = 0.9
    scores[400:, 4] = 0.62
    balanced = calibrate.operating_points(rows, scores, calibrate.benign_rows(rows))["balanced"]["prompt"]
    flagged = calibrate.flagged(rows, scores, {"prompt": balanced, "response": balanced})
    assert not flagged[:300].any() and flagged[300:].all()
    assert balanced[CATEGORIES[4]] <= 0.62 - calibrate.MARGIN


def test_answers_begin_as_streams_show_them_and_disguises_keep_their_label(tmp_path: Path) -> None:
    words = " ".join(f"word{i}" for i in range(80))
    answers = [replace(_row(i, i % 2 == 1), direction="response", response=words) for i in range(60)]
    begun = list(beginnings(answers, 1))
    assert all(words.startswith(row.response) and row.source == "beginning" for row in begun)
    safe = [len(row.response.split()) for row in begun if not row.unsafe]
    harmful = [len(row.response.split()) for row in begun if row.unsafe]
    assert len(safe) == 30 and min(safe) >= 3 and max(safe) <= 45
    assert 0 < len(harmful) < 30 and min(harmful) >= 25
    spoilt = list(disguises(rows_of(tmp_path, 60), 10, 1))
    known = {row.id: row for row in rows_of(tmp_path, 60)}
    assert spoilt and {row.unsafe for row in spoilt} == {True, False}
    assert all(row.unsafe is known[row.id.removesuffix("-disguise")].unsafe for row in spoilt)


def test_shipping_writes_an_artefact_that_serving_takes(guard: Path, tmp_path: Path) -> None:
    dev = ship.Dev(rows_of(tmp_path, 160, seed=4), rows_of(tmp_path, 40, seed=5))
    measured = ship.ship(guard, dev, ship.Edition("tiny", "1.2.3", 64), tmp_path / "art", {"Data": "ours"})
    loaded = Classifier(Artefact.load(tmp_path / "art"))
    assert loaded.manifest.version == "1.2.3" and len(loaded.manifest.golden) >= 32
    assert loaded.golden_difference < 1e-4
    assert loaded.manifest.golden_tolerance < 0.1
    assert np.allclose(ship.served(loaded, dev.rows, "again"), measured.scores)
    assert ((measured.scores.max(axis=1) > 0.5) == [row.unsafe for row in dev.rows]).mean() > 0.9
    card = (tmp_path / "art" / "CARD.md").read_text(encoding="utf-8")
    assert "| prompt zh |" in card and "## Data\n\nours" in card


def test_held_out_figures_join_the_card_beside_their_targets(guard: Path, tmp_path: Path) -> None:
    art = tmp_path / "art"
    ship.ship(guard, ship.Dev(rows_of(tmp_path, 80, seed=4)), ship.Edition("tiny", "1.2.3", 64), art, {})
    figure = {"value": 0.8, "low": 0.7, "high": 0.9}
    group = {"name": "all", "safe": 6, "unsafe": 4} | dict.fromkeys(
        ("accuracy", "auroc", "fpr", "recall", "ece"), figure
    )
    (tmp_path / "out" / "test_cold").mkdir(parents=True)
    written = json.dumps({"rows": 10, "groups": [group]})
    (tmp_path / "out" / "test_cold" / "report.json").write_text(written, encoding="utf-8")
    plain = {"operator": "none", "strength": "none", "rows": 10, "recall": 0.9, "fpr": 0.1}
    spaced = {"operator": "spacing", "strength": "medium", "rows": 10, "recall": 0.8, "fpr": 0.15}
    (tmp_path / "out" / "robustness.json").write_text(json.dumps([plain, spaced]), encoding="utf-8")
    for notes in ("## How it was made\n\nby hand", "## How it was made\n\nanew"):
        card.rewrite(art, "\n".join(card.held_out_lines(tmp_path / "out")), notes)
    text = (art / "CARD.md").read_text(encoding="utf-8")
    assert "| test_cold | 10 | accuracy | 0.800 (0.700 to 0.900) | at least 0.83 | **missed** |" in text
    assert "| spacing | +10.0 | +5.0 |" in text and "| test_jade | - | accuracy | not measured" in text
    assert "anew" in text and "by hand" not in text and text.count(card.HELD_OUT) == 1 and "## Dev figures" in text
    assert Classifier(Artefact.load(art)).manifest.version == "1.2.3"


def test_shipping_refuses_a_guard_that_int8_changes(
    guard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship, "AGREEMENT", 1.01)
    dev = ship.Dev(rows_of(tmp_path, 40, seed=4))
    with pytest.raises(BadInput, match="int8 agrees with float32 on"):
        ship.ship(guard, dev, ship.Edition("tiny", "1.0.0", 64), tmp_path / "art", {})


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_every_operator_changes_text_it_applies_to_and_repeats_itself(name: str) -> None:
    texts = ("请问怎样学会游泳和跑步？", "How do I learn to swim and run?")
    changed = [text for text in texts if perturbed(text, name, "strong", 1) != text]
    assert changed
    for text in texts:
        assert perturbed(text, name, "strong", 1) == perturbed(text, name, "strong", 1)
    assert perturbed("", name, "medium", 1) is not None


def test_the_attack_policy_learns_the_move_that_pays(guard: Path, base: Path, tmp_path: Path) -> None:
    class Rigged(adversarial.Arena):
        def attacked(self, rows: list[Row], moves: list[int]) -> adversarial.Outcome:  # type: ignore[override]
            paid = np.array([adversarial.MOVES[move].operator == "traditional" for move in moves])
            return adversarial.Outcome(rows, paid, paid.astype(float))

    rows = [row for row in rows_of(tmp_path, 80) if row.unsafe]
    target = adversarial.Target(models.load(guard).eval(), models.load_tokenizer(guard), 16)
    meaning = adversarial.Meaning(models.load(base), models.load_tokenizer(base))
    arena = Rigged(target, meaning, Attack(updates=60, texts=32))
    margins = target.margins(rows)
    arena.trained(rows, margins)
    chosen = [adversarial.MOVES[move].operator for move in arena.learned(rows, margins)]
    assert chosen.count("traditional") > 0.6 * len(chosen)


def test_meaning_is_kept_by_invisible_characters_and_lost_by_other_words(base: Path, tmp_path: Path) -> None:
    meaning = adversarial.Meaning(models.load(base), models.load_tokenizer(base))
    before = read_rows(
        tiny.write(tmp_path / "a.jsonl", [tiny.row(0, prompt="坏人骗花"), tiny.row(1, prompt="坏人骗花")])
    )
    after = [adversarial.saying(before[0], "坏\u200b人骗\u200b花", "x"), adversarial.saying(before[1], "good!", "x")]
    hidden, other = meaning.kept(before, after)
    assert hidden > 0.9 and other < adversarial.KEPT


def test_rounds_print_before_and_after_and_disguise_benign_rows_as_often(
    guard: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attack = {"rounds": 1, "updates": 2, "texts": 8, "additions": 20, "measured": 10, "replay": 20}
    recipe = Recipe.model_validate(tiny.recipe(epochs=1).model_dump() | {"attack": attack})
    random.seed(0)
    lines = adversarial.rounds(adversarial.Work(guard, base, tmp_path / "adv"), rows_of(tmp_path, 160), recipe)
    assert "\n".join(lines) in capsys.readouterr().out
    assert len(lines) == 2 and all("trained" in line and "random" in line for line in lines)
    added = read_rows(tmp_path / "adv" / "adversarial.jsonl")
    harmful = sum(row.unsafe for row in added)
    assert 0 < harmful < len(added) and abs(2 * harmful - len(added)) <= len(added) / 2
    assert examples(models.load_tokenizer(guard), added, 16, recipe.mix)
    assert accuracy(tmp_path / "adv", rows_of(tmp_path, 60, seed=9)) > 0.85


def test_a_guard_that_flags_nothing_teaches_the_policy_nothing(guard: Path, base: Path, tmp_path: Path) -> None:
    target = adversarial.Target(models.load(guard).eval(), models.load_tokenizer(guard), 16)
    arena = adversarial.Arena(
        target, adversarial.Meaning(models.load(base), models.load_tokenizer(base)), Attack(updates=2, texts=4)
    )
    arena.trained([], np.zeros(0, np.float32))
    assert not any(part.abs().any() for part in arena.policy.parameters())
    calm = [row for row in rows_of(tmp_path, 20) if not row.unsafe]
    assert "attack success 0.000" in adversarial.report(arena, calm, "none")


def test_guards_are_compared_on_the_same_rows_with_intervals(
    guard: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows_of(tmp_path, 60, seed=7)
    models.save(models.load(base), models.load_tokenizer(base), tmp_path / "untrained")
    folders = [str(guard), str(tmp_path / "untrained")]
    assert compare.main(["--guards", *folders, "--data", str(tmp_path / "rows-7-60.jsonl"), "--every", "2"]) == 0
    _, _, learned, untrained = capsys.readouterr().out.splitlines()
    assert learned.startswith("| rows-7-60 | 30 | guard | 1.000 [1.000, 1.000]") and "| untrained |" in untrained
    assert compare.main(["--guards", str(tmp_path / "none"), "--data", str(tmp_path / "rows-7-60.jsonl")]) == 2
