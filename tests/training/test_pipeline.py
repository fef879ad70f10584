"""`make guard`: from a weight file and a data folder to an artefact that serving takes; nothing is done twice."""

from pathlib import Path

import pytest

from guard_runtime.artefacts.artefact import Artefact
from guard_runtime.guards.classifier import Classifier
from tests.training import tiny
from training import pipeline as guard
from training.data.rows import read_rows

PIPELINE = """
name: tiny
version: 1.0.0
max_tokens: 64
synthetic: 0.004
steps:
  - {name: plain, kind: finetune, recipe: quick-stage.yaml, rows: [train.jsonl]}
  - {name: pretrain, kind: pretrain, recipe: quick-stage.yaml, rows: [synthetic.jsonl]}
  - {name: distil, kind: distil, recipe: quick-stage.yaml, rows: [curated.jsonl]}
  - {name: adversarial, kind: adversarial, recipe: quick-stage.yaml, rows: [train.jsonl]}
"""


def switches(folder: Path) -> list[str]:
    data = folder / "data"
    if not data.exists():
        data.mkdir()
        tiny.write(data / "train.jsonl", tiny.rows(200))
        tiny.write(data / "dev.jsonl", tiny.rows(80, seed=3, start=1000))
        tiny.write(data / "test_other.jsonl", [tiny.row(2000, prompt="今天的天气很好，我们去公园看花吧。")])
        (folder / "pipeline.yaml").write_text(PIPELINE, encoding="utf-8")
        tiny.base_file(folder / "tiny.bin")
    named = {"data": data, "out": folder / "art", "work": folder / "work", "source": folder / "tiny.bin"}
    return [part for name, path in named.items() for part in (f"--{name}", str(path))] + [
        "--pipeline",
        str(folder / "pipeline.yaml"),
    ]


def test_one_command_makes_an_artefact_and_a_second_run_keeps_what_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guard.main(switches(tmp_path)) == 0
    made = Classifier(Artefact.load(tmp_path / "art"))
    assert made.manifest.name == "tiny" and made.golden_difference < 1e-4
    assert {row.source for row in read_rows(tmp_path / "work" / "curated.jsonl")} > {"tiny"}
    capsys.readouterr()
    assert guard.main(switches(tmp_path)) == 0
    said = capsys.readouterr().out
    assert said.count("done before, kept") == 6 and ": working" not in said


def test_bad_data_stops_it_before_anything_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = switches(tmp_path)
    tiny.write(tmp_path / "data" / "train.jsonl", [tiny.row(0), tiny.row(0)])
    assert guard.main(given) == 2
    assert "train.jsonl:2: id: 'r0' is already used in line 1" in capsys.readouterr().err
    assert not (tmp_path / "work" / "base").exists() and not (tmp_path / "art").exists()
