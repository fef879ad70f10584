"""What Claude Code sends: its requests and headers pass, what they hold of text is read, and errors are Anthropic's."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.upstreams.upstream import Scripted
from tests.support.gateway_server import KEY, Parts, served

HEADERS = {
    "authorization": f"Bearer {KEY}",
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,context-management-2025-06-27",
    "x-claude-code-session-id": "7b1c",
}
TURN: dict[str, Any] = {
    "model": "m",
    "max_tokens": 1000,
    "system": [{"type": "text", "text": "You are a coding agent.", "cache_control": {"type": "ephemeral"}}],
    "messages": [{"role": "user", "content": [{"type": "text", "text": "List the files"}]}],
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "medium", "task_budget": {"type": "tokens", "total": 9000}},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "compaction": {"type": "summarize", "instructions": "Keep the names of files."},
    "fallbacks": [{"model": "m-small"}],
    "billing_policy": {"type": "billing_policy"},
    "metadata": {"user_id": '{"device_id": "1", "session_id": "7b1c"}'},
}
ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "README.md"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


@pytest.fixture
def parts() -> Parts:
    counted = {"input_tokens": 42}
    return Parts(
        upstream=Scripted("scripted", lambda body: ANSWER if "max_tokens" in body else counted, lambda body: ())
    )


@pytest.fixture
def url(parts: Parts) -> Iterator[str]:
    with served(parts.gateway) as address:
        yield address


def upstream(parts: Parts) -> Scripted:
    assert isinstance(parts.upstream, Scripted)
    return parts.upstream


def with_block(block: Any) -> dict[str, Any]:
    return {**TURN, "messages": [*TURN["messages"], {"role": "assistant", "content": [block]}, TURN["messages"][0]]}


def test_a_turn_of_claude_code_passes_whole_with_the_headers_that_its_body_depends_on(url: str, parts: Parts) -> None:
    answer = httpx.post(f"{url}/v1/messages?beta=true", json=TURN, headers=HEADERS)
    assert (answer.status_code, answer.json()) == (200, ANSWER)
    assert upstream(parts).asked == [("/v1/messages", {**TURN, "model": "upstream-m"})]
    names = ("anthropic-beta", "anthropic-version")
    assert upstream(parts).headers == [{name: HEADERS[name] for name in names}]


def test_no_other_header_and_no_header_of_another_dialect_is_passed_on(url: str, parts: Parts) -> None:
    chat = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    httpx.post(f"{url}/v1/chat/completions", json=chat, headers=HEADERS)
    assert upstream(parts).headers == [{}]


def test_a_header_that_holds_more_than_names_is_refused(url: str, parts: Parts) -> None:
    answer = httpx.post(f"{url}/v1/messages", json=TURN, headers={**HEADERS, "anthropic-beta": '{"a": "b"}'})
    assert answer.status_code == 400 and "anthropic-beta" in answer.json()["error"]["message"]
    assert upstream(parts).asked == []


def test_tokens_are_counted_by_the_upstream_once_the_prompt_has_been_read(url: str, parts: Parts) -> None:
    body = {"model": "m", "messages": TURN["messages"], "system": TURN["system"], "thinking": TURN["thinking"]}
    answer = httpx.post(f"{url}/v1/messages/count_tokens", json=body, headers=HEADERS)
    assert (answer.status_code, answer.json()) == (200, {"input_tokens": 42})
    assert upstream(parts).asked[0][0] == "/v1/messages/count_tokens"
    blocked = httpx.post(f"{url}/v1/messages/count_tokens", json={**body, "system": "forbidden"}, headers=HEADERS)
    assert (blocked.status_code, blocked.json()["error"]["code"]) == (400, "content_filter")


@pytest.mark.parametrize("answer", [{}, {"input_tokens": "forbidden"}, {"input_tokens": 1, "note": "forbidden words"}])
def test_what_is_no_count_of_tokens_does_not_leave(answer: Any) -> None:
    parts = Parts(upstream=Scripted("scripted", lambda body: answer, lambda body: ()))
    body = {"model": "m", "messages": TURN["messages"]}
    with served(parts.gateway) as url:
        reply = httpx.post(f"{url}/v1/messages/count_tokens", json=body, headers=HEADERS)
    assert "forbidden" not in reply.text


BLOCKS = [
    {"type": "advisor_tool_result", "tool_use_id": "t", "content": {"type": "advisor_result", "text": "%s"}},
    {"type": "browser_state", "tabs": [{"tab_id": "1", "title": "%s", "url": "https://example.org", "active": True}]},
    {"type": "tool_addition", "tool": {"name": "f", "description": "%s", "input_schema": {"type": "object"}}},
    {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "%s"}},
    {"type": "mcp_tool_listing", "mcp_server_name": "s", "tools": [{"name": "f", "description": "%s"}]},
]


def filled(value: Any, word: str) -> Any:
    match value:
        case str():
            return value.replace("%s", word)
        case dict():
            return {key: filled(inner, word) for key, inner in value.items()}
        case list():
            return [filled(inner, word) for inner in value]
    return value


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block["type"])
def test_a_new_block_passes_and_is_read(url: str, block: Any) -> None:
    for word, status in (("harmless", 200), ("forbidden", 400)):
        answer = httpx.post(f"{url}/v1/messages", json=with_block(filled(block, word)), headers=HEADERS)
        assert answer.status_code == status, answer.text


def test_a_block_that_tells_of_another_model_passes_and_holds_names_only(url: str) -> None:
    block = {"type": "fallback", "from": {"model": "m"}, "to": {"model": "n"}, "trigger": {"type": "refusal"}}
    assert httpx.post(f"{url}/v1/messages", json=with_block(block), headers=HEADERS).status_code == 200
    block["trigger"] = {"type": "some text"}
    assert httpx.post(f"{url}/v1/messages", json=with_block(block), headers=HEADERS).status_code == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"compaction": {"type": "summarize", "instructions": "forbidden"}},
        {"context_management": {"edits": [{"type": "compact_20260112", "instructions": "forbidden"}]}},
        {"context_management": {"edits": [{"type": "x", "note": "some forbidden text"}]}},
    ],
)
def test_instructions_in_settings_are_read(url: str, fields: Any) -> None:
    answer = httpx.post(f"{url}/v1/messages", json={**TURN, **fields}, headers=HEADERS)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_filter")


def test_a_conversation_that_the_provider_stores_is_refused(url: str) -> None:
    answer = httpx.post(f"{url}/v1/messages", json={**TURN, "thread": {"id": "thread_1"}}, headers=HEADERS)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "thread"


@pytest.mark.parametrize("path", ["/v1/messages/batches", "/v1/messages/", "/v1/messages"])
def test_every_error_under_messages_has_the_shape_of_anthropic(url: str, path: str) -> None:
    answer = httpx.get(url + path)
    assert (answer.status_code, answer.json()["type"], answer.json()["error"]["type"]) == (
        404,
        "error",
        "not_found_error",
    )


def test_models_are_listed_in_the_shape_that_the_headers_ask_for(url: str) -> None:
    listed = httpx.get(f"{url}/v1/models?limit=1000", headers=HEADERS).json()
    assert [(model["type"], model["id"]) for model in listed["data"]] == [("model", "m")]
    assert (listed["has_more"], listed["first_id"], listed["last_id"]) == (False, "m", "m")
    assert httpx.get(f"{url}/v1/models/m", headers=HEADERS).json()["display_name"] == "m"
    plain = {"authorization": HEADERS["authorization"]}
    assert httpx.get(f"{url}/v1/models", headers=plain).json()["object"] == "list"
    refused = httpx.get(f"{url}/v1/models", headers={"anthropic-version": "2023-06-01"})
    assert (refused.status_code, refused.json()["type"]) == (401, "error")


def test_a_probe_finds_that_something_answers(url: str) -> None:
    assert httpx.head(url).status_code == 200
    assert httpx.get(url).json()["name"] == "LibraGate"
