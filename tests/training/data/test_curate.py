"""Curation: repeats, leaks and contradictions go, sources are capped and weighted, and the manifest says so."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.training.data.rows import read, row, write
from training.data.curate import main
from training.data.leaks import Leaks, folded
from training.data.rows import BadInput, read_rows

PLAN = """
cap: 30
caps: {forum: 5}
weights: {forum: 0.5}
weak: 0.7
doubted_below: 0.2
dropped_below: 0.04
"""
WORDS = "春夏秋冬山水花鸟鱼虫书画琴棋茶酒米面灯火车船桥路云雨风雪星月江河湖海松竹梅兰"


def sentence(number: int, length: int = 24) -> str:
    """A text that is near no other."""
    return "".join(random.Random(number).choices(WORDS, k=length))


def curated(tmp_path: Path, real: Sequence[object], synthetic: Sequence[object]) -> list[dict[str, Any]]:
    """What `curate` makes of these rows, beside one test row."""
    folder = tmp_path / "tests"
    folder.mkdir()
    write(folder / "test_a.jsonl", TESTS)
    (tmp_path / "plan.yaml").write_text(PLAN, encoding="utf-8")
    files = ["--real", str(write(tmp_path / "real.jsonl", real))]
    files += ["--synthetic", str(write(tmp_path / "synthetic.jsonl", synthetic))]
    out = ["--tests", str(folder), "--plan", str(tmp_path / "plan.yaml")]
    out += ["--out", str(tmp_path / "out.jsonl"), "--manifest", str(tmp_path / "m.json")]
    assert main([*files, *out]) == 0
    return read(tmp_path / "out.jsonl")


def manifest(tmp_path: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    return found


FILLER = [row(f"f{n}", sentence(n)) for n in range(3)]
TESTS = [row("t", sentence(900))]


def test_of_a_repeated_text_one_row_is_kept_whatever_its_spaces_and_marks(tmp_path: Path) -> None:
    text = sentence(100, 40)
    near = text[:-1] + "。"
    real = [row("a", text), row("b", f" {text}！"), row("c", near), *FILLER]
    kept = curated(tmp_path, real, [row("s", sentence(7))])
    assert len([one for one in kept if folded(str(one["prompt"]))[:39] == text[:39]]) == 1
    assert manifest(tmp_path)["repeats another row"] == {"tests/zh/prompt/safe": 2}


def test_the_same_text_with_two_labels_is_dropped_altogether(tmp_path: Path) -> None:
    real = [row("a", sentence(100)), row("b", sentence(100), "unsafe"), *FILLER]
    kept = curated(tmp_path, real, [row("s", sentence(7))])
    assert not {"a", "b"} & {one["id"] for one in kept}
    assert sum(manifest(tmp_path)["same text, two labels"].values()) == 1


def test_rows_near_a_test_row_go_real_and_synthetic_ones(tmp_path: Path) -> None:
    test = sentence(900)
    real, synthetic = [row("a", f"{test}？"), *FILLER], [row("s", test[:-1]), row("u", sentence(8))]
    kept = curated(tmp_path, real, synthetic)
    assert {one["id"] for one in kept} == {"f0", "f1", "f2", "u"}
    assert sum(manifest(tmp_path)["too close to a test row"].values()) == 2


def test_a_source_keeps_its_cap_and_counts_its_weight_and_weak_rows_count_less(tmp_path: Path) -> None:
    forum = [row(f"p{n}", sentence(n + 200), source="forum", quality="gold") for n in range(12)]
    weak = [row("w", sentence(300), quality="weak")]
    kept = curated(tmp_path, [*forum, *weak, *FILLER], [row("s", sentence(7))])
    weights = {str(one["id"]): one["weight"] for one in kept}
    assert sorted(weights[name] for name in weights if name.startswith("p")) == [0.5] * 5
    assert weights["w"] == 0.7
    assert manifest(tmp_path)["over the source's cap"] == {"forum/zh/prompt/safe": 7}


def test_a_label_that_the_other_rows_deny_is_dropped_unless_a_person_gave_it(tmp_path: Path) -> None:
    safe = [row(f"s{n}", "山水花鸟" + sentence(n, 12)) for n in range(60)]
    unsafe = [row(f"u{n}", "zzqqxxkk" + sentence(n + 500, 12), "unsafe") for n in range(60)]
    wrong = [
        row("wrong", "zzqqxxkk" + sentence(999, 12)),
        row("person", "zzqqxxkk" + sentence(998, 12), quality="gold"),
    ]
    (tmp_path / "big").mkdir()
    kept = {one["id"] for one in curated(tmp_path, [*safe, *unsafe, *wrong], [row("y", sentence(7))])}
    denied = manifest(tmp_path).get("label denied by the other parts", {})
    doubted = manifest(tmp_path).get("label doubted, half weight", {})
    assert sum(denied.values()) + sum(doubted.values()) == 1
    assert ("wrong" in kept) is (not denied)


def test_what_comes_out_can_be_trained_on(tmp_path: Path) -> None:
    curated(tmp_path, FILLER, [row("s", sentence(7))])
    assert {one.weight for one in read_rows(tmp_path / "out.jsonl")} == {1.0}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ({**row("x", "好的"), "label": "maybe"}, "real.jsonl:2: label"),
        ({name: value for name, value in row("x", "好的").items() if name != "lang"}, "real.jsonl:2: lang"),
        (row("f0", "好的"), "real.jsonl:2: id"),
        ("{half", "real.jsonl:2: not JSON"),
        (row("x", " "), "real.jsonl:2: prompt"),
        (row("x", "好", categories=["fun"]), "real.jsonl:2: categories"),
    ],
)
def test_bad_rows_end_the_command_with_file_line_and_field_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: object, complaint: str
) -> None:
    real = write(tmp_path / "real.jsonl", [FILLER[0], line])
    assert refused(tmp_path, real) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(("content", "complaint"), [(b"", "no rows"), ("坏".encode("gbk") + b"\n", "not UTF-8")])
def test_an_empty_file_and_one_of_another_encoding_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, complaint: str
) -> None:
    (tmp_path / "real.jsonl").write_bytes(content)
    assert refused(tmp_path, tmp_path / "real.jsonl") == 2
    assert complaint in capsys.readouterr().err


def refused(tmp_path: Path, real: Path) -> int:
    other = write(tmp_path / "synthetic.jsonl", FILLER)
    out = ["--out", str(tmp_path / "out.jsonl"), "--manifest", str(tmp_path / "m.json")]
    return main(["--real", str(real), "--synthetic", str(other), "--tests", str(tmp_path), *out])


def test_short_greetings_are_no_leaks() -> None:
    leaks = Leaks(["你好", "怎么把土豆炖得又软又香"])
    assert not leaks.found("你好！")
    assert leaks.found("怎么把土豆炖得又软又香？")


def test_a_line_separator_inside_a_text_ends_no_row(tmp_path: Path) -> None:
    real = [row("a", sentence(1) + "\u2028" + sentence(2)), *FILLER[1:]]
    kept = curated(tmp_path, real, [row("s", sentence(7) + "\x85" + sentence(8))])
    assert {"a", "s"} <= {one["id"] for one in kept}


@pytest.mark.parametrize("content", ["坏".encode("gbk"), b"{}", b"[1]", b"{half"])
def test_a_test_file_that_cannot_be_read_is_refused_with_its_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "test_a.jsonl").write_bytes(json.dumps(row("t", "好的")).encode() + b"\n" + content + b"\n")
    with pytest.raises(BadInput, match=r"test_a.jsonl:2"):
        Leaks.of_folder(tmp_path)
