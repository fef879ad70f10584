"""What Codex sends: its requests pass, and what it sends along is read."""

from typing import Any

import httpx
import pytest

from gateway.upstreams.upstream import Scripted
from tests.gateway.dialects.responses import full_compaction
from tests.support.gateway_server import KEY, Parts, served

HEADERS = {"authorization": f"Bearer {KEY}"}
MARK = {"turn_id": "019f-01"}
TURN: dict[str, Any] = {
    "model": "m",
    "instructions": "You are a coding agent.",
    "input": [
        {
            "type": "message",
            "role": "developer",
            "content": [{"type": "input_text", "text": "Sandbox: read-only"}],
            "internal_chat_message_metadata_passthrough": MARK,
        },
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "List the files", "prompt_cache_breakpoint": {"mode": "explicit"}}
            ],
            "metadata": MARK,
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Look first"}],
            "content": None,
        },
        {"type": "function_call", "name": "exec_command", "arguments": '{"cmd":"ls"}', "call_id": "call_1"},
        {"type": "function_call_output", "call_id": "call_1", "output": "README.md"},
        {"type": "configuration_update", "reasoning": {"effort": "low"}},
    ],
    "tools": [
        {"type": "function", "name": "exec_command", "strict": False, "parameters": {"type": "object"}},
        {
            "type": "namespace",
            "name": "agents",
            "description": "Tools for further agents.",
            "tools": [{"type": "function", "name": "stop", "strict": False, "parameters": {"type": "object"}}],
        },
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "019f-thread",
    "client_metadata": {"x-codex-installation-id": "e1f5", "x-codex-turn-metadata": '{"sandbox": "none", "turn": 1}'},
    "access_programs": {"cyber": "standard"},
    "background_options": {"completion_window": "soonest"},
    "image": {"context_compression": "auto"},
}


def answering(answer: Any) -> Parts:
    return Parts(upstream=Scripted("scripted", lambda body: answer, lambda body: ()))


def response(*output: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "output": list(output)}


MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "Done."}]}


def test_a_turn_of_codex_passes_whole() -> None:
    parts = answering(response(MESSAGE))
    with served(parts.gateway) as url:
        answer = httpx.post(f"{url}/v1/responses", json=TURN, headers=HEADERS)
    assert answer.status_code == 200, answer.text
    assert isinstance(parts.upstream, Scripted)
    assert parts.upstream.asked == [("/v1/responses", {**TURN, "model": "upstream-m"})]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "message", "role": "user", "content": "hi", "metadata": {"note": "a forbidden thing"}},
        {"type": "configuration_update", "reasoning": {"effort": "forbidden things"}},
        {"type": "configuration_update", "text": {"format": {"type": "json_schema", "name": "x forbidden"}}},
    ],
)
def test_text_in_places_for_names_and_settings_does_not_pass_unread(item: Any) -> None:
    parts = answering(response(MESSAGE))
    with served(parts.gateway) as url:
        answer = httpx.post(f"{url}/v1/responses", json={**TURN, "input": [item]}, headers=HEADERS)
    assert answer.status_code == 400
    assert isinstance(parts.upstream, Scripted)
    assert parts.upstream.asked == []


def test_a_trigger_of_compaction_passes_and_a_reference_to_a_stored_item_does_not() -> None:
    parts = answering(response(MESSAGE))
    with served(parts.gateway) as url:
        for item, status in (({"type": "compaction_trigger"}, 200), ({"type": "message", "id": "msg_1"}, 400)):
            body = {**TURN, "input": [*TURN["input"], item]}
            assert httpx.post(f"{url}/v1/responses", json=body, headers=HEADERS).status_code == status


def test_a_conversation_is_compacted_and_both_sides_are_read() -> None:
    asked = {"model": "m", "instructions": "Be brief.", "input": TURN["input"], "tools": TURN["tools"]}
    with served(answering(full_compaction.ANSWER).gateway) as url:
        answer = httpx.post(f"{url}/v1/responses/compact", json=asked, headers=HEADERS)
        assert (answer.status_code, answer.json()) == (200, full_compaction.ANSWER)
        blocked = httpx.post(f"{url}/v1/responses/compact", json={"model": "m", "input": "forbidden"}, headers=HEADERS)
        assert (blocked.status_code, blocked.json()["error"]["code"]) == (400, "content_filter")
        streamed = httpx.post(
            f"{url}/v1/responses/compact", json={**asked, "previous_response_id": "r"}, headers=HEADERS
        )
        assert streamed.status_code == 400
    bad = {**MESSAGE, "content": [{"type": "output_text", "text": "forbidden"}]}
    with served(answering({**full_compaction.ANSWER, "output": [bad]}).gateway) as url:
        answer = httpx.post(f"{url}/v1/responses/compact", json=asked, headers=HEADERS)
    assert answer.json()["object"] == "response.compaction"
    assert "forbidden" not in answer.text and answer.json()["output"][0]["content"][0]["type"] == "refusal"
