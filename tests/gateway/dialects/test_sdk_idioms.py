"""What SDKs send back of an answer, and ids as clients make them: they pass, and what can reach a model is read."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.dialects.dialect import Json
from gateway.upstreams.upstream import Scripted
from tests.support.gateway_server import KEY, Parts, served

HEADERS = {"authorization": f"Bearer {KEY}"}
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
HELLO = {"role": "user", "content": "hello"}


def answer(body: Json) -> Json:
    """The smallest answer of the dialect that the request is in."""
    if "input" in body:
        return {"id": "r", "object": "response", "output": []}
    if "max_tokens" in body:
        return {"id": "m", "type": "message", "role": "assistant", "content": []}
    return {"id": "c", "object": "chat.completion", "choices": [{"index": 0, "message": {"content": "ok"}}]}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(Parts(upstream=Scripted("scripted", answer, lambda body: ())).gateway) as address:
        yield address


def chat(*messages: Json, **fields: Any) -> tuple[str, Json]:
    return CHAT, {"model": "m", "messages": [HELLO, *messages], **fields}


def calling(id: str, **function: Any) -> Json:
    call = {"id": id, "type": "function", "function": {"name": "f", "arguments": "{}", **function}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def response(*items: Json, **fields: Any) -> tuple[str, Json]:
    return RESPONSES, {"model": "m", "input": [HELLO, *items], **fields}


def message(*blocks: Json) -> tuple[str, Json]:
    return MESSAGES, {"model": "m", "max_tokens": 9, "messages": [HELLO, {"role": "assistant", "content": [*blocks]}]}


def said(word: str) -> Json:
    piece = {"type": "output_text", "text": "{}", "annotations": [], "parsed": {"answer": word}}
    return {"type": "message", "role": "assistant", "content": [piece]}


def call_item(**fields: Any) -> Json:
    return {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c", **fields}


def bodies(word: str) -> list[Any]:
    """Places that a model may read; each named for the test."""
    return [
        pytest.param(chat({"role": "assistant", "content": "{}", "parsed": {"answer": word}}), id=f"parsed {word}"),
        pytest.param(chat(calling("c", parsed_arguments={"a": word})), id=f"parsed arguments {word}"),
        pytest.param(chat(calling(f"functions.f:0 {word}")), id=f"id of a call {word}"),
        pytest.param(
            chat(calling("c"), {"role": "tool", "tool_call_id": f"调用 {word}", "content": "1"}),
            id=f"id of a result {word}",
        ),
        pytest.param(response(said(word)), id=f"parsed of a response {word}"),
        pytest.param(response(call_item(parsed_arguments={"a": word})), id=f"parsed arguments of a response {word}"),
        pytest.param(response(call_item(call_id=f"call {word}")), id=f"id in a response {word}"),
        pytest.param(
            message({"type": "tool_use", "id": f"toolu {word}", "name": "f", "input": {}}), id=f"id in a message {word}"
        ),
    ]


@pytest.mark.parametrize("asked", bodies("harmless"))
def test_what_an_sdk_sends_back_passes(url: str, asked: tuple[str, Json]) -> None:
    reply = httpx.post(url + asked[0], json=asked[1], headers=HEADERS)
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("asked", bodies("forbidden"))
def test_what_an_sdk_sends_back_is_read(url: str, asked: tuple[str, Json]) -> None:
    reply = httpx.post(url + asked[0], json=asked[1], headers=HEADERS)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "content_filter"), reply.text


LABELS = ("user", "safety_identifier", "prompt_cache_key")


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("ask", [chat, response])
def test_labels_of_callers_pass_in_any_language(url: str, ask: Any, label: str) -> None:
    for value, status in (
        ("张三 2 号", 200),
        ("x" * 512, 200),
        ("x" * 513, 400),
        ("two\nlines", 400),
        ({"a": "b"}, 400),
    ):
        path, body = ask(**{label: value})
        assert httpx.post(url + path, json=body, headers=HEADERS).status_code == status


def test_cache_breakpoints_and_the_newest_options_of_chat_pass(url: str) -> None:
    piece = {"type": "text", "text": "hello", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}}
    options = {
        "prompt_cache_options": {"mode": "explicit", "ttl": "30m"},
        "moderation": {"model": "omni-moderation-latest", "policy": {"input": {"mode": "score"}}},
    }
    path, body = chat({"role": "user", "content": [piece]}, **options)
    reply = httpx.post(url + path, json=body, headers=HEADERS)
    assert reply.status_code == 200, reply.text
