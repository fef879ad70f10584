"""Whole requests through the command, with a guard that a script says what to answer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluation.__main__ import main
from evaluation.requests.figures import Share
from tests.evaluation.scripted import Listener, read, write
from tests.evaluation.scripted import row as text_row

CONFIG = """
guards: [{kind: scripted, name: scripted, words: {evil: illegal_activities_and_crime}}]
upstreams: {none: {kind: scripted, says: ""}}
models: {none: {upstream: none}}
tenants: {one: {preset: balanced, models: "*", key_variable: LIBRAGATE_EVALUATION_KEY}}
"""


def request(name: str, text: str, label: str = "safe", **changes: Any) -> dict[str, Any]:
    body = {"model": "none", "messages": [{"role": "user", "content": text}]}
    return {"id": name, "domain": "chat", "lang": "en", "label": label, "kind": "plain", "body": body, **changes}


def run(folder: Path, rows: Sequence[object], *more: str) -> tuple[int, Path]:
    config = folder / "config.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    data = write(folder / "rows.jsonl", rows)
    out = folder / "out"
    command = ["requests", "--data", str(data), "--config", str(config), "--out", str(out), *more]
    return main(command, Listener().watch), out


def groups(out: Path) -> dict[tuple[str, str, str], Any]:
    told = json.loads((out / "requests.json").read_bytes())["groups"]
    return {(group["target"], group["domain"], group["label"]): group["effects"] for group in told}


def test_a_harmful_request_is_blocked_and_a_harmless_one_is_allowed(tmp_path: Path) -> None:
    code, out = run(tmp_path, [request("a", "hello"), request("b", "something evil", "unsafe")])
    assert code == 0
    assert groups(out)["request", "chat", "safe"]["allowed"] == 1
    assert groups(out)["request", "chat", "unsafe"]["blocked"] == 1


def test_a_reply_is_judged_whole_and_as_a_stream(tmp_path: Path) -> None:
    reply = "A long and friendly answer. " * 10 + "something evil. " + "More of the answer. " * 10
    code, out = run(tmp_path, [request("a", "hello", "unsafe", reply=reply)], "--stream")
    assert code == 0
    assert groups(out)["reply", "chat", "unsafe"]["blocked"] == 1
    assert groups(out)["stream", "chat", "unsafe"]["blocked"] == 1
    told = json.loads((out / "requests.json").read_bytes())
    assert told["stream_against_whole"] == {"whole_only": [], "stream_only": []}


def test_a_picture_that_nobody_reads_is_no_allowed_request(tmp_path: Path) -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    body = {"model": "none", "messages": [{"role": "user", "content": [picture]}]}
    code, out = run(tmp_path, [request("a", "", body=body)])
    assert code == 0
    assert groups(out)["request", "chat", "safe"]["could not look"] == 1


def test_every_wrong_row_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    no_label = request("b", "hello", label="perhaps")
    no_messages = request("c", "hello", body={"model": "none"})
    again = request("a", "hello")
    code, _ = run(tmp_path, [request("a", "hello"), no_label, no_messages, "{", again])
    told = capsys.readouterr().err
    assert code == 2
    assert "rows.jsonl:2: label: 'perhaps'" in told
    assert "rows.jsonl:3: body.messages" in told
    assert "rows.jsonl:4: not JSON" in told
    assert "rows.jsonl:5: id: 'a' has been used" in told


def test_the_page_escapes_what_the_data_says(tmp_path: Path) -> None:
    rows = [request("<script>x</script>", "something evil <b>", "unsafe", domain="<i>")]
    _, out = run(tmp_path, rows)
    page = (out / "requests.html").read_text(encoding="utf-8")
    assert "<script>" not in page and "<i>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(("number", "of", "low", "high"), [(0, 100, 0.0, 0.037), (50, 100, 0.404, 0.596)])
def test_intervals_are_wilsons(number: int, of: int, low: float, high: float) -> None:
    assert Share(number, of).interval == pytest.approx((low, high), abs=0.001)


def test_each_kind_of_text_is_put_where_it_belongs_and_the_requests_can_be_judged(tmp_path: Path) -> None:
    genres, written = tmp_path / "genres", tmp_path / "written"
    genres.mkdir()
    written.mkdir()
    kinds = ("user", "document", "code", "system", "tool_definition", "tool_result", "tool_call")
    write(genres / "genres_dev.jsonl", [{**text_row(kind, "good"), "kind": kind} for kind in kinds])
    write(genres / "genres_whole_dev.jsonl", [{**text_row("evil", "evil", "unsafe"), "kind": "tool_result"}])
    answer = {**text_row("answer", "hello"), "kind": "assistant", "direction": "response", "response": "good"}
    trained_on = {**text_row("train", "good"), "kind": "user", "split": "train"}
    write(written / "written_a.jsonl", [{**answer, "split": "dev"}, trained_on])
    out = tmp_path / "life.jsonl"
    command = ["build-requests", "--genres", str(genres), "--written", str(written), "--out", str(out)]
    assert main(command, Listener().watch) == 0
    made = {row["id"]: row for row in read(out)}
    assert set(made) == {*kinds, "evil", "answer"}
    assert made["tool_definition"]["body"]["tools"][0]["function"]["description"] == "good"
    assert made["tool_result"]["body"]["messages"][-1]["role"] == "tool"
    assert made["system"]["body"]["messages"][0] == {"role": "system", "content": "good"}
    assert made["answer"]["reply"] == "good"
    code, judged = run(tmp_path, list(made.values()))
    assert code == 0
    assert groups(judged)["request", "tool_result", "unsafe"]["blocked"] == 1


def test_a_row_that_no_request_can_be_made_of_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "genres_dev.jsonl", [{**text_row("a", "good"), "kind": "user", "lang": "fr"}])
    write(tmp_path / "genres_whole_dev.jsonl", [{**text_row("b", " "), "kind": "user"}])
    write(tmp_path / "written_a.jsonl", [])
    command = ["build-requests", "--genres", str(tmp_path), "--written", str(tmp_path), "--out", str(tmp_path / "o")]
    assert main(command, Listener().watch) == 2
    told = capsys.readouterr().err
    assert "genres_dev.jsonl:1: lang: 'fr'" in told
    assert "genres_whole_dev.jsonl:1: prompt" in told
