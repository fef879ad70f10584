"""Every field and event of OpenAI's and Anthropic's stream schemas, from a bare provider on a socket, one character
an event and all in one piece of bytes: what leaves is what was cleared, and nothing is lost on the way."""

import json
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import httpx
import pytest
from anthropic.types import RawContentBlockDelta, RawMessageStreamEvent
from anthropic.types.raw_content_block_start_event import ContentBlock
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent
from pydantic import BaseModel

from gateway.dialects.dialect import Event
from gateway.dialects.sse import encode
from gateway.policy.policy import Action, DirectionPolicy, Rule
from gateway.upstreams.openai import Endpoint, OpenAICompatible
from guard_runtime.verdict import CATEGORIES
from tests.gateway.dialects.choices import full_chat, full_completions
from tests.gateway.dialects.messages import full_messages
from tests.gateway.dialects.responses import full_responses
from tests.support.faulty_provider import faulty_thread, raw_sse
from tests.support.gateway_server import KEY, Parts, blocking, record, served

CHAT, COMPLETIONS, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
HELLO = [{"role": "user", "content": "hello"}]
ASKED: Mapping[str, Mapping[str, Any]] = {
    CHAT: {"messages": HELLO, "n": 2},
    COMPLETIONS: {"prompt": ["a", "b"]},
    RESPONSES: {"input": "hello"},
    MESSAGES: {"messages": HELLO, "max_tokens": 100},
}
ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
MISHAPS = frozenset({"code", "message"})
"""Of a moderation that failed at the provider: with words in them the event is unreadable."""
LENIENT = DirectionPolicy({c: (Rule(0.5, Action.BLOCK),) for c in CATEGORIES}, on_unreadable=Action.ALLOW)
"""Sounds, pictures and what is sealed leave too, so that everything there is goes through the gate."""


def _kinds(union: Any) -> Iterator[str]:
    """The `type` of every member of a union of models."""
    plain = typing.get_args(union)[0] if typing.get_origin(union) is typing.Annotated else union
    for member in typing.get_args(plain):
        yield from typing.get_args(member.model_fields["type"].annotation)


def _fields(annotation: Any) -> Iterator[str]:
    """The name of every field of a model, and of the models in it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield name
            yield from _fields(field.annotation)
    for inner in typing.get_args(annotation):
        yield from _fields(inner)


def _keys(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for key, inner in value.items():
                yield key
                yield from _keys(inner)
        case list():
            for inner in value:
                yield from _keys(inner)


def _blocks() -> Iterator[Event]:
    """Anthropic's blocks that `full_messages` does not stream, each with text where it has a place for some."""
    found = [event.data["content_block"]["type"] for event in full_messages.EVENTS if "content_block" in event.data]  # type: ignore[operator, index]
    for number, kind in enumerate(sorted(set(_kinds(ContentBlock)) - set(found)), 5):
        content = {"type": f"{kind.removesuffix('_tool_result')}_result", "stdout": "a b", "stderr": ""}
        fields: Mapping[str, Any] = {
            "redacted_thinking": {"data": "EqQB"},
            "server_tool_use": {"id": "s1", "name": "web_search", "input": {}},
            "container_upload": {"file_id": "f1"},
        }.get(kind, {"tool_use_id": "s1", "content": content})
        yield from full_messages.block(number, {"type": kind, **fields})


def _quiet() -> Iterator[Event]:
    """The events of a response that `full_responses` does not stream."""
    told = {event.name for event in full_responses.EVENTS}
    for kind in sorted(set(_kinds(ResponseStreamEvent)) - told - ENDS):
        fields: Mapping[str, Any] = {
            "response.queued": {"response": {**full_responses.BLANK, "status": "queued"}},
            "response.audio.delta": {"delta": "AAAA"},
            "response.image_generation_call.partial_image": {"partial_image_b64": "AAAA", "partial_image_index": 0},
        }.get(kind, {"item_id": "z9", "output_index": 11})
        yield full_responses.event(kind, **fields)


SOUND = full_chat.chunk(full_chat.piece(0, {"audio": {"id": "a1", "data": "AAAA", "expires_at": 1}}))
SCRIPTS: Mapping[str, Sequence[Event]] = {
    CHAT: (*full_chat.EVENTS[:-3], SOUND, *full_chat.EVENTS[-3:]),
    COMPLETIONS: full_completions.EVENTS,
    RESPONSES: full_responses.numbered(*full_responses.EVENTS[:2], *_quiet(), *full_responses.EVENTS[2:]),
    MESSAGES: (*full_messages.EVENTS[:-2], *_blocks(), *full_messages.EVENTS[-2:]),
}


def test_every_field_of_openais_chunks_is_in_the_scripts() -> None:
    for path, model in ((CHAT, ChatCompletionChunk), (COMPLETIONS, Completion)):
        sent = {key for event in SCRIPTS[path] for key in _keys(event.data)}
        counts = {name for name in _fields(model) if name.endswith(("_tokens", "_tokens_details"))}
        assert set(_fields(model)) - counts - sent <= MISHAPS


def test_every_event_of_a_response_and_of_a_message_is_in_the_scripts() -> None:
    assert set(_kinds(ResponseStreamEvent)) - {event.name for event in SCRIPTS[RESPONSES]} == ENDS - {
        "response.completed"
    }
    assert set(_kinds(RawMessageStreamEvent)) <= {event.name for event in SCRIPTS[MESSAGES]}
    data: list[Any] = [event.data for event in SCRIPTS[MESSAGES]]
    assert set(_kinds(RawContentBlockDelta)) <= {one["delta"].get("type") for one in data if "delta" in one}
    assert set(_kinds(ContentBlock)) <= {one["content_block"]["type"] for one in data if "content_block" in one}


def _letters(holder: Mapping[str, Any], *fields: str) -> Iterator[dict[str, Any]]:
    """The object once for every character of each of these fields, the others of them left out; and what is left."""
    rest = {key: value for key, value in holder.items() if key not in fields or not isinstance(value, str)}
    for field in fields:
        for letter in holder.get(field) or "" if isinstance(holder.get(field), str) else "":
            yield {**{key: value for key, value in rest.items() if key in ("index", "type")}, field: letter}
    if set(rest) - {"index"}:
        yield rest


def _deltas(delta: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A chat delta, one character of one field at a time."""
    rest = dict(delta)
    for call in rest.pop("tool_calls", ()):
        for kind in ("function", "custom"):
            for part in _letters(call.get(kind) or {}, "name", "arguments", "input"):
                yield {"tool_calls": [{"index": call["index"], kind: part}]}
        yield {"tool_calls": [{key: value for key, value in call.items() if key not in ("function", "custom")}]}
    for name in ("function_call", "audio"):
        for part in _letters(rest.pop(name, {}), "name", "arguments", "transcript"):
            yield {name: part}
    for part in _letters(rest, "content", "refusal", "reasoning_content", "reasoning"):
        yield {key: value for key, value in part.items() if key != "index"}


def _choices(choice: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    index, rest = choice["index"], dict(choice)
    for delta in _deltas(rest.pop("delta", {})):
        yield {"index": index, "delta": delta, "finish_reason": None}
    for letter in rest.pop("text", ""):
        yield {"index": index, "text": letter, "finish_reason": None}
    yield {**rest, **({"delta": {}} if "delta" in choice else {"text": ""})}


def one_character(event: Event) -> Iterator[Event]:
    """The event as many events, each with one character of one text; objects that hold text go as they are."""
    data: Any = event.data
    if "choices" in data:
        head = {key: data[key] for key in ("id", "object", "created", "model")}
        for choice in data["choices"]:
            yield from (Event({**head, "choices": [part]}) for part in _choices(choice))
        yield Event({**data, "choices": []})
    elif data["type"] == "content_block_delta":
        fields = ("text", "thinking", "partial_json", "signature")
        for delta in _letters(data["delta"], *fields):
            if delta.keys() != {"type"}:
                yield Event({**data, "delta": delta}, event.name)
    elif data["type"].endswith(".delta") and isinstance(data["delta"], str) and "audio.delta" not in data["type"]:
        yield from (Event({**data, "delta": letter}, event.name) for letter in data["delta"])
    else:
        yield event


def _merged(one: Any, other: Any) -> Any:
    """Two deltas as one: texts and lists joined, calls by their index, of all else the later."""
    match one, other:
        case dict(), dict():
            named = {"id", "type", "index", "role"}
            both = {key: other[key] if key in named else _merged(one[key], other[key]) for key in one.keys() & other}
            return {**one, **other, **both}
        case str(), str():
            return one + other
        case list(), list():
            return [*one, *other]
        case _:
            return one if other is None else other


def in_one_chunk(events: Iterable[Event]) -> list[Event]:
    """All of a stream of choices in a single event."""
    data: list[Any] = [event.data for event in events]
    choices: dict[int, Any] = {}
    head: dict[str, Any] = {}
    for chunk in data:
        head |= {key: value for key, value in chunk.items() if value is not None}
        for choice in chunk["choices"]:
            choices[choice["index"]] = _merged(choices.get(choice["index"], {}), choice)
    return [Event({**head, "choices": list(choices.values())})]


def cut(path: str, how: str) -> list[Event]:
    script = list(SCRIPTS[path])
    if how == "one character an event":
        script = [small for event in script for small in one_character(event)]
        if path == RESPONSES:
            script = [*full_responses.numbered(*script)]
    elif path in (CHAT, COMPLETIONS):
        script = in_one_chunk(script)
    return [*script, *([Event(None)] if path in (CHAT, COMPLETIONS) else [])]


@pytest.mark.parametrize("path", SCRIPTS)
@pytest.mark.parametrize("how", ["one character an event", "all in one chunk"])
def test_every_field_of_a_schema_is_released_as_it_was_cleared(path: str, how: str) -> None:
    script = cut(path, how)
    pieces = [encode(event) for event in script]
    sent = pieces if how == "one character an event" else [b"".join(pieces)]
    with faulty_thread(raw_sse(*sent)) as provider:
        parts = Parts(upstream=OpenAICompatible("bare", Endpoint(provider.url)), policy=blocking(response=LENIENT))
        with served(parts.gateway) as url:
            body = {**ASKED[path], "model": "m", "stream": True}
            headers = {"authorization": f"Bearer {KEY}"}
            raw = httpx.post(f"{url}{path}", json=body, headers=headers, timeout=60)
            written: Any = record(parts)
    assert raw.status_code == 200, raw.text
    assert written["outcome"] == "allowed", (written, raw.text[-600:])
    assert written["characters"]["released"] == written["characters"]["cleared"] > 0
    assert written["characters"]["unguarded"] == 0
    lines = [line.removeprefix("data: ") for line in raw.text.splitlines() if line.startswith("data: ")]
    assert [json.loads(line) if line != "[DONE]" else None for line in lines] == [event.data for event in script]
