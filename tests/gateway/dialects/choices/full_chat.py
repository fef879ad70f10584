"""Chat bodies with every field there is, and requests with one thing wrong in each."""

from typing import Any

from gateway.dialects.dialect import Event

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "the weather of a place",
        "strict": True,
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "enum": ["Lyon", "成都"]}}},
    },
}
REQUEST: dict[str, Any] = {
    "model": "demo",
    "messages": [
        {"role": "developer", "content": "be kind", "name": "dev"},
        {"role": "system", "content": [{"type": "text", "text": "be brief"}]},
        {
            "role": "user",
            "name": "ann",
            "content": [
                {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {"type": "file", "file": {"file_data": "AAAA", "filename": "a.pdf", "file_id": "f1"}},
            ],
        },
        {
            "role": "assistant",
            "content": [{"type": "refusal", "refusal": "no"}],
            "refusal": "no",
            "reasoning_content": "thinking",
            "reasoning": "thinking",
            "reasoning_details": [{"type": "reasoning.text", "text": "thinking"}],
            "audio": {"id": "audio_1"},
            "annotations": [
                {"type": "url_citation", "url_citation": {"title": "a", "url": "u", "start_index": 0, "end_index": 1}}
            ],
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Lyon"}'}},
                {"id": "c2", "type": "custom", "custom": {"name": "grep", "input": "needle"}},
            ],
            "function_call": {"name": "weather", "arguments": "{}"},
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "function", "name": "weather", "content": "sunny"},
    ],
    "tools": [TOOL],
    "functions": [{"name": "f", "description": "legacy", "parameters": {"type": "object"}}],
    "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "function_call": {"name": "f"},
    "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"title": "what"}}},
    "prediction": {"type": "content", "content": [{"type": "text", "text": "the file"}]},
    "web_search_options": {"user_location": {"type": "approximate", "approximate": {"city": "Lyon"}}},
    "stop": ["END"],
    "stream": True,
    "stream_options": {"include_usage": True},
    "n": 2,
    "temperature": 0.5,
    "seed": 7,
    "logprobs": True,
    "top_logprobs": 2,
    "logit_bias": {"50256": -100},
    "user": "u1",
    "safety_identifier": "s1",
    "prompt_cache_key": "k1",
    "service_tier": "auto",
    "reasoning_effort": "low",
    "verbosity": "low",
    "thinking": {"type": "disabled"},
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy", "format": "wav"},
    "metadata": {"ticket": "77"},
    "store": False,
}
LOGPROBS = {
    "content": [
        {
            "token": "hel",
            "logprob": -0.1,
            "bytes": [104, 101, 108],
            "top_logprobs": [{"token": "hal", "logprob": -2.0, "bytes": [104, 97, 108]}],
        },
        {"token": "lo", "logprob": -0.1, "bytes": None, "top_logprobs": []},
    ],
    "refusal": None,
}
ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "demo",
    "system_fingerprint": "fp",
    "service_tier": "default",
    "provider": "Some One",
    "citations": ["https://example.org"],
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {"hate": {"severity": "safe"}}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    "choices": [
        {
            "index": 0,
            "message": {**REQUEST["messages"][3], "content": "hello", "audio": None, "role": "assistant"},
            "finish_reason": "stop",
            "native_finish_reason": "stop",
            "stop_reason": "END",
            "logprobs": LOGPROBS,
            "content_filter_results": {"hate": {"filtered": False, "severity": "safe"}},
        },
        {
            "index": 1,
            "message": {
                "role": "assistant",
                "content": None,
                "audio": {"id": "a", "data": "AAAA", "transcript": "hello", "expires_at": 1},
            },
            "finish_reason": "stop",
        },
    ],
}


JUDGED = {
    "type": "moderation_result",
    "model": "omni-moderation-latest",
    "flagged": False,
    "categories": {"self-harm/intent": False},
    "category_scores": {"self-harm/intent": 0.01},
    "category_applied_input_types": {"self-harm/intent": ["text"]},
}
RESULTS = {"type": "moderation_results", "model": "omni-moderation-latest", "results": [JUDGED]}
MODERATION = {"input": RESULTS, "output": RESULTS}


def chunk(*choices: dict[str, Any], **fields: Any) -> Event:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "demo"}
    return Event({**head, "choices": list(choices), **fields})


def piece(index: int, delta: dict[str, Any], finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish, **fields}


EVENTS: tuple[Event, ...] = (
    chunk(piece(0, {"role": "assistant", "content": ""}), system_fingerprint="fp", service_tier="default"),
    chunk(piece(0, {"content": "hello"}, logprobs=LOGPROBS), obfuscation="x9", usage=None),
    chunk(piece(0, {"reasoning_content": "a", "reasoning": "b", "refusal": "c"}), piece(1, {"content": "d"})),
    chunk(piece(1, {"annotations": [{"type": "url_citation"}], "reasoning_details": [{"text": "e"}]})),
    chunk(
        piece(
            0,
            {
                "tool_calls": [
                    {"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"ci'}},
                    {"index": 1, "id": "c2", "type": "custom", "custom": {"name": "grep", "input": "nee"}},
                ]
            },
        )
    ),
    chunk(piece(0, {"function_call": {"name": "f", "arguments": "{}"}})),
    chunk(piece(0, {"audio": {"id": "a1", "transcript": "hello"}}), provider="Some One", citations=["a b"]),
    chunk(piece(0, {}, "stop", stop_reason="END", content_filter_results={"hate": {"severity": "safe"}})),
    chunk(piece(1, {}, "length")),
    chunk(usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}, moderation=MODERATION),
)

HI = {"role": "user", "content": "hi"}


def _said(**fields: Any) -> dict[str, Any]:
    return {"model": "demo", "messages": [{**HI, **fields}]}


BAD_REQUESTS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"messages": [HI]}, "model"),
    ({"model": 7, "messages": [HI]}, "model"),
    ({"model": "demo"}, "messages"),
    ({"model": "demo", "messages": []}, "messages"),
    ({"model": "demo", "messages": {"role": "user"}}, "messages"),
    ({"model": "demo", "messages": "hi"}, "messages"),
    ({"model": "demo", "messages": [HI, "hi"]}, "messages[1]"),
    ({"model": "demo", "messages": [HI, None]}, "messages[1]"),
    ({"model": "demo", "messages": [{"content": "hi"}]}, "messages[0].role"),
    (_said(role="root"), "messages[0].role"),
    (_said(role=["user"]), "messages[0].role"),
    (_said(content=7), "messages[0].content"),
    (_said(content={"type": "text"}), "messages[0].content"),
    (_said(content=["hi"]), "messages[0].content[0]"),
    (_said(content=[{"text": "hi"}]), "messages[0].content[0].type"),
    (_said(content=[{"type": "video_url", "video_url": {"url": "x"}}]), "messages[0].content[0].type"),
    (_said(content=[{"type": {"a": 1}}]), "messages[0].content[0].type"),
    (_said(content=[{"type": "text", "text": 7}]), "messages[0].content[0].text"),
    (_said(content=[{"type": "text"}]), "messages[0].content[0].text"),
    (_said(content=[{"type": "text", "text": "a", "alt": "b"}]), "messages[0].content[0].alt"),
    (_said(content=[{"type": "image_url", "image_url": "x"}]), "messages[0].content[0].image_url"),
    (_said(name=7), "messages[0].name"),
    (_said(name=["a"]), "messages[0].name"),
    (_said(whisper="psst"), "messages[0].whisper"),
    (_said(cache_control={"type": "two words"}), "messages[0].cache_control"),
    (_said(role="tool", tool_call_id="two\nlines"), "messages[0].tool_call_id"),
    (_said(tool_calls={}), "messages[0].tool_calls"),
    (_said(tool_calls="x"), "messages[0].tool_calls"),
    (_said(tool_calls=["x"]), "messages[0].tool_calls[0]"),
    (_said(tool_calls=[{"id": "two\nlines"}]), "messages[0].tool_calls[0].id"),
    (_said(tool_calls=[{"function": "x"}]), "messages[0].tool_calls[0].function"),
    (_said(tool_calls=[{"function": {"name": 1}}]), "messages[0].tool_calls[0].function.name"),
    (_said(tool_calls=[{"function": {"arguments": {}}}]), "messages[0].tool_calls[0].function.arguments"),
    (_said(tool_calls=[{"function": {"more": "x"}}]), "messages[0].tool_calls[0].function.more"),
    (_said(function_call="x"), "messages[0].function_call"),
    (_said(audio="x"), "messages[0].audio"),
    ({"model": "demo", "messages": [HI], "n": 0}, "n"),
    ({"model": "demo", "messages": [HI], "n": 129}, "n"),
    ({"model": "demo", "messages": [HI], "n": 1.5}, "n"),
    ({"model": "demo", "messages": [HI], "n": True}, "n"),
    ({"model": "demo", "messages": [HI], "n": "2"}, "n"),
    ({"model": "demo", "messages": [HI], "temperature": 10**18}, "temperature"),
    ({"model": "demo", "messages": [HI], "temperature": float("nan")}, "temperature"),
    ({"model": "demo", "messages": [HI], "max_tokens": -1}, "max_tokens"),
    ({"model": "demo", "messages": [HI], "stream": 1}, "stream"),
    ({"model": "demo", "messages": [HI], "stream_options": []}, "stream_options"),
    ({"model": "demo", "messages": [HI], "tools": {}}, "tools"),
    ({"model": "demo", "messages": [HI], "tools": ["x"]}, "tools[0]"),
    ({"model": "demo", "messages": [HI], "tool_choice": 7}, "tool_choice"),
    ({"model": "demo", "messages": [HI], "stop": 7}, "stop"),
    ({"model": "demo", "messages": [HI], "stop": [7]}, "stop[0]"),
    ({"model": "demo", "messages": [HI], "response_format": "json"}, "response_format"),
    ({"model": "demo", "messages": [HI], "prediction": "x"}, "prediction"),
    ({"model": "demo", "messages": [HI], "prediction": {"content": 7}}, "prediction.content"),
    ({"model": "demo", "messages": [HI], "prediction": {"note": "x"}}, "prediction.note"),
    ({"model": "demo", "messages": [HI], "metadata": "x"}, "metadata"),
    ({"model": "demo", "messages": [HI], "user": "two\nlines"}, "user"),
    ({"model": "demo", "messages": [HI], "audio": {"voice": "two words"}}, "audio"),
    ({"model": "demo", "messages": [HI], "guided_regex": ".*"}, "guided_regex"),
    ({"model": "demo", "messages": [HI], "two words": 1}, "(key)"),
)
"""Each with the field that the error must name."""
