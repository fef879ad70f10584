"""Providers that break their own protocol: order, indices, ends, tool calls mixed up. What leaves was cleared."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import httpx
import pytest

from gateway.dialects.dialect import Event
from gateway.upstreams.upstream import Scripted, Step
from tests.gateway.dialects.messages import full_messages
from tests.gateway.dialects.responses import full_responses
from tests.support.gateway_server import KEY, Parts, record, served

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


def text_chunk(index: Any, text: str, finish: str | None = None) -> Event:
    head = {"id": "x", "object": "text_completion", "created": 0, "model": "m"}
    return Event({**head, "choices": [{"index": index, "text": text, "finish_reason": finish}]})


GOOD, WORSE = "A good beginning. ", "Then forbidden words. "
COMPLETIONS: Mapping[str, tuple[Event, ...]] = {
    "another order": (text_chunk(1, GOOD), text_chunk(0, GOOD), text_chunk(1, "", "stop"), text_chunk(0, WORSE)),
    "two finish reasons": (text_chunk(0, GOOD, "stop"), text_chunk(0, WORSE, "stop")),
    "a choice nobody asked for": (text_chunk(0, GOOD), text_chunk(7, WORSE, "stop")),
    "no index": (text_chunk(0, GOOD), text_chunk(None, WORSE)),
    "behind the end": (text_chunk(0, GOOD, "stop"), text_chunk(1, "", "stop"), END, text_chunk(0, WORSE)),
}


def block(index: Any, text: str) -> tuple[Event, ...]:
    return tuple(full_messages.text_block(index, text))


def input_of(index: int, text: str) -> Event:
    delta = {"type": "input_json_delta", "partial_json": text}
    return full_messages.event("content_block_delta", index=index, delta=delta)


REASON = full_messages.event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 1})
STOPPED = full_messages.event("message_stop")
STARTED = full_messages.EVENTS[0]
TOOLS = [full_messages.tool_block(index)[0] for index in (0, 1)]
MESSAGES: Mapping[str, tuple[Event, ...]] = {
    "another order": (STARTED, *block(3, GOOD), *block(0, WORSE), REASON, STOPPED),
    "the same block again": (STARTED, *block(0, GOOD), *block(0, WORSE), REASON, STOPPED),
    "a delta behind its block": (STARTED, *block(0, GOOD), block(0, WORSE)[1], REASON, STOPPED),
    "two stop reasons": (STARTED, *block(0, GOOD), REASON, *block(1, WORSE), REASON, STOPPED),
    "two messages": (STARTED, *block(0, GOOD), REASON, STOPPED, STARTED, *block(0, WORSE), REASON, STOPPED),
    "interleaved calls": (
        *(STARTED, *block(2, GOOD), *TOOLS, input_of(0, '{"a": "fine'), input_of(1, '{"b": "forbid')),
        *(input_of(0, '"}'), input_of(1, 'den"}'), REASON, STOPPED),
    ),
    "no index": (STARTED, *block(0, GOOD), block(None, WORSE)[1], REASON, STOPPED),
    "without a start": (*block(0, GOOD), *block(1, WORSE), REASON, STOPPED),
}


def arguments_of(index: int, text: str) -> Event:
    return full_responses.event(
        "response.function_call_arguments.delta", item_id=f"f{index}", output_index=index, delta=text
    )


CREATED, COMPLETED = full_responses.EVENTS[0], full_responses.EVENTS[-1]
CALLS = [full_responses.call(index)[0] for index in (1, 2)]
WORDS, MORE, LATER = (full_responses.message(index, text) for index, text in ((0, GOOD), (0, WORSE), (1, WORSE)))
RESPONSES: Mapping[str, tuple[Event, ...]] = {
    "another order": (CREATED, *full_responses.message(4, GOOD), *MORE, COMPLETED),
    "the same item again": (CREATED, *WORDS, *MORE, COMPLETED),
    "a delta behind its item": (CREATED, *WORDS, MORE[2], COMPLETED),
    "two ends": (CREATED, *WORDS, COMPLETED, *LATER, COMPLETED),
    "an end that says more": (CREATED, *WORDS[:-3], *MORE[-3:], COMPLETED),
    "interleaved calls": (
        *(CREATED, *WORDS, *CALLS, arguments_of(1, '{"a": "fine'), arguments_of(2, '{"b": "forbid')),
        *(arguments_of(1, '"}'), arguments_of(2, 'den"}'), COMPLETED),
    ),
    "no index": (CREATED, *WORDS, full_responses.event("response.output_text.delta", delta=WORSE), COMPLETED),
    "without a start": (*WORDS, *LATER, COMPLETED),
}
DOORS: Mapping[str, tuple[Mapping[str, tuple[Event, ...]], Mapping[str, Any]]] = {
    "/v1/completions": (COMPLETIONS, {"prompt": ["a", "b"]}),
    "/v1/messages": (MESSAGES, {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 9}),
    "/v1/responses": (RESPONSES, {"input": "hello"}),
}


@pytest.mark.parametrize(("path", "how"), [(path, how) for path, (found, _) in DOORS.items() for how in found])
def test_whatever_a_stream_does_to_its_order_nothing_leaves_unread(path: str, how: str) -> None:
    scripts, fields = DOORS[path]
    parts = Parts(upstream=Scripted("s", lambda body: {}, lambda body: scripts[how]))
    with served(parts.gateway) as url:
        raw = httpx.post(f"{url}{path}", json={"model": "m", "stream": True, **fields}, headers=HEADERS, timeout=30)
        written: Any = record(parts)
    data = [json.loads(line[6:]) for line in raw.text.splitlines() if line.startswith("data: {")]
    left = "".join(text for event in data or [raw.json()] for text in _leaves(event))
    assert "forbidden" not in left and "bidden" not in left
    assert written["characters"].get("unguarded", 0) == 0
    assert written["outcome"] == {"behind the end": "allowed", "no index": "upstream_failed"}.get(how, "blocked")


def _leaves(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from _leaves(inner)
        case list():
            for inner in value:
                yield from _leaves(inner)
