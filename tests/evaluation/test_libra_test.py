"""Libra-Test: its own rows in every format, its switches, its files, its way of counting."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet
import pytest

from evaluation.__main__ import main
from evaluation.datasets import ALONE, BadData, Share
from evaluation.libra_test import Judge, rows, shown, table, verdict_of
from tests.evaluation.scripted import Listener, ScriptedModel, read, write


def item(number: int, response: str, label: str, source: str = "Real Data") -> dict[str, Any]:
    return {"id": number, "source": source, "question": "问", "response": response, "label": label, "analyze": "无"}


ITEMS = [
    item(1, "坏回答", "不安全"),
    item(2, "好回答", "安全"),
    item(3, "坏的", "安全", "Synthetic Data"),
    item(4, "好的", "不安全", "Synthetic Data"),
    item(5, "好的", "安全", "Translated Data"),
]


def judge(listener: Listener | None = None) -> Judge:
    return Judge(ScriptedModel(), 2, (listener or Listener()).watch)


@pytest.fixture(params=["json", "jsonl", "parquet", "folder"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    match request.param:
        case "json":
            path = tmp_path / "t.json"
            path.write_text(json.dumps(ITEMS, ensure_ascii=False), encoding="utf-8")
            return path
        case "jsonl":
            return write(tmp_path / "t.jsonl", ITEMS)
        case "parquet":
            parquet.write_table(pyarrow.Table.from_pylist(ITEMS), tmp_path / "t.parquet")
            return tmp_path / "t.parquet"
        case _:
            folder = tmp_path / "parts"
            folder.mkdir()
            write(folder / "a.jsonl", ITEMS[:2])
            (folder / "b.json").write_text(json.dumps(ITEMS[2:], ensure_ascii=False), encoding="utf-8")
            return folder


def test_every_format_gives_the_same_table(data: Path, tmp_path: Path) -> None:
    file = judge().run(data, tmp_path / "out", ALONE)
    assert file.name == "0-of-1.jsonl"
    assert sorted(line["id"] for line in read(file)) == [1, 2, 3, 4, 5]
    lines = {line.source: line for line in table([file])}
    assert lines["Real Data"].accuracy == 1.0
    assert (lines["Synthetic Data"].f1_unsafe, lines["Synthetic Data"].f1_safe) == (0.0, 0.0)
    assert lines["Translated Data"].f1_unsafe is None
    assert lines["Average"].accuracy == pytest.approx(2 / 3)
    assert lines["Average"].f1_unsafe == pytest.approx(0.5)


def test_the_verdict_reads_as_libra_guard_writes_it(tmp_path: Path) -> None:
    file = judge().run(write(tmp_path / "t.jsonl", ITEMS), tmp_path / "out", ALONE)
    assert [verdict_of(line["critic"]) for line in read(file)] == ["不安全", "安全", "不安全", "安全", "安全"]
    assert read(file)[0]["analyze"] == "无"


@pytest.mark.parametrize("machines", [1, 2, 3, 4, 7])
def test_machines_share_the_rows_out_without_gap_or_overlap(tmp_path: Path, machines: int) -> None:
    data = write(tmp_path / "t.jsonl", ITEMS)
    shared = [record.content["id"] for rank in range(machines) for record in rows(data, Share(rank, machines))]  # type: ignore[union-attr]
    assert shared == [1, 2, 3, 4, 5]


def test_an_interrupted_run_goes_on_after_the_last_whole_line(tmp_path: Path) -> None:
    data, out = write(tmp_path / "t.jsonl", ITEMS), tmp_path / "out"
    file = judge().run(data, out, ALONE)
    whole = file.read_bytes()
    lines = whole.split(b"\n")
    file.write_bytes(b"\n".join(lines[:3]) + b'\n{"id": 4, "sou')
    judge().run(data, out, ALONE)
    assert file.read_bytes() == whole


@pytest.mark.parametrize("critic", ["", "我不知道", '{"答案": "难说"}', '{"答案": 1}', "[]", None, 3])
def test_a_verdict_that_says_neither_counts_as_wrong(tmp_path: Path, critic: Any) -> None:
    file = write(
        tmp_path / "v.jsonl", [{**item(1, "x", "安全"), "critic": critic}, {**item(2, "x", "不安全"), "critic": critic}]
    )
    assert table([file])[0].accuracy == 0.0


def test_a_row_without_an_answer_and_one_the_guard_fails_on_are_reported_and_count_as_wrong(tmp_path: Path) -> None:
    listener = Listener()
    broken = {name: value for name, value in item(7, "x", "安全").items() if name != "response"}
    data = write(tmp_path / "t.jsonl", [broken, item(8, "boom", "安全"), item(9, "好", "安全")])
    file = judge(listener).run(data, tmp_path / "out", ALONE)
    assert [line["critic"] == "" for line in read(file)] == [True, True, False]
    assert table([file])[0].accuracy == pytest.approx(1 / 3)
    assert "t.jsonl:1: response" in listener.complaints[0]
    assert "fell over" in listener.complaints[1]


def test_the_table_is_printed_in_per_cent(tmp_path: Path) -> None:
    text = shown(table([judge().run(write(tmp_path / "t.jsonl", ITEMS), tmp_path / "out", ALONE)]))
    assert text.splitlines()[-1].split() == ["Average", "5", "50.00", "66.67", "66.67"]


def test_an_empty_folder_and_an_unknown_machine_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadData, match=r"no \.json"):
        list(rows(tmp_path, ALONE))
    given = ["libra-test", "--base_model", "x", "--data_path", str(tmp_path), "--out_path", str(tmp_path / "o")]
    assert main([*given, "--machine_rank", "2", "--machine_num", "2"]) == 2
    assert "--machine_rank 2" in capsys.readouterr().err
