"""Anthropic bodies with every block and every event there is, and requests with one thing wrong in each."""

from typing import Any

from gateway.dialects.dialect import Event

EPHEMERAL = {"type": "ephemeral"}
CITATION = {"type": "char_location", "cited_text": "the sun", "document_index": 0, "document_title": "a b"}
SEARCH = {
    "type": "web_search_tool_result",
    "tool_use_id": "s1",
    "content": [
        {"type": "web_search_result", "url": "u", "title": "a b", "encrypted_content": "EqQB", "page_age": None}
    ],
}
ASSISTANT: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "well then", "signature": "EqQBCgIYAhIM+/="},
    {"type": "text", "text": "hello", "citations": [CITATION]},
    {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Lyon", "days": 3}},
    {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "sun"}},
    {"type": "mcp_tool_use", "id": "x1", "name": "t", "server_name": "s", "input": {"a": "b"}},
]
REQUEST: dict[str, Any] = {
    "model": "demo",
    "max_tokens": 100,
    "system": [{"type": "text", "text": "be kind", "cache_control": EPHEMERAL}],
    "messages": [
        {"role": "user", "content": "hello"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look", "cache_control": EPHEMERAL},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}},
                {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AA"}},
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "plain words"},
                    "title": "a title",
                    "context": "a context",
                    "citations": {"enabled": True},
                },
                {
                    "type": "document",
                    "source": {"type": "content", "content": [{"type": "text", "text": "words"}]},
                },
                {
                    "type": "search_result",
                    "source": "https://example.org",
                    "title": "a title",
                    "content": [{"type": "text", "text": "found"}],
                },
            ],
        },
        {"role": "assistant", "content": [*ASSISTANT, SEARCH, {"type": "redacted_thinking", "data": "EqQB"}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "sunny", "is_error": False},
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "content": [
                        {"type": "text", "text": "sunny"},
                        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
                    ],
                },
                {"type": "mcp_tool_result", "tool_use_id": "x1", "content": [{"type": "text", "text": "done"}]},
                {"type": "container_upload", "file_id": "file_1"},
            ],
        },
        {"role": "assistant", "content": "The answer is"},
    ],
    "tools": [
        {
            "name": "weather",
            "description": "of a place",
            "input_schema": {"type": "object", "properties": {"city": {"type": "string", "description": "which"}}},
        },
        {"type": "bash_20250124", "name": "bash"},
        {"type": "web_search_20250305", "name": "web_search", "allowed_domains": ["example.org"]},
    ],
    "tool_choice": {"type": "tool", "name": "weather"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"title": "what it is"}}},
    "stop_sequences": ["END"],
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "metadata": {"user_id": "u1"},
    "stream": True,
    "temperature": 1,
    "top_k": 5,
    "service_tier": "auto",
    "cache_control": EPHEMERAL,
}
USAGE = {"input_tokens": 3, "output_tokens": 2, "service_tier": "standard"}
BLANK: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "demo",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": USAGE,
}
ANSWER: dict[str, Any] = {
    **BLANK,
    "content": [*ASSISTANT, SEARCH],
    "stop_reason": "stop_sequence",
    "stop_sequence": "END",
    "stop_details": {"type": "refusal", "category": None, "explanation": "not this"},
    "container": {"id": "c1", "expires_at": "2026-01-01T00:00:00Z"},
}


def event(kind: str, **fields: Any) -> Event:
    return Event({"type": kind, **fields}, kind)


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[Event]:
    return [
        event("content_block_start", index=index, content_block=start),
        *(event("content_block_delta", index=index, delta=delta) for delta in deltas),
        event("content_block_stop", index=index),
    ]


def text_block(index: int, *pieces: str) -> list[Event]:
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": piece} for piece in pieces))


def tool_block(index: int, *pieces: str) -> list[Event]:
    start = {"type": "tool_use", "id": f"t{index}", "name": "weather", "input": {}}
    return block(index, start, *({"type": "input_json_delta", "partial_json": piece} for piece in pieces))


def whole(*events: Event, reason: str = "end_turn") -> tuple[Event, ...]:
    return (
        event("message_start", message=BLANK),
        event("ping"),
        *events,
        event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage={"output_tokens": 7}),
        event("message_stop"),
    )


THINKING = (
    {"type": "thinking_delta", "thinking": "well"},
    {"type": "thinking_delta", "thinking": " then"},
    {"type": "signature_delta", "signature": "EqQB+/="},
)
EVENTS = whole(
    *block(0, {"type": "thinking", "thinking": "", "signature": ""}, *THINKING),
    *text_block(1, "hel", "lo"),
    *block(2, {"type": "text", "text": ""}, {"type": "citations_delta", "citation": CITATION}),
    *tool_block(3, '{"city": ', '"Lyon"}'),
    *block(4, {**SEARCH, "content": [{"type": "web_search_result", "url": "u", "title": "a b"}]}),
)


def _asked(**fields: Any) -> dict[str, Any]:
    return {"model": "demo", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **fields}


def _said(*blocks: Any) -> dict[str, Any]:
    return _asked(messages=[{"role": "user", "content": list(blocks)}])


BAD_REQUESTS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}, "model"),
    ({"model": "demo", "max_tokens": 9}, "messages"),
    (_asked(messages=[]), "messages"),
    (_asked(messages={"role": "user"}), "messages"),
    (_asked(messages="hi"), "messages"),
    (_asked(messages=["hi"]), "messages[0]"),
    (_asked(messages=[{"role": "root", "content": "hi"}]), "messages[0].role"),
    (_asked(messages=[{"role": ["user"], "content": "hi"}]), "messages[0].role"),
    (_asked(messages=[{"role": "user", "content": 7}]), "messages[0].content"),
    (_asked(messages=[{"role": "user", "content": {"type": "text"}}]), "messages[0].content"),
    (_asked(messages=[{"role": "user", "content": "hi", "name": "ann"}]), "messages[0].name"),
    (_said("hi"), "messages[0].content[0]"),
    (_said({"text": "hi"}), "messages[0].content[0].type"),
    (_said({"type": "video", "source": {}}), "messages[0].content[0].type"),
    (_said({"type": "text", "text": 7}), "messages[0].content[0].text"),
    (_said({"type": "text"}), "messages[0].content[0].text"),
    (_said({"type": "text", "text": "a", "alt": "b"}), "messages[0].content[0].alt"),
    (_said({"type": "tool_use", "id": "two\nlines", "name": "f", "input": {}}), "messages[0].content[0].id"),
    (_said({"type": "tool_use", "id": "t", "name": "f", "input": "x"}), "messages[0].content[0].input"),
    (_said({"type": "tool_use", "id": "t", "name": 7, "input": {}}), "messages[0].content[0].name"),
    (_said({"type": "tool_result", "tool_use_id": "t", "content": 7}), "messages[0].content[0].content"),
    (_said({"type": "thinking", "thinking": "a", "signature": "a b"}), "messages[0].content[0].signature"),
    (_said({"type": "document", "source": "x"}), "messages[0].content[0].source"),
    (_asked(system=7), "system"),
    (_asked(system={"type": "text"}), "system"),
    (_asked(system=[{"type": "text", "text": "a", "alt": "b"}]), "system[0].alt"),
    (_asked(max_tokens=0), "max_tokens"),
    (_asked(max_tokens="9"), "max_tokens"),
    (_asked(temperature=1.5), "temperature"),
    (_asked(stream="yes"), "stream"),
    (_asked(tools={}), "tools"),
    (_asked(tools=["x"]), "tools[0]"),
    (_asked(tool_choice="auto"), "tool_choice"),
    (_asked(tool_choice={"type": "two words"}), "tool_choice"),
    (_asked(stop_sequences="END"), "stop_sequences"),
    (_asked(stop_sequences=[7]), "stop_sequences[0]"),
    (_asked(output_config={"format": "x"}), "output_config.format"),
    (_asked(output_config={"style": "x"}), "output_config.style"),
    (_asked(container="c1"), "container"),
    (_asked(mcp_servers=[{"type": "url", "url": "u"}]), "mcp_servers"),
    (_asked(prompt="hi"), "prompt"),
    (_asked(metadata="x"), "metadata"),
)
