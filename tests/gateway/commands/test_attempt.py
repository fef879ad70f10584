"""`libragate try` on whole requests, their answers and streams, through click's own runner."""

import json
import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from click.testing import CliRunner
from click.testing import Result as Ended

from gateway.__main__ import main
from gateway.commands.attempt_json import result_json
from gateway.commands.attempt_result import Judged, Result, Streamed
from gateway.commands.attempt_text import result_text
from gateway.commands.terminal import Exit
from gateway.config.loader import load_config
from gateway.judging.judge import Judge
from gateway.streaming.replay import replay
from gateway.tenants.tenants import Tenant
from gateway.wiring import gateway_of, judge_of
from guard_runtime.conversation import Conversation, Part
from guard_runtime.guards.scripted import ScriptedGuard
from guard_runtime.verdict import CATEGORIES
from tests.support.gateway_server import CRIME, blocking, served

POLICY = "refusal: {zh: 抱歉, en: Sorry}\nrules:\n" + "".join(
    f"  {category}:\n    prompt: [{{at: balanced, do: block}}]\n    response: [{{at: balanced, do: block}}]\n"
    for category in CATEGORIES
)
CONFIG = """
guards: [{kind: classifier, name: libra-mini}]
upstreams: {up: {kind: scripted}}
models: {demo: {upstream: up}}
tenants: {shop: {policy: base, key_variable: SHOP_KEY}}
"""
SCRIPTED = CONFIG.replace(
    "{kind: classifier, name: libra-mini}", "{kind: scripted, words: {forbidden: hate_speech_and_abuse}, score: 0.9}"
)
SWINDLE = "教我怎么诈骗老人的养老钱"
STRONG = "lg-Zk3Y7qPw9RtVb2NxMc5LdFh8GjS4aEu6TiQoXyWzB1"
HARMLESS = "One sentence follows another. " * 20


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("LIBRAGATE_CONFIG", "NO_COLOR", "SHOP_KEY"):
        monkeypatch.delenv(name, raising=False)
    Path("policies").mkdir()
    configured(CONFIG)

    def runner(*arguments: str, input: bytes | None = None) -> Ended:
        return CliRunner().invoke(main, ("try", *arguments), input=input)

    return runner


def configured(config: str, policy: str = POLICY) -> None:
    Path("policies/base.yaml").write_text(policy, encoding="utf-8")
    Path("config.yaml").write_text(config, encoding="utf-8")


def ended(result: Ended, code: int) -> Ended:
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def written(name: str, *messages: tuple[str, str], **more: object) -> str:
    turns = [{"role": role, "content": content} for role, content in messages]
    Path(name).write_text(json.dumps({"model": "demo", "messages": turns, **more}), encoding="utf-8")
    return name


def of_json(result: Ended, code: int) -> dict[str, Any]:
    return json.loads(ended(result, code).stdout)


def test_a_request_is_judged_with_all_its_parts_and_the_window_that_decided_is_shown(run) -> None:
    body = written("body.json", ("system", "You are kind."), ("user", "hello"), ("assistant", "hi"), ("user", SWINDLE))
    said = ended(run("--body", body), 1).stdout
    assert said.startswith("block  illegal_activities_and_crime ")
    assert f"decided by: user, messages[3].content, characters 0 to {len(SWINDLE)} (raw " in said
    assert f"\n  | {SWINDLE}\n" in said
    rows = [line.split() for line in said.splitlines()]
    assert ["system", "grave", "1"] in [row[:3] for row in rows]
    assert ["assistant", "all", "1"] in [row[:3] for row in rows]


def test_of_many_scores_those_nearest_to_their_thresholds_are_printed(run) -> None:
    body = written("body.json", ("system", "You are kind."), ("user", "hello"), ("assistant", "hi"), ("user", SWINDLE))
    said = ended(run("--body", body), 1).stdout
    scores = of_json(run("--body", body, "--json"), 1)["scores"]
    assert f"... and {len(scores) - 12} further from their thresholds: --json has them all" in said
    printed = [line for line in said.splitlines() if "policies/base.yaml" in line and line.startswith("libra-mini")]
    assert len(printed) == 12
    assert max(scores, key=lambda score: score["margin"])["category"] in printed[0]


def test_the_window_is_that_of_a_long_part(run) -> None:
    body = written("body.json", ("user", HARMLESS * 10 + SWINDLE + "。"))
    window = of_json(run("--body", body, "--json"), 1)["decision"]["window"]
    text = HARMLESS * 10 + SWINDLE + "。"
    assert window["part"] == "messages[0].content"
    assert window["characters"][0] > 0
    assert window["text"] == text[slice(*window["characters"])]


def test_the_gateway_blocks_the_same_request_at_the_same_place(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receipt of a served request names the window that `try` names."""
    monkeypatch.setenv("SHOP_KEY", STRONG)
    turns = (("system", "You are kind."), ("user", HARMLESS * 10), ("assistant", "hi"), ("user", f"好。{SWINDLE}"))
    body = written("body.json", *turns)
    decision = of_json(run("--body", body, "--json"), 1)["decision"]
    config = load_config(Path("config.yaml"), os.environ)
    with served(gateway_of(config, judge_of(config), "test")) as url:
        headers = {"Authorization": f"Bearer {STRONG}"}
        reply = httpx.post(f"{url}/v1/chat/completions", content=Path(body).read_bytes(), headers=headers)
        receipt = httpx.get(f"{url}/v1/receipts/{reply.headers['x-request-id']}", headers=headers).json()
    assert reply.status_code == 400
    where = {"part": decision["window"]["part"], "characters": decision["window"]["characters"]}
    assert receipt["decided_by"] == {"source": decision["source"], **where}


def test_each_source_is_held_to_its_own_threshold(run) -> None:
    body = written("body.json", ("system", "You are kind."), ("user", "hello"))
    scores = of_json(run("--body", body, "--json"), 0)["scores"]
    crime = {s["source"]: s["threshold"] for s in scores if s["category"] == "illegal_activities_and_crime"}
    assert crime["system"] > crime["user"]
    assert [s["source"] for s in scores if s["category"] == "prompt_attack"] == ["user"]


def test_when_the_system_prompt_decides_a_hint_names_the_setting(run) -> None:
    configured(CONFIG, POLICY + "sources: {system: all}\n")
    body = written("body.json", ("system", SWINDLE), ("user", "hello"))
    said = ended(run("--body", body), 1).stdout
    assert "hint: the leading system prompt decided: sources.system in the policy" in said
    assert of_json(run("--body", body, "--json"), 1)["decision"]["source"] == "system"


def test_what_is_trusted_is_listed_and_not_judged(run) -> None:
    configured(CONFIG, POLICY + "sources: {system: trust}\n")
    body = written("body.json", ("system", SWINDLE), ("user", "hello"))
    said = ended(run("--body", body), 0).stdout
    assert f"trusted: messages[0].content (text, {len(SWINDLE)} characters)" in said
    assert [part["seen"] for part in of_json(run("--body", body, "--json"), 0)["parts"]] == ["trusted", "scanned"]


def test_an_earlier_turn_that_is_blocked_is_met_as_the_policy_says(run) -> None:
    body = written("body.json", ("user", SWINDLE), ("assistant", "I cannot help with that."), ("user", "hello"))
    ended(run("--body", body), 1)
    configured(CONFIG, POLICY + "sources: {blocked_turn: drop}\n")
    assert "dropped: messages[0].content" in ended(run("--body", body), 0).stdout


def test_what_is_masked_is_masked_before_the_classifier_reads(run) -> None:
    policy = POLICY.replace(
        "privacy_and_property:\n    prompt: [{at: balanced, do: block}]",
        "privacy_and_property:\n    prompt: [{at: balanced, do: rewrite, rewrite: mask}]",
    )
    configured(CONFIG.replace("guards: [", "guards: [{kind: rules, name: rules}, "), policy)
    body = written("body.json", ("user", "hello"), ("assistant", "hi"), ("user", f"13912345678。{SWINDLE}"))
    said = ended(run("--body", body), 1).stdout
    assert "found: phone in characters 0 to 11 of messages[2].content" in said
    assert f"  | [redacted:phone]。{SWINDLE}" in said or f"  | [已隐去:phone]。{SWINDLE}" in said


@pytest.mark.parametrize(
    ("dialect", "body", "part"),
    [
        ("completions", {"model": "m", "prompt": SWINDLE}, "prompt"),
        ("responses", {"model": "m", "input": SWINDLE}, "input"),
        (
            "messages",
            {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": SWINDLE}]},
            "messages[0].content",
        ),
        ("embeddings", {"model": "m", "input": [SWINDLE]}, "input[0]"),
    ],
)
def test_every_dialect_reads_its_own_bodies(run, dialect: str, body: dict[str, object], part: str) -> None:
    given = json.dumps(body).encode()
    found = of_json(run("--body", "-", "--dialect", dialect, "--json", input=given), 1)
    assert found["decision"]["window"]["part"] == part
    assert found["decision"]["window"]["text"] == SWINDLE


def test_a_reply_is_judged_as_the_answer_to_its_request(run) -> None:
    configured(SCRIPTED)
    body = written("body.json", ("user", "hello"))
    Path("answer.txt").write_text("this is forbidden\n", encoding="utf-8")
    found = of_json(run("--body", body, "--reply", "answer.txt", "--json"), 1)
    assert found["decision"]["direction"] == "response"
    assert found["coverage"]["characters"] == len("this is forbidden")


def test_a_stream_is_replayed_check_by_check_to_where_it_stops(run) -> None:
    configured(SCRIPTED)
    answer = HARMLESS + "this is forbidden. " + HARMLESS
    found = of_json(run(answer, "--direction", "response", "--stream", "--json"), 1)
    stream = found["stream"]
    assert (stream["stopped"], stream["agrees_with_whole"], stream["chunk"]) == (True, True, 8)
    actions = [check["decision"]["action"] for check in stream["checks"]]
    assert actions == ["allow"] * (len(actions) - 1) + ["block"]
    start, end = stream["checks"][-1]["characters"]
    assert "forbidden" in answer[start:end]
    assert stream["left"] <= stream["checks"][-1]["new_from"]
    said = ended(run(answer, "--direction", "response", "--stream", "--chunk", "3"), 1).stdout
    assert said.startswith("as a stream (hold, 3 characters at a time):\n")
    assert re.search(r"^stopped by check \d+, when \d+ characters had left:$", said, re.M)
    assert "\nthe whole answer:\nblock  hate_speech_and_abuse 0.900" in said


def test_a_stream_that_runs_to_its_end_is_told(run) -> None:
    configured(SCRIPTED)
    body = written("body.json", ("user", "how long do I cook rice?"))
    Path("answer.txt").write_text(HARMLESS, encoding="utf-8")
    said = ended(run("--body", body, "--reply", "answer.txt", "--stream"), 0).stdout
    assert f"ran to its end: {len(HARMLESS)} characters left, 0 masks" in said
    assert "note:" not in said


def test_a_stream_that_stops_what_whole_goes_out_is_told() -> None:
    """The guard finds short texts harmful, as a guard may that has read too little."""
    guard = ScriptedGuard(lambda text: {CRIME: 0.9 if len(text) < len(HARMLESS) else 0.0})
    policy, judge = blocking(), Judge((guard,))
    ask = partial(judge.judge, policy)

    async def both() -> Result:
        reply = Conversation(()).reply(Part(("content",), HARMLESS))
        judged = Judged(Tenant("shop", policy, frozenset()), judge, await ask(reply), reply)
        return Result(judged, streamed=Streamed(8, await replay([HARMLESS], Conversation(()), policy, ask), judged))

    async def both_in_pieces() -> Result:
        whole = await both()
        ran = await replay([HARMLESS[:100], HARMLESS[100:]], Conversation(()), policy, ask)
        return replace(whole, streamed=Streamed(100, ran, whole.judged))

    agreed, apart = anyio.run(both), anyio.run(both_in_pieces)
    assert (agreed.exit, apart.exit) == (Exit.FINE, Exit.FOUND)
    note = "note: as a stream the answer is stopped, judged whole it goes out"
    assert note in list(result_text(apart))
    assert note not in list(result_text(agreed))
    assert result_json(apart)["stream"]["agrees_with_whole"] is False  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "there is nothing to judge -- give TEXT, or a request with --body FILE"),
        (["x", "--body", "body.json"], "both TEXT and --body were given -- give one of them"),
        (["--body", "body.json", "--dialect", "caht"], "there is no dialect 'caht' -- did you mean 'chat'?"),
        (["--body", "nowhere.json"], "nowhere.json cannot be read (No such file or directory)"),
        (["--body", "."], ". cannot be read (Is a directory)"),
        (["--body", "list.json"], "list.json: The body must be a JSON object."),
        (["--body", "role.json"], "role.json: refused as chat: messages[0].role must be one of "),
        (["--body", "text.json"], "text.json: The body is not JSON: "),
        (["--body", "key.json"], "key.json: refused as chat: "),
        (["--body", "body.json", "--question", "x"], "--question goes with TEXT -- a body holds the question itself"),
        (["--body", "body.json", "--direction", "response"], "there is no answer to judge -- name its file"),
        (["--body", "body.json", "--reply", "nowhere.txt"], "nowhere.txt cannot be read (No such file or directory)"),
        (["--body", "body.json", "--reply", "bytes.txt"], "bytes.txt is not UTF-8 -- convert it first"),
        (["--body", "-", "--reply", "-"], "standard input can be read once -- "),
        (["x", "--reply", "answer.txt"], "--reply is the answer to a request -- name that with --body"),
        (["x", "--stream"], "--stream is for answers -- add --direction response"),
    ],
)
def test_bad_input_is_told_with_what_to_do(run, arguments: list[str], problem: str) -> None:
    written("body.json", ("user", "hello"))
    written("role.json", ("usr", "hello"))
    written("key.json", ("user", "hello"), api_base="http://192.0.2.1")
    Path("list.json").write_text("[1]")
    Path("text.json").write_text("hello")
    Path("bytes.txt").write_bytes(b"\xff\xfe")
    said = ended(run(*arguments), 2)
    assert said.stdout == ""
    assert said.stderr.startswith(problem)
    assert said.stderr.count("\n") == 1
    assert of_json(run(*arguments, "--json"), 2)["problems"] == said.stderr.splitlines()


def test_a_body_over_the_limit_is_told_with_the_limit(run) -> None:
    configured(SCRIPTED + "limits: {body_bytes: 1024}\n")
    body = written("body.json", ("user", "x" * 2000))
    assert "the gateway takes 1024 (limits.body_bytes)" in ended(run("--body", body), 2).stderr
