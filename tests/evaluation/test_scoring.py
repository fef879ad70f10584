"""A score run writes one line for every row it can score, and says what became of the others."""

from pathlib import Path

import pytest

from evaluation.__main__ import main
from evaluation.datasets import BadData, Share
from evaluation.scoring import Local, run
from guard_runtime.conversation import Direction
from guard_runtime.verdict import CATEGORIES, Category
from tests.evaluation.scripted import Listener, ScriptedModel, read, row, write

ROWS = [row("a", "你好"), row("b", "坏话", "unsafe"), row("c", "evil words", "unsafe", lang="en")]


def test_every_row_gets_one_line_with_all_categories(tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    tally = run(Local(ScriptedModel(), 2), write(tmp_path / "data.jsonl", ROWS), out, watch=Listener().watch)
    lines = read(out)
    assert [(line["id"], line["p_unsafe"], line["flagged"]) for line in lines] == [
        ("a", 0.1, False),
        ("b", 0.9, True),
        ("c", 0.9, True),
    ]
    assert all(set(line["categories"]) == set(CATEGORIES) and line["ms"] >= 0 for line in lines)
    assert (tally.scored, tally.broken, tally.failed) == (3, 0, 0)


def test_an_answer_is_read_with_its_question(tmp_path: Path) -> None:
    model = ScriptedModel()
    data = write(tmp_path / "d.jsonl", [row("a", "问题", direction="response", response="回答")])
    run(Local(model, 4), data, tmp_path / "s.jsonl", watch=Listener().watch)
    assert (model.seen[0].direction, model.seen[0].text, model.seen[0].context) == (Direction.RESPONSE, "回答", "问题")


def test_an_interrupted_run_scores_only_what_is_left_even_after_half_a_line(tmp_path: Path) -> None:
    data, out = write(tmp_path / "d.jsonl", ROWS), tmp_path / "s.jsonl"
    run(Local(ScriptedModel(), 1), data, out, watch=Listener().watch)
    whole = out.read_text(encoding="utf-8")
    first = whole.splitlines()[0]
    out.write_text(first + '\n{"id": "b", "p_un', encoding="utf-8")
    model = ScriptedModel()
    tally = run(Local(model, 1), data, out, watch=Listener().watch)
    assert [passage.text for passage in model.seen] == ["坏话", "evil words"]
    assert (tally.scored, tally.resumed) == (2, 1)
    assert [line["id"] for line in read(out)] == ["a", "b", "c"]


def test_broken_rows_are_reported_with_file_and_line_counted_and_passed_over(tmp_path: Path) -> None:
    listener = Listener()
    data = write(
        tmp_path / "d.jsonl",
        [ROWS[0], "{not json", row("x", "t", label="maybe"), [1], row("a", "again"), row("y", " "), ROWS[1]],
    )
    tally = run(Local(ScriptedModel(), 8), data, tmp_path / "s.jsonl", watch=listener.watch)
    assert (tally.scored, tally.broken) == (2, 5)
    assert [complaint.split("d.jsonl:")[1].split(":")[0] for complaint in listener.complaints] == [
        "2",
        "3",
        "4",
        "5",
        "6",
    ]
    assert "label: 'maybe'" in listener.complaints[1]


def test_bytes_that_are_not_utf8_break_one_row_only(tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", ROWS)
    data.write_bytes(data.read_bytes() + "坏".encode("gbk") + b"\n")
    listener = Listener()
    assert run(Local(ScriptedModel(), 8), data, tmp_path / "s.jsonl", watch=listener.watch).scored == 3
    assert "not UTF-8" in listener.complaints[0]


def test_a_row_the_guard_fails_on_costs_no_other_row_of_its_batch(tmp_path: Path) -> None:
    listener = Listener()
    data = write(tmp_path / "d.jsonl", [ROWS[0], row("f", "boom"), ROWS[1]])
    tally = run(Local(ScriptedModel(), 3), data, tmp_path / "s.jsonl", watch=listener.watch)
    assert (tally.scored, tally.failed) == (2, 1)
    assert [line["id"] for line in read(tmp_path / "s.jsonl")] == ["a", "b"]
    assert "f: the model fell over" in listener.complaints


@pytest.mark.parametrize(("score", "flagged"), [(0.29, False), (0.3, True)])
def test_the_balanced_threshold_of_the_category_decides(tmp_path: Path, score: float, flagged: bool) -> None:
    points = {"balanced": {Direction.PROMPT: {**dict.fromkeys(CATEGORIES, 0.99), Category.PROMPT_ATTACK: 0.3}}}
    model = ScriptedModel(lambda _: score, Category.PROMPT_ATTACK, points)
    run(Local(model, 1), write(tmp_path / "d.jsonl", [ROWS[0]]), tmp_path / "s.jsonl", watch=Listener().watch)
    assert read(tmp_path / "s.jsonl")[0]["flagged"] is flagged


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text("")
    with pytest.raises(BadData, match="no rows"):
        run(Local(ScriptedModel(), 1), tmp_path / "d.jsonl", tmp_path / "s.jsonl", watch=Listener().watch)


@pytest.mark.parametrize("machines", [2, 3, 5])
def test_machines_that_share_the_rows_score_each_once_and_as_one_machine_does(tmp_path: Path, machines: int) -> None:
    data, whole = write(tmp_path / "d.jsonl", ROWS), tmp_path / "whole.jsonl"
    run(Local(ScriptedModel(), 2), data, whole, watch=Listener().watch)
    for rank in range(machines):
        run(Local(ScriptedModel(), 2), data, tmp_path / "s.jsonl", watch=Listener().watch, share=Share(rank, machines))
    parts = [tmp_path / f"s.{rank}-of-{machines}.jsonl" for rank in range(machines)]
    lines = [line for file in parts for line in read(file)]
    assert [{**line, "ms": 0} for line in lines] == [{**line, "ms": 0} for line in read(whole)]


def test_a_machine_that_is_none_of_them_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "d.jsonl", ROWS)
    given = ["score", "--guard", "x", "--data", str(data), "--out", str(tmp_path / "s.jsonl")]
    assert main([*given, "--machine_rank", "3", "--machine_num", "3"]) == 2
    assert "--machine_rank 3: must be from 0 to 2" in capsys.readouterr().err


def test_a_guard_that_is_not_there_ends_the_command_with_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "d.jsonl", ROWS)
    given = ["score", "--guard", str(tmp_path / "none"), "--data", str(data), "--out", str(tmp_path / "s.jsonl")]
    assert main(given) == 2
    assert "none" in capsys.readouterr().err
