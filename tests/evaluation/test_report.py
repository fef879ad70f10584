"""A report tells what it measured, what it could not, and shows nothing of the data unescaped."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.__main__ import main
from tests.evaluation.scripted import row, write


def score(name: str, p: float, flagged: bool) -> dict[str, Any]:
    return {"id": name, "p_unsafe": p, "flagged": flagged, "categories": {}, "ms": 2.0}


def reported(tmp_path: Path, rows: list[Any], scores: list[Any]) -> Path:
    data, said = write(tmp_path / "d.jsonl", rows), write(tmp_path / "s.jsonl", scores)
    assert main(["report", "--data", str(data), "--scores", str(said), "--out", str(tmp_path / "out")]) == 0
    return tmp_path / "out"


def test_figures_go_to_terminal_json_csv_and_page_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row("a", "x"), row("b", "y", "unsafe"), row("c", "z", "unsafe", source="other"), row("d", "w")]
    out = reported(tmp_path, rows, [score("a", 0.1, False), score("b", 0.9, True), score("c", 0.2, False)])
    shown = capsys.readouterr().out
    assert "3 rows scored, 1 without a score, 0 broken" in shown
    content = json.loads((out / "report.json").read_text())
    assert content["groups"][0]["recall"]["value"] == 0.5
    assert [group["name"] for group in content["groups"]] == ["all", "prompt/zh", "other", "tests"]
    assert content["recall_by_category"]["hate_speech_and_abuse"]["value"] == 0.5
    with (out / "report.csv").open() as file:
        cells = {(line["group"], line["figure"]): line["value"] for line in csv.DictReader(file)}
    assert cells["all", "recall"] == "0.5"
    assert cells["other", "auroc"] == ""
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "0.500" in page


def test_the_page_holds_no_script_nothing_from_outside_and_no_markup_from_the_data(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>"
    out = reported(
        tmp_path, [row("a", "x", source=name), row("b", "y", "unsafe")], [score("a", 0.1, False), score("b", 0.9, True)]
    )
    page = (out / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_source_that_looks_like_a_formula_is_text_in_the_csv(tmp_path: Path) -> None:
    out = reported(tmp_path, [row("a", "x", source="=HYPERLINK()")], [score("a", 0.1, False)])
    assert "'=HYPERLINK()" in (out / "report.csv").read_text()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ({**score("a", 0.5, True), "p_unsafe": 1.5}, "p_unsafe"),
        ('{"id": "a", "p_unsafe": NaN, "flagged": true, "categories": {}, "ms": 1}', "p_unsafe"),
        ({**score("a", 0.5, True), "flagged": "yes"}, "flagged"),
        ("half a li", "not JSON"),
        (score("elsewhere", 0.5, True), "no row"),
    ],
)
def test_a_score_file_that_cannot_be_trusted_is_refused_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: Any, complaint: str
) -> None:
    data, said = write(tmp_path / "d.jsonl", [row("a", "x")]), write(tmp_path / "s.jsonl", [line])
    assert main(["report", "--data", str(data), "--scores", str(said)]) == 2
    assert complaint in capsys.readouterr().err


def test_the_score_files_of_several_machines_make_one_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "d.jsonl", [row("a", "x"), row("b", "y", "unsafe")])
    parts = [write(tmp_path / f"{name}.jsonl", [score(name, 0.5, name == "b")]) for name in "ab"]
    given = ["report", "--data", str(data), "--out", str(tmp_path / "out"), "--scores", *map(str, parts)]
    assert main(given) == 0
    assert "2 rows scored, 0 without a score" in capsys.readouterr().out


def test_rows_of_one_label_make_a_page_too(tmp_path: Path) -> None:
    out = reported(tmp_path, [row("a", "x")], [score("a", 0.1, False)])
    assert "needs rows of both labels" in (out / "report.html").read_text()
