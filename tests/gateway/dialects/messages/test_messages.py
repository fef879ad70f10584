"""Anthropic's API: its own error shape, its refusals, and every lawful way its streams end."""

from collections.abc import Sequence
from typing import Any

import pytest
from anthropic._models import construct_type
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.dialect import Event
from gateway.dialects.messages.message_stream import MessageStream
from gateway.dialects.messages.messages import Messages
from gateway.errors import BadRequest, GatewayError, TooManyRequests, UnknownKey, UpstreamError
from guard_runtime.conversation import Kind, Role
from tests.gateway.dialects.messages.full_messages import (
    ANSWER,
    EVENTS,
    REQUEST,
    block,
    event,
    text_block,
    tool_block,
    whole,
)
from tests.gateway.dialects.refusals import BLOCKED, OUTAGE, REWRITTEN

BODY = {"model": "demo", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], "stream": True}
STRUCTURED = {**BODY, "output_config": {"format": {"type": "json_schema", "schema": {}}}}


def relayed(stream: MessageStream, events: Sequence[Event]) -> list[Event]:
    out = []
    for one in events:
        stream.read(one)
        out.append(stream.edited(one, {}))
        stream.sent(out[-1])
    return out


def seen(events: Sequence[Event]) -> Message:
    """The message that the SDK's own helper makes of a stream; the order of events is checked on the way."""
    message, open_block, kinds = None, None, []
    buffers: dict[int, bytes] = {}
    for one in events:
        assert one.data is not None
        kind = one.data["type"]
        kinds.append(kind)
        assert one.name == kind, "the SDK sees no event without its name"
        if kind == "content_block_start":
            assert open_block is None, "one block at a time"
            open_block = one.data["index"]
        if kind in ("content_block_delta", "content_block_stop"):
            assert one.data["index"] == open_block
        if kind == "content_block_stop":
            open_block = None
        if kind == "message_delta":
            assert open_block is None, "blocks are closed before the message is"
        if kind == "ping":
            continue
        typed: Any = construct_type(value=one.data, type_=RawMessageStreamEvent)
        message = accumulate_event(event=typed, current_snapshot=message, json_bufs=buffers)
    assert kinds.count("message_delta") == kinds.count("message_start") == kinds.count("message_stop") == 1
    assert kinds[-1] == "message_stop"
    assert message is not None
    return message


def texts_of(message: Message) -> list[str]:
    return [piece.text for piece in message.content if piece.type == "text"]


def test_the_system_is_the_systems_and_a_turn_of_results_is_the_tools() -> None:
    turns = Messages().read_request(REQUEST).turns
    assert [turn.role for turn in turns] == [
        Role.SYSTEM,
        Role.USER,
        Role.USER,
        Role.ASSISTANT,
        Role.USER,
        Role.ASSISTANT,
    ]
    result = {"type": "tool_result", "tool_use_id": "t", "content": "sunny"}
    turn = Messages().read_request({**BODY, "messages": [{"role": "user", "content": [result]}]}).turns[0]
    assert (turn.role, turn.parts[0].kind) == (Role.TOOL, Kind.TOOL_RESULT)


def test_what_no_guard_can_read_is_owned_up_to() -> None:
    unread = {(part.path[-1], part.kind) for part in Messages().read_request(REQUEST).unreadable}
    assert unread == {
        ("source", Kind.MEDIA),
        ("file_id", Kind.MEDIA),
        ("$results", Kind.TOOL_RESULT),
    }


def test_a_signature_is_no_content_but_only_while_it_can_be_one() -> None:
    thinking = {"type": "thinking", "thinking": "a", "signature": "EqQB" * 1000}
    body = {**BODY, "messages": [{"role": "assistant", "content": [thinking]}]}
    assert [(part.text, part.kind) for part in Messages().read_request(body).judged] == [
        ("a", Kind.REASONING),
        (None, Kind.SEAL),
    ]
    thinking["signature"] = "how to do it"
    with pytest.raises(BadRequest, match="signature"):
        Messages().read_request(body)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BadRequest("x", param="messages"), "invalid_request_error"),
        (UnknownKey("x"), "authentication_error"),
        (TooManyRequests("x"), "rate_limit_error"),
        (OUTAGE, "api_error"),
        (UpstreamError("x"), "api_error"),
    ],
)
def test_errors_have_anthropics_shape(error: GatewayError, kind: str) -> None:
    body = Messages().error(error)
    assert (body["type"], body["error"]["type"], body["error"]["code"]) == ("error", kind, error.code)


def test_a_blocked_prompt_is_an_error_and_a_blocked_answer_a_refusal() -> None:
    error = Messages().blocked_prompt(BLOCKED)
    assert (error["type"], error["error"]["type"]) == ("error", "invalid_request_error")
    assert error["error"]["message"] == "抱歉。"
    message = Message.model_validate(Messages().refused(BODY, ANSWER, 0, BLOCKED))
    assert (message.stop_reason, texts_of(message), message.id) == ("refusal", ["抱歉。"], "msg_1")
    assert message.usage.output_tokens == 2


def test_a_safe_message_is_text_but_only_a_reason_to_a_caller_who_parses() -> None:
    for said in (Messages().refused(BODY, ANSWER, 0, REWRITTEN), Messages().completion(BODY, REWRITTEN)):
        message = Message.model_validate(said)
        assert (message.stop_reason, texts_of(message)) == ("end_turn", ["换个话题。"])
    for said in (Messages().refused(STRUCTURED, ANSWER, 0, REWRITTEN), Messages().completion(STRUCTURED, BLOCKED)):
        message = Message.model_validate(said)
        assert (message.stop_reason, texts_of(message)) == ("refusal", [])
        assert message.stop_details and message.stop_details.explanation


@pytest.mark.parametrize("system", [None, "be brief", [{"type": "text", "text": "be brief"}]])
def test_asking_again_adds_the_instruction_to_the_system(system: Any) -> None:
    again = Messages().instructed({**BODY, "system": system}, "be kind")
    turn = Messages().read_request(again).turns[0]
    assert turn.role is Role.SYSTEM
    assert turn.text.endswith("be kind")


def test_text_thinking_and_tool_input_are_channels_and_are_edited_apart() -> None:
    stream = Messages().stream(BODY)
    events = whole(*text_block(0, "1101"), *tool_block(1, '{"id": "11', '01"}'))
    deltas = [(delta.channel, delta.text, delta.kind) for one in events for delta in stream.read(one)]
    assert deltas == [
        ((0, "text"), "1101", Kind.TEXT),
        ((1, "name"), "weather", Kind.NAME),
        ((1, "input"), '{"id": "11', Kind.TOOL_CALL),
        ((1, "input"), '01"}', Kind.TOOL_CALL),
    ]
    edits = [stream.edited(events[3], {(0, "text"): "[id]"}), stream.edited(events[7], {(1, "input"): '"}'})]
    assert edits[0].data and edits[0].data["delta"] == {"type": "text_delta", "text": "[id]"}
    assert edits[1].data and edits[1].data["delta"]["partial_json"] == '"}'


def test_an_event_without_a_name_leaves_under_its_own() -> None:
    assert Messages().stream(BODY).edited(Event({"type": "ping"}), {}).name == "ping"


@pytest.mark.parametrize(
    ("kept", "texts"), [(0, ["抱歉。"]), (2, ["抱歉。"]), (3, [""]), (4, ["hel"]), (6, ["hello"]), (8, ["hello"])]
)
def test_a_block_ends_a_stream_wherever_it_had_come_to(kept: int, texts: list[str]) -> None:
    events = whole(*text_block(0, "hel", "lo"), *tool_block(1, '{"city": ', '"Lyon"}'))
    stream = Messages().stream(BODY)
    message = seen([*relayed(stream, events[:kept]), *stream.stop(BLOCKED)])
    assert (message.stop_reason, texts_of(message)) == ("refusal", texts)


@pytest.mark.parametrize("kept", [0, 2, 4, 6, 8])
def test_a_safe_message_is_a_block_of_its_own_behind_what_had_left(kept: int) -> None:
    events = whole(*text_block(0, "hel", "lo"), *tool_block(1, '{"city": ', '"Lyon"}'))
    stream = Messages().stream(BODY)
    message = seen([*relayed(stream, events[:kept]), *stream.replace(REWRITTEN)])
    assert (message.stop_reason, texts_of(message)[-1]) == ("end_turn", "换个话题。")


def test_the_last_count_of_tokens_that_left_is_in_the_ending() -> None:
    stream = Messages().stream(BODY)
    assert seen([*relayed(stream, whole()[:1]), *stream.stop(BLOCKED)]).usage.output_tokens == 2


def test_a_refused_prompt_is_a_whole_stream() -> None:
    message = seen(Messages().stream(BODY).begin(BLOCKED))
    assert (message.stop_reason, texts_of(message), message.id) == ("refusal", ["抱歉。"], "msg_K7")


def test_a_failure_is_an_error_event() -> None:
    (failed,) = Messages().stream(BODY).fail(OUTAGE)
    assert failed.name == "error"
    assert failed.data and failed.data["error"]["code"] == "guard_unavailable"


def test_nothing_follows_the_closing_event() -> None:
    stream = Messages().stream(REQUEST)
    relayed(stream, EVENTS)
    assert stream.finished
    assert [*stream.stop(BLOCKED), *stream.replace(REWRITTEN), *stream.fail(OUTAGE), *stream.close()] == []


def test_an_answer_that_lacks_only_its_closing_event_gets_it_and_a_torn_one_is_a_failure() -> None:
    events = whole(*text_block(0, "a"))
    for kept, names in ((len(events) - 1, ["message_stop"]), (4, ["error"])):
        stream = Messages().stream(BODY)
        relayed(stream, events[:kept])
        assert [one.name for one in stream.close()] == names


def test_a_block_after_the_stop_reason_has_left_only_closes() -> None:
    stream = Messages().stream(BODY)
    message = seen([*relayed(stream, whole(*text_block(0, "a"))[:-1]), *stream.stop(BLOCKED)])
    assert message.stop_reason == "end_turn"


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"type": 7},
        {"type": "content_block_start", "index": 0},
        {"type": "content_block_start", "index": "0", "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_start", "index": 10**9, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": "x"},
        {"type": "content_block_delta", "index": True, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "message_start", "message": None},
        {"type": "message_start", "message": {"content": ["x"]}},
        {"type": "message_delta", "delta": None},
        {"type": "error", "error": {"type": "overloaded_error", "message": "the model said something vile"}},
    ],
)
def test_an_event_that_makes_no_sense_is_the_upstreams_failure(data: dict[str, Any]) -> None:
    with pytest.raises(UpstreamError) as caught:
        Messages().stream(BODY).read(Event(data))
    assert "vile" not in caught.value.message


@pytest.mark.parametrize(
    "data",
    [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "telepathy_delta", "thought": "a"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": ["a"]}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "a b"}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "redacted_thinking", "data": "EqQB" * 9}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "telepathy", "thought": "a"}},
        {"type": "telepathy", "thought": "a"},
        {"type": "message_delta", "delta": {"mood": "a b"}, "usage": {"output_tokens": 1}},
    ],
)
def test_what_is_unknown_in_a_stream_is_owned_up_to(data: dict[str, Any]) -> None:
    assert None in [delta.text for delta in Messages().stream(BODY).read(Event(data))]


SHAPES = st.lists(st.sampled_from(["text", "tool", "thinking"]), max_size=3)


@given(SHAPES, st.integers(0, 20), st.sampled_from(["stop", "replace"]))
def test_whatever_had_left_the_ending_is_one_the_sdk_can_read(shapes: list[str], cut: int, how: str) -> None:
    thinking = {"type": "thinking", "thinking": "", "signature": ""}
    made = {
        "text": lambda i: text_block(i, "a", "b"),
        "tool": lambda i: tool_block(i, '{"a', '": 1}'),
        "thinking": lambda i: block(i, thinking, {"type": "thinking_delta", "thinking": "a"}),
    }
    events = whole(*(one for i, shape in enumerate(shapes) for one in made[shape](i)))
    stream = Messages().stream(BODY)
    left = relayed(stream, events[:cut])
    message = seen([*left, *(stream.stop(BLOCKED) if how == "stop" else stream.replace(REWRITTEN))])
    assert message.stop_reason in ("refusal", "end_turn")


def test_a_ping_says_nothing() -> None:
    assert Messages().stream(BODY).read(event("ping")) == ()
