"""Bad data is refused with file, line and field before anything is trained."""

from pathlib import Path
from typing import Any

import pytest

from tests.training import tiny
from training.data.rows import BadInput, read_rows, write_rows
from training.learning import stage


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"label": "evil"}, "label"),
        ({"lang": "fr"}, "lang"),
        ({"direction": "both"}, "direction"),
        ({"quality": "best"}, "quality"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": "  "}, "prompt"),
        ({"direction": "response", "response": ""}, "response"),
        ({"categories": "hate"}, "categories"),
        ({"categories": ["kindness"]}, "categories"),
        ({"weight": -1}, "weight"),
        ({"weight": True}, "weight"),
        ({"kind": "poem"}, "kind"),
        ({"span": [1]}, "span"),
        ({"span": [0, 9]}, "span"),
        ({"span": [1, 1]}, "span"),
        ({"span": [False, 1]}, "span"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(tmp_path: Path, changed: dict[str, Any], field: str) -> None:
    path = tiny.write(tmp_path / "rows.jsonl", [tiny.row(0), tiny.row(1, **changed)])
    with pytest.raises(BadInput, match=rf"rows\.jsonl:2: {field}: "):
        read_rows(path)


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    broken = tiny.row(0)
    del broken["licence"]
    with pytest.raises(BadInput, match=r"rows\.jsonl:1: licence: missing"):
        read_rows(tiny.write(tmp_path / "rows.jsonl", [broken]))


def test_all_mistakes_of_a_file_are_reported_at_once(tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "rows.jsonl", [tiny.row(0, label="x"), tiny.row(1), tiny.row(1), "text"])
    path.write_text(path.read_text(encoding="utf-8") + "{nonsense\n", encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        read_rows(path)
    said = str(caught.value)
    assert all(part in said for part in (":1: label", ":3: id", "line 2", ":4: a row is an object", ":5: not JSON"))


def test_other_encodings_and_empty_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"prompt": "好"}\n'.encode("gb18030"))
    with pytest.raises(BadInput, match=r"rows\.jsonl:1: not UTF-8"):
        read_rows(path)
    path.write_bytes(b"")
    with pytest.raises(BadInput, match="no rows"):
        read_rows(path)
    with pytest.raises(BadInput, match="No such file"):
        read_rows(tmp_path / "absent.jsonl")


def test_rows_are_written_as_they_are_read(tmp_path: Path) -> None:
    read = read_rows(tiny.write(tmp_path / "a.jsonl", tiny.rows(20)))
    write_rows(tmp_path / "b.jsonl", read)
    assert read_rows(tmp_path / "b.jsonl") == read


def test_the_command_refuses_bad_rows_with_code_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.yaml").write_text("epochs: 1\n", encoding="utf-8")
    bad = tiny.write(tmp_path / "rows.jsonl", [tiny.row(0, label="x")])
    switches = [
        "--recipe",
        str(tmp_path / "r.yaml"),
        "--base",
        "none",
        "--rows",
        str(bad),
        "--out",
        str(tmp_path / "out"),
    ]
    assert stage.command(stage.parser(None).parse_args(switches)) == 2
    assert "rows.jsonl:1: label" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
