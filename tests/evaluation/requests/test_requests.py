"""Whole requests through the harness: judged as the gateway judges them, counted, and shown escaped."""

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.__main__ import main
from evaluation.metrics import wilson
from tests.evaluation.scripted import Listener, write

CONFIG = """
guards:
  - {kind: scripted, name: words, words: {evil: illegal_activities_and_crime, inject: prompt_attack}}
upstreams: {none: {kind: scripted}}
models: {none: {upstream: none}}
tenants: {t: {preset: balanced, models: "*", key_variable: NO_SUCH_KEY}}
"""


def request(name: str, text: str, label: str = "safe", **changes: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return {"id": name, "domain": "d", "lang": "en", "label": label, "kind": "user", "body": body, **changes}


def run(tmp_path: Path, rows: list[Any], *more: str, command: str = "requests") -> int:
    (tmp_path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    data = write(tmp_path / "life.jsonl", rows)
    return main([command, "--data", str(data), "--config", str(tmp_path / "config.yaml"), *more], Listener().watch)


def groups(folder: Path) -> dict[tuple[str, str], Any]:
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {(group["target"], group["label"]): group for group in report["groups"]}


def test_requests_are_counted_by_what_the_gateway_would_do(tmp_path: Path) -> None:
    rows = [request("a", "hello"), request("b", "evil", "unsafe"), request("c", "plain", "unsafe")]
    assert run(tmp_path, rows, "--out", str(tmp_path / "out")) == 0
    found = groups(tmp_path / "out")
    assert found["request", "safe"]["counts"] == {"allowed": 1}
    assert found["request", "unsafe"]["counts"] == {"blocked": 1, "allowed": 1}


def test_a_reply_is_judged_whole_and_as_a_stream(tmp_path: Path) -> None:
    rows = [request("a", "hi", reply="good words " * 40 + "evil"), request("b", "evil", reply="good words")]
    assert run(tmp_path, rows, "--stream", "--out", str(tmp_path / "out")) == 0
    found = groups(tmp_path / "out")
    assert found["reply", "safe"]["counts"] == {"blocked": 1, "allowed": 1}
    assert found["stream", "safe"]["counts"] == {"blocked": 1, "allowed": 1}


def test_every_wrong_row_is_told_at_once_with_line_and_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [request("a", "x"), request("a", "y"), request("b", "x", label="odd"), "{", request("c", "x", body={})]
    assert run(tmp_path, rows) == 2
    told = capsys.readouterr().err
    for number, field in ((2, "id"), (3, "label"), (4, "not JSON"), (5, "body")):
        assert f"life.jsonl:{number}: {field}" in told


def test_the_gate_exits_with_1_and_names_what_is_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, [request("a", "evil")], "--gate") == 1
    assert "request d en safe: blocked 1.000" in capsys.readouterr().out
    assert run(tmp_path, [request("a", "hello")], "--gate") == 0


def test_the_page_escapes_the_data(tmp_path: Path) -> None:
    rows = [request("a", "evil <script>alert(1)</script>", domain="<script>")]
    assert run(tmp_path, rows, "--out", str(tmp_path / "out")) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "This page holds content" in page


def test_injections_are_shown_by_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host = {"lang": "en", "kind": "tool_result", "label": "safe", "id": "a", "prompt": "x" * 100}
    planted = {**host, "id": "a-inj", "label": "unsafe", "prompt": "x" * 100 + "inject", "span": [100, 106]}
    assert run(tmp_path, [host, planted], command="injections") == 0
    (end,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("end ")]
    assert end.split()[1:4] == ["1", "1", "1.000"]


def test_wilson_intervals_stay_inside_0_and_1() -> None:
    none, every, nothing = wilson(0, 50), wilson(50, 50), wilson(0, 0)
    assert none.low == 0 and none.high == pytest.approx(0.0713, abs=1e-3)
    assert every.high == pytest.approx(1) and every.low == pytest.approx(0.9287, abs=1e-3)
    assert nothing.value is None
