"""`libragate guard tune-cascade`: the band, what it costs, and every file it cannot read."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.__main__ import main

Rows = Sequence[Mapping[str, Any]]
SMALL = [
    {"id": "a", "p_unsafe": 0.1, "ms": 1.0},
    {"id": "b", "p_unsafe": 0.4, "ms": 1.0},
    {"id": "c", "p_unsafe": 0.6, "ms": 1.0},
    {"id": "d", "p_unsafe": 0.9, "ms": 1.0},
]
LARGE = [
    {"id": "a", "p_unsafe": 0.2, "ms": 10.0, "label": "safe"},
    {"id": "b", "p_unsafe": 0.8, "ms": 10.0, "label": "unsafe"},
    {"id": "c", "p_unsafe": 0.9, "ms": 10.0, "label": "unsafe"},
    {"id": "d", "p_unsafe": 0.9, "ms": 10.0, "label": "unsafe"},
]


def run(folder: Path, small: Rows | str, large: Rows | str, *arguments: str) -> Result:
    paths = []
    for name, rows in (("small", small), ("large", large)):
        path = folder / f"{name}.jsonl"
        path.write_text(rows if isinstance(rows, str) else "\n".join(map(json.dumps, rows)) + "\n", "utf-8")
        paths += ["--scores", str(path)]
    return CliRunner().invoke(main, ["guard", "tune-cascade", *paths, *arguments])


def test_the_narrowest_band_that_keeps_the_loss_is_told_with_its_cost(tmp_path: Path) -> None:
    result = run(tmp_path, SMALL, LARGE, "--max-loss", "0", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert found["band"] == [0.4, 0.6]
    assert found["escalated"] == 0.25
    assert found["mistakes"] == {"small": 0.25, "large": 0.0, "cascade": 0.0}
    assert found["ms"] == {"large": 10.0, "cascade": 3.5}
    assert found["saved"] == pytest.approx(0.65)
    assert (found["schema"], found["command"], found["exit"]) == (1, "guard tune-cascade", 0)


def test_the_words_say_the_same(tmp_path: Path) -> None:
    said = run(tmp_path, SMALL, LARGE, "--max-loss", "0").stdout
    assert said.startswith("band: [0.4, 0.6]\nrows 4, escalated 25.0%\n")
    assert "saved: 65.0% of the time (3.5 ms a row instead of 10.0)" in said


def test_a_loss_that_the_small_guard_keeps_alone_escalates_nothing(tmp_path: Path) -> None:
    found = json.loads(run(tmp_path, SMALL, LARGE, "--max-loss", "0.25", "--json").stdout)
    assert found["escalated"] == 0
    assert found["band"][0] == found["band"][1]


def test_labels_may_stand_in_a_file_of_their_own_and_times_may_be_missing(tmp_path: Path) -> None:
    bare = [{"id": row["id"], "p_unsafe": row["p_unsafe"]} for row in LARGE]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps({"id": row["id"], "label": row["label"]}) for row in LARGE), "utf-8")
    found = json.loads(run(tmp_path, SMALL, bare, "--data", str(data), "--max-loss", "0", "--json").stdout)
    assert found["ms"] is None
    assert found["saved"] == 0.75


def test_a_cascade_that_saves_nothing_is_a_finding(tmp_path: Path) -> None:
    slow = [{**row, "ms": 100.0} for row in SMALL]
    assert run(tmp_path, slow, LARGE, "--max-loss", "0").exit_code == 1


@pytest.mark.parametrize(
    ("small", "large", "said"),
    [
        ("{", LARGE, "small.jsonl:1: is not JSON"),
        ("[1]", LARGE, "small.jsonl:1: has no id"),
        ([SMALL[0], SMALL[0]], LARGE, "a second row has the id a"),
        ([{"id": "a", "p_unsafe": 1.5}], LARGE, "outside 0..1"),
        ('{"id": "a", "p_unsafe": NaN}', LARGE, "no finite number"),
        ([{"id": "a", "p_unsafe": True}], LARGE, "no finite number"),
        ([{"id": "a"}], LARGE, "row a has no p_unsafe"),
        ([{"id": "z", "p_unsafe": 0.5}], LARGE, "no row in common"),
        ("", LARGE, "no row in common"),
        (SMALL, SMALL, "row a has no label -- name the labelled file with --data"),
        ([{"id": "a", "p_unsafe": 0.5, "label": "bad"}], LARGE, "not one of safe, unsafe"),
        ([{"id": "a", "p_unsafe": 0.5, "label": "unsafe"}], LARGE, "safe in one file and unsafe in another"),
    ],
)
def test_a_file_that_cannot_be_used_is_wrong_input(small: Rows | str, large: Rows, said: str, tmp_path: Path) -> None:
    result = run(tmp_path, small, large)
    assert result.exit_code == 2
    assert said in result.stderr


def test_one_score_file_is_not_enough(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text("", "utf-8")
    result = CliRunner().invoke(main, ["guard", "tune-cascade", "--scores", str(path)])
    assert result.exit_code == 2
    assert "give it twice" in result.stderr
