"""Every provider's answers through the gateway: harmless ones arrive complete, a forbidden word in them does not."""

from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from gateway.dialects.dialect import Event, Json
from gateway.upstreams.upstream import Scripted
from guard_runtime.guards.scripted import ScriptedGuard, words
from tests.gateway.providers.rows import ROWS, Row
from tests.support.gateway_server import CRIME, KEY, Parts, record, served

BAD = "zqxbad"
ASKED = {"role": "user", "content": "What is the capital of France?"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"city": "Paris"}'}}


def plain(row: Row, *, tools: bool = False) -> dict[str, Any]:
    message = {"role": "assistant", "content": "It is Paris.", **row.message}
    if tools:
        message |= {"tool_calls": [{**CALL, **row.call}]}
    choice = {"index": 0, "message": message, "finish_reason": "stop", **row.choice}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": row.model,
        "choices": [choice],
        **row.beside,
    }


def chunks(row: Row, *, tools: bool = False) -> list[dict[str, Any]]:
    """The answer in three chunks: what the provider adds stands in the first."""
    whole = plain(row, tools=tools)
    stamp = {**whole, "object": "chat.completion.chunk"}
    first = {**whole["choices"][0], "delta": whole["choices"][0]["message"], "finish_reason": None}
    del first["message"]
    calls = first["delta"].get("tool_calls")
    if calls:
        first["delta"] = {**first["delta"], "tool_calls": [{**call, "index": 0} for call in calls]}
    more = {"index": 0, "delta": {"content": " On the Seine."}, "finish_reason": None}
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    return [{**stamp, "choices": [choice]} for choice in (first, more, last)]


def asked(answer: Json, events: list[dict[str, Any]], *, stream: bool, messages: Any = (ASKED,)) -> tuple[Any, Any]:
    """What the caller gets (the events' data for a stream), and the record."""
    sent = [*map(Event, events), Event(None)]
    parts = Parts(
        guards=(ScriptedGuard(words({BAD: CRIME})),), upstream=Scripted("s", lambda body: answer, lambda body: sent)
    )
    body = {"model": "m", "stream": stream, "messages": list(messages)}
    with served(parts.gateway) as url:
        headers = {"authorization": f"Bearer {KEY}"}
        reply = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=30)
        line = record(parts)
    if not stream or reply.status_code != 200:
        return reply.json(), line
    frames = [line.removeprefix("data: ") for line in reply.text.split("\n") if line.startswith("data: ")]
    return [orjson.loads(frame) for frame in frames if frame != "[DONE]"], line


def without(value: Any, names: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {key: without(inner, names) for key, inner in value.items() if key not in names}
    return [without(inner, names) for inner in value] if isinstance(value, list) else value


def poisoned(value: Any) -> Iterator[Any]:
    """Copies of a body, each with the forbidden word at the end of one of its texts."""
    if isinstance(value, str) and (" " in value or not value.isascii()):
        yield f"{value} {BAD}"
    elif isinstance(value, dict):
        yield from ({**value, key: bad} for key, inner in value.items() for bad in poisoned(inner))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from ([*value[:i], bad, *value[i + 1 :]] for bad in poisoned(inner))


@pytest.mark.parametrize("tools", [False, True])
@pytest.mark.parametrize("name", ROWS)
def test_a_harmless_answer_arrives_complete(name: str, tools: bool) -> None:
    row = ROWS[name]
    whole, events = plain(row, tools=tools), chunks(row, tools=tools)
    got, line = asked(whole, events, stream=False)
    assert got == without(whole, row.dropped)
    assert set(line.get("dropped_fields", ())) == row.dropped
    got, line = asked(whole, events, stream=True)
    assert got == without(events, row.dropped)
    assert set(line.get("dropped_fields", ())) == row.dropped


@pytest.mark.parametrize("name", ROWS)
def test_an_answer_can_be_sent_back_in_the_next_turn(name: str) -> None:
    row = ROWS[name]
    got, _ = asked(plain(row), [], stream=False)
    history = (ASKED, got["choices"][0]["message"], {"role": "user", "content": "And of Italy?"})
    again, line = asked(plain(row), [], stream=False, messages=history)
    assert (line["outcome"], again["choices"][0]["finish_reason"]) == ("allowed", "stop")


@pytest.mark.parametrize("name", ROWS)
def test_a_forbidden_word_in_any_text_does_not_reach_the_caller(name: str) -> None:
    row = ROWS[name]
    bodies = list(poisoned(plain(row, tools=True)))
    assert bodies
    for body in bodies:
        got, _ = asked(body, [], stream=False)
        assert BAD not in str(got)


@pytest.mark.parametrize("name", ROWS)
def test_a_forbidden_word_in_any_text_of_a_stream_does_not_reach_the_caller(name: str) -> None:
    row = ROWS[name]
    for events in poisoned(chunks(row, tools=True)):
        got, _ = asked({}, events, stream=True)
        assert BAD not in str(got)
