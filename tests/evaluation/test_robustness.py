"""Robustness measures every perturbation at three strengths, on harmful and on harmless rows."""

import json
from pathlib import Path

import pytest

from evaluation.datasets import BadData
from evaluation.perturbations import PERTURBATIONS, STRENGTHS
from evaluation.robustness import Bench, chosen, save, shown
from tests.evaluation.scripted import Listener, ScriptedModel, row, write

ROWS = [row(f"u{n}", "这是一句很坏很坏的话", "unsafe") for n in range(3)] + [
    row(f"s{n}", "今天天气真好") for n in range(4)
]


def test_the_plain_rows_come_first_then_every_perturbation_at_every_strength(tmp_path: Path) -> None:
    rows = chosen(write(tmp_path / "d.jsonl", ROWS), 50, 0, Listener().watch)
    found = list(Bench(ScriptedModel(), 8, Listener().watch).results(rows, 0))
    assert (found[0].operator, found[0].recall, found[0].fpr, found[0].changed) == ("none", 1.0, 0.0, 0.0)
    assert [(result.operator, result.strength) for result in found[1:]] == [
        (o, s) for o in PERTURBATIONS for s in STRENGTHS
    ]
    assert any(result.recall is not None and result.recall < 1 for result in found)
    save(found, tmp_path / "r.json")
    assert len(json.loads((tmp_path / "r.json").read_text())) == len(found)
    assert "all perturbations" in shown(found)


def test_both_labels_are_disguised_alike_and_the_same_seed_disguises_the_same_way(tmp_path: Path) -> None:
    rows = chosen(write(tmp_path / "d.jsonl", ROWS), 50, 0, Listener().watch)
    one, two, three = ScriptedModel(), ScriptedModel(), ScriptedModel()
    for model, seed in ((one, 1), (two, 1), (three, 2)):
        list(Bench(model, 8, Listener().watch).results(rows, seed))
    texts = [[passage.text for passage in model.seen] for model in (one, two, three)]
    assert texts[0] == texts[1] != texts[2]
    assert any("天气" not in text and "坏" not in text for text in texts[0])


def test_at_most_so_many_rows_of_each_label_are_taken_and_broken_ones_reported(tmp_path: Path) -> None:
    listener = Listener()
    rows = chosen(write(tmp_path / "d.jsonl", [*ROWS, "{"]), 2, 0, listener.watch)
    assert [row.unsafe for row in rows] == [True, True, False, False]
    assert len(listener.complaints) == 1
    with pytest.raises(BadData, match="no row"):
        chosen(write(tmp_path / "e.jsonl", ["{"]), 2, 0, listener.watch)
