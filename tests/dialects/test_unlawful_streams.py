"""Providers that break their own protocol: order, indices, ends, tool calls mixed up. What leaves was cleared."""

import json
from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from gateway.dialects.dialect import Event
from gateway.upstreams import Scripted, Step
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
