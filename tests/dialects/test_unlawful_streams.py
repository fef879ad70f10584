"""Providers that break their own protocol: order, indices, ends, tool calls mixed up. What leaves was cleared."""

import json
from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from gateway.dialects.dialect import Event
from gateway.upstreams import Scripted, Step
from tests.dialects import full_chat, full_completions, full_messages, full_responses
from tests.served import KEY, Parts, record, served

HEADERS = {"authorization": f"Bearer {KEY}"}
HEAD = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m"}


def chunk(index: Any, delta: Any, finish: str | None = None) -> Event:
    return Event({**HEAD, "choices": [{"index": index, "delta": delta, "finish_reason": finish}]})


def said(text: str, index: int = 0) -> list[Event]:
    return [chunk(index, {"content": letter}) for letter in text]


def call(number: int, text: str) -> Event:
    return chunk(0, {"tool_calls": [{"index": number, "function": {"arguments": text}}]})


def both(first: int, second: int) -> Event:
    choices = [{"index": i, "delta": {"content": "word "}, "finish_reason": None} for i in (first, second)]
    return Event({**HEAD, "choices": choices})


END = Event(None)
STOP = chunk(0, {}, "stop")


def streamed(
    steps: Iterable[Step], path: str = "/v1/chat/completions", **fields: Any
) -> tuple[list[Any], dict[str, Any]]:
    """The events a caller gets, and the record."""
    script = list(steps)
    parts = Parts(upstream=Scripted("s", lambda body: {}, lambda body: script))
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hello"}], **fields}
    with served(parts.gateway) as url:
        raw = httpx.post(f"{url}{path}", json=body, headers=HEADERS, timeout=30)
        written = record(parts)
    events = [line[6:] for line in raw.text.splitlines() if line.startswith("data: ")]
    if raw.status_code != 200:
        return [raw.json()], written
    return [json.loads(event) if event != "[DONE]" else None for event in events], written


def text_of(events: Iterable[Any], index: int = 0) -> str:
    choices = [choice for event in events if event for choice in event.get("choices", ())]
    return "".join(choice["delta"].get("content") or "" for choice in choices if choice["index"] == index)


def finishes(events: Iterable[Any]) -> list[tuple[int, str]]:
    choices = [choice for event in events if event for choice in event.get("choices", ())]
    return [(choice["index"], choice["finish_reason"]) for choice in choices if choice["finish_reason"]]


def clean(written: dict[str, Any]) -> bool:
    counted = written["characters"]
    return counted["released"] <= counted["cleared"] and counted["unguarded"] == 0


def test_choices_in_another_order_each_keep_their_own_text() -> None:
    steps = [*said("Second one. ", 1), *said("First one. ", 0), *said("And more.", 1), STOP, chunk(1, {}, "stop"), END]
    events, written = streamed(steps, n=2)
    assert (text_of(events, 0), text_of(events, 1)) == ("First one. ", "Second one. And more.")
    assert finishes(events) == [(0, "stop"), (1, "stop")] and events[-1] is None
    assert clean(written) and written["outcome"] == "allowed"


def test_a_harmful_choice_hidden_between_others_closes_every_choice() -> None:
    steps = [*said("Fine so far. ", 1), *said("for", 0), *said("more ", 1), *said("bidden ", 0), STOP, END]
    events, written = streamed(steps, n=2)
    assert "forbidden" not in text_of(events, 0)
    assert {finish for _, finish in finishes(events)} == {"content_filter"}
    assert clean(written) and written["outcome"] == "blocked"


@pytest.mark.parametrize(
    "broken",
    [
        both(0, 0),
        chunk(None, {"content": "x"}),
        chunk(-1, {"content": "x"}),
        chunk(9_999, {"content": "x"}),
        chunk("0", {"content": "x"}),
        chunk(0, "not an object"),
        chunk(0, {"tool_calls": [{"index": 0, "function": {"arguments": "a"}}] * 2}),
        chunk(0, {"tool_calls": {"index": 0}}),
        Event({**HEAD, "choices": {"index": 0}}),
    ],
    ids=["twice an index", "none", "negative", "huge", "text", "delta", "twice a call", "calls", "choices"],
)
def test_a_chunk_that_no_client_could_read_ends_the_stream_with_an_error(broken: Event) -> None:
    events, written = streamed([*said("A good beginning. "), broken, *said("forbidden"), STOP, END])
    assert "forbidden" not in str(events)
    assert any(event and event.get("error", {}).get("code") == "upstream_error" for event in events)
    assert clean(written) and written["outcome"] == "upstream_failed"


def test_a_second_finish_reason_and_text_behind_the_first_are_judged_like_any_other() -> None:
    events, written = streamed([*said("All said. "), STOP, *said("And this. "), STOP, END])
    assert text_of(events) == "All said. And this. "
    assert clean(written)
    events, written = streamed([*said("All said. "), STOP, *said("And forbidden words. "), STOP, END])
    assert "forbidden" not in text_of(events)
    assert clean(written) and written["outcome"] == "blocked"


def test_interleaved_tool_calls_are_each_read_whole() -> None:
    steps = [call(0, '{"a": "fine'), call(1, '{"b": "for'), call(0, ' and good"}'), call(1, 'bidden"}')]
    events, written = streamed([*steps, chunk(0, {}, "tool_calls"), END])
    arguments = [piece for event in events if event for choice in event.get("choices", ()) for piece in _calls(choice)]
    assert "forbidden" not in "".join(text for number, text in arguments if number == 1)
    assert finishes(events)[-1] == (0, "content_filter")
    assert clean(written) and written["outcome"] == "blocked"
    good = [call(0, '{"a": 1'), call(1, '{"b": 2'), call(0, "}"), call(1, "}"), chunk(0, {}, "tool_calls"), END]
    events, written = streamed(good)
    arguments = [piece for event in events if event for choice in event.get("choices", ()) for piece in _calls(choice)]
    assert "".join(text for number, text in arguments if number == 0) == '{"a": 1}'
    assert clean(written) and written["outcome"] == "allowed"


def _calls(choice: Any) -> list[tuple[int, str]]:
    return [(one["index"], one["function"]["arguments"]) for one in choice["delta"].get("tool_calls", ())]


FULL = {
    "/v1/chat/completions": (full_chat, "content"),
    "/v1/completions": (full_completions, "text"),
    "/v1/messages": (full_messages, "text"),
    "/v1/responses": (full_responses, "delta"),
}


@pytest.mark.parametrize("path", FULL)
@pytest.mark.parametrize("how", ["one character a chunk", "as it comes"])
def test_every_field_of_a_schema_is_released_as_it_was_cleared(path: str, how: str) -> None:
    full: Any = FULL[path][0]
    script: list[Step] = [*full.EVENTS] if how == "as it comes" else [e for e in full.EVENTS for e in _split(e)]
    if path in ("/v1/chat/completions", "/v1/completions"):
        script.append(END)
    parts = Parts(upstream=Scripted("s", lambda body: {}, lambda body: script))
    body = {**_asked(path), "model": "m", "stream": True}
    with served(parts.gateway) as url:
        raw = httpx.post(f"{url}{path}", json=body, headers=HEADERS, timeout=60)
        written: Any = record(parts)
    assert raw.status_code == 200, raw.text
    assert written["outcome"] == "allowed", (written, raw.text[-600:])
    assert written["characters"]["released"] == written["characters"]["cleared"] > 0
    assert written["characters"]["unguarded"] == 0


def _asked(path: str) -> dict[str, Any]:
    say = [{"role": "user", "content": "hello"}]
    return {
        "/v1/chat/completions": {"messages": say, "n": 2},
        "/v1/completions": {"prompt": ["a", "b"]},
        "/v1/messages": {"messages": say, "max_tokens": 100},
        "/v1/responses": {"input": "hello"},
    }[path]


def _split(event: Event) -> list[Event]:
    """The event once for every character of its longest delta of plain text; other events as they are."""
    data: Any = event.data
    for holder in _holders(data):
        for field in ("content", "text", "reasoning_content", "refusal", "thinking", "partial_json", "delta"):
            said = holder.get(field)
            if isinstance(said, str) and len(said) > 1 and "logprobs" not in json.dumps(data):
                pieces = []
                for letter in said:
                    copy = json.loads(json.dumps(data))
                    next(h for h in _holders(copy) if h.get(field) == said)[field] = letter
                    pieces.append(Event(copy, event.name))
                return pieces if _only_text(data, field) else [event]
    return [event]


def _holders(data: Any) -> list[Any]:
    if not isinstance(data, dict):
        return []
    deltas = [choice.get("delta", choice) for choice in data.get("choices", ()) if isinstance(choice, dict)]
    own = [data] if str(data.get("type", "")).endswith(".delta") else []
    return [*deltas, *([data["delta"]] if isinstance(data.get("delta"), dict) else []), *own]


def _only_text(data: Any, field: str) -> bool:
    """Whether the event holds nothing else that would be said again with every character."""
    holders = [holder for holder in _holders(data) if isinstance(holder, dict)]
    names = {"type", "index", "role", "finish_reason", "item_id", "output_index", "content_index", "summary_index"}
    extra = {
        key for holder in holders for key, value in holder.items() if isinstance(value, str | list | dict) and value
    }
    return len(holders) == 1 and extra <= {field, *names, "sequence_number"}
