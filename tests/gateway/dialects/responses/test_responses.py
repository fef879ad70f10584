"""The Responses API: what it refuses to take in, what its masks must reach, and every lawful way its streams end."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import omit
from openai._models import construct_type
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent

from gateway.dialects.dialect import Event
from gateway.dialects.responses.response_stream import ResponseStream
from gateway.dialects.responses.responses import Responses
from gateway.errors import UpstreamError
from guard_runtime.conversation import Kind, Role
from tests.gateway.dialects.refusals import BLOCKED, OUTAGE, REWRITTEN
from tests.gateway.dialects.responses.full_responses import ANSWER, BLANK, EVENTS, REQUEST, call, event, message, whole

BODY = {"model": "demo", "input": "hi", "stream": True}
STRUCTURED = {**BODY, "text": {"format": {"type": "json_object"}}}
TEXT = ("output", 0, "content", 0, "text")
ARGUMENTS = ("output", 1, "arguments")


def relayed(
    stream: ResponseStream, events: Sequence[Event], edits: dict[Any, dict[str, str]] | None = None
) -> list[Event]:
    """The events as they leave; `edits` gives, for a channel, what stands for a piece of its text."""
    out = []
    for one in events:
        deltas = stream.read(one)
        texts: dict[Any, str] = {}
        for delta in deltas:
            for old, new in (edits or {}).get(delta.channel, {}).items():
                if delta.text is not None and old in delta.text:
                    texts[delta.channel] = delta.text.replace(old, new)
        out.append(stream.edited(one, texts))
        stream.sent(out[-1])
    return out


def seen(events: Sequence[Event]) -> Response:
    """The response that the SDK's own helper makes of a stream; what a stream must hold to is checked on the way."""
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    bodies = [one.data for one in events]
    assert all(body is not None for body in bodies)
    numbers = [body["sequence_number"] for body in bodies if body]
    assert numbers == sorted(set(numbers)), "sequence numbers rise"
    for one in events:
        assert one.data is not None
        assert one.name == one.data["type"]
        state.handle_event(construct_type(value=one.data, type_=ResponseStreamEvent))  # type: ignore[arg-type]
    assert bodies[-1] is not None
    assert bodies[-1]["type"] in ("response.completed", "response.incomplete"), "a stream ends with its response"
    return Response.model_validate(bodies[-1]["response"])


def texts_of(response: Response) -> list[str]:
    pieces = [piece for item in response.output if item.type == "message" for piece in item.content]
    return [piece.text if piece.type == "output_text" else piece.refusal for piece in pieces]


def test_instructions_and_tools_are_the_systems_and_items_are_whose_they_are() -> None:
    turns = Responses().read_request(REQUEST).turns
    assert turns[0].role is Role.SYSTEM
    assert {part.kind for part in turns[0].parts} >= {Kind.TEXT, Kind.TOOL_DEFINITION, Kind.SCHEMA}
    assert [turn.role for turn in turns[1:5]] == [Role.USER, Role.SYSTEM, Role.ASSISTANT, Role.ASSISTANT]
    assert Role.TOOL in {turn.role for turn in turns}


def test_what_a_tool_of_the_providers_own_brings_in_is_owned_up_to() -> None:
    unread = {part.path for part in Responses().read_request(REQUEST).unreadable}
    assert ("tools", 1, "$results") in unread
    assert ("tools", 0, "$results") not in unread


def test_an_echo_of_the_request_is_not_judged_but_any_other_is() -> None:
    def paths(answer: dict[str, Any]) -> set[Any]:
        return {part.path[0] for part in Responses().read_answer(answer, REQUEST)[0].parts}

    assert paths(ANSWER) == {"output"}
    assert paths({**ANSWER, "instructions": "be cruel"}) == {"output", "instructions"}


def test_a_blocked_answer_is_an_incomplete_response() -> None:
    response = Response.model_validate(Responses().refused(BODY, ANSWER, 0, BLOCKED))
    assert response.status == "incomplete"
    assert response.incomplete_details and response.incomplete_details.reason == "content_filter"
    assert texts_of(response) == ["抱歉。"]
    assert response.id == "resp_1"
    assert response.usage and response.usage.total_tokens == 5


@pytest.mark.parametrize(("body", "kind"), [(BODY, "output_text"), (STRUCTURED, "refusal")])
def test_a_safe_message_is_text_but_a_refusal_to_a_caller_who_parses(body: dict[str, Any], kind: str) -> None:
    for said in (Responses().refused(body, ANSWER, 0, REWRITTEN), Responses().completion(body, REWRITTEN)):
        response = Response.model_validate(said)
        assert (response.status, texts_of(response)) == ("completed", ["换个话题。"])
        assert said["output"][0]["content"][0]["type"] == kind


def test_asking_again_puts_the_instruction_last_and_adds_the_usage_up() -> None:
    again = Responses().instructed(BODY, "be kind")
    assert [turn.text for turn in Responses().read_request(again).turns] == ["hi", "be kind"]
    assert Responses().with_choice(ANSWER, 0, {**ANSWER, "id": "resp_2"})["usage"]["total_tokens"] == 10


def test_a_whole_stream_is_read_once_however_often_it_repeats_itself() -> None:
    stream = Responses().stream(REQUEST)
    events = whole(*message(0, "hel", "lo"), *call(1, '{"city": ', '"Lyon"}'))
    read = [(delta.channel, delta.text) for one in events for delta in stream.read(one)]
    assert read == [
        (TEXT, "hel"),
        (TEXT, "lo"),
        (("output", 1, "name"), "weather"),
        (ARGUMENTS, '{"city": '),
        (ARGUMENTS, '"Lyon"}'),
    ]
    assert texts_of(seen(events)) == ["hello"]


def test_what_is_masked_in_a_delta_is_masked_wherever_it_is_repeated() -> None:
    events = whole(*message(0, "the id is ", "1101", " and so on"), *call(1, '{"id": "', "1101", '"}'))
    left = relayed(Responses().stream(REQUEST), events, {TEXT: {"1101": "[id]"}, ARGUMENTS: {"1101": "[id]"}})
    assert "1101" not in str([one.data for one in left])
    response = seen(left)
    assert texts_of(response) == ["the id is [id] and so on"]
    assert response.output[1].to_dict()["arguments"] == '{"id": "[id]"}'


def test_a_closing_event_that_says_something_else_is_read_again() -> None:
    events = list(whole(*message(0, "hello")))
    for i, one in enumerate(events):
        if one.name == "response.content_part.done" and one.data:
            events[i] = Event(
                {**one.data, "part": {"type": "output_text", "text": "1101", "annotations": []}}, one.name
            )
    stream = Responses().stream(REQUEST)
    again = (*TEXT, "again")
    assert (again, "1101") in [(delta.channel, delta.text) for one in events for delta in stream.read(one)]
    left = relayed(Responses().stream(REQUEST), events, {again: {"1101": "[id]"}})
    assert "1101" not in str([one.data for one in left])


def test_a_text_that_came_without_deltas_is_read_and_masked_everywhere() -> None:
    events = whole(message(0, "1101")[-1])
    left = relayed(Responses().stream(REQUEST), events, {TEXT: {"1101": "[id]"}})
    assert "1101" not in str([one.data for one in left])


def test_masks_take_the_logprobs_with_them() -> None:
    spelt = [{"token": "1101", "logprob": 0, "bytes": None, "top_logprobs": []}]
    where = {"item_id": "m0", "output_index": 0, "content_index": 0}
    events = [event("response.output_text.delta", **where, delta="1101", logprobs=spelt)]
    events.append(event("response.output_text.done", **where, text="1101", logprobs=spelt))
    left = relayed(Responses().stream(REQUEST), events, {TEXT: {"1101": "[id]"}})
    assert "1101" not in str([one.data for one in left])


@pytest.mark.parametrize("kept", [0, 1, 2, 3, 4, 5, 8, 9, 11, 13, 14])
def test_a_block_ends_a_stream_wherever_it_had_come_to(kept: int) -> None:
    events = whole(*message(0, "hel", "lo"), *call(1, '{"city": ', '"Lyon"}'))[:kept]
    stream = Responses().stream(BODY)
    left = relayed(stream, events)
    response = seen([*left, *stream.stop(BLOCKED)])
    assert response.status == "incomplete"
    assert response.incomplete_details and response.incomplete_details.reason == "content_filter"
    assert stream.fail(OUTAGE) is not None
    match kept:
        case 0 | 1 | 2:
            assert texts_of(response) == ["抱歉。"]
        case 5:
            assert texts_of(response) == ["hel"]
        case 8 | 9 | 11 | 13:
            assert texts_of(response) == ["hello"]


@pytest.mark.parametrize("kept", [0, 2, 4, 6, 11])
def test_a_safe_message_is_an_item_of_its_own_behind_what_had_left(kept: int) -> None:
    events = whole(*message(0, "hel", "lo"), *call(1, '{"city": ', '"Lyon"}'))[:kept]
    stream = Responses().stream(BODY)
    response = seen([*relayed(stream, events), *stream.replace(REWRITTEN)])
    assert response.status == "completed"
    assert texts_of(response)[-1] == "换个话题。"


def test_a_refused_prompt_is_a_whole_stream() -> None:
    response = seen(Responses().stream(BODY).begin(BLOCKED))
    assert (response.status, texts_of(response), response.id) == ("completed", ["抱歉。"], "resp_K7")


def test_a_failure_is_an_error_event_that_sdks_raise_and_the_responses_own_end() -> None:
    stream = Responses().stream(BODY)
    relayed(stream, EVENTS[:3])
    error, failed = (one.data for one in stream.fail(OUTAGE))
    assert error and failed
    assert error["error"]["code"] == error["code"] == "guard_unavailable"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["id"] == "resp_1"
    assert [error["sequence_number"], failed["sequence_number"]] == [3, 4]


def test_nothing_follows_the_closing_event() -> None:
    stream = Responses().stream(REQUEST)
    relayed(stream, EVENTS)
    assert stream.finished
    assert [*stream.stop(BLOCKED), *stream.replace(REWRITTEN), *stream.fail(OUTAGE), *stream.close()] == []


def test_a_stream_without_its_closing_event_is_a_failure_even_if_the_connection_ended_well() -> None:
    stream = Responses().stream(BODY)
    relayed(stream, EVENTS[:5])
    assert not stream.finished
    assert [one.name for one in stream.close()] == ["error", "response.failed"]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"type": 7},
        {"type": "response.output_text.delta", "delta": "a", "output_index": 0},
        {"type": "response.output_text.delta", "delta": "a", "output_index": "0", "content_index": 0},
        {"type": "response.output_text.delta", "delta": "a", "output_index": 0, "content_index": 10**9},
        {"type": "response.output_item.done", "output_index": 0},
        {"type": "response.output_item.done", "output_index": 0, "item": "x"},
        {"type": "response.created", "response": None},
        {"type": "response.created", "response": {"output": {}}},
        {"type": "response.content_part.added", "output_index": 0, "content_index": 0, "part": {"type": "text"}},
        {"type": "error", "code": "overloaded", "message": "the model said something vile"},
        {"type": "response.failed", "response": {**BLANK, "error": {"code": "x", "message": "something vile"}}},
    ],
)
def test_an_event_that_makes_no_sense_is_the_upstreams_failure(data: dict[str, Any]) -> None:
    with pytest.raises(UpstreamError) as caught:
        Responses().stream(BODY).read(Event(data))
    assert "vile" not in caught.value.message


@pytest.mark.parametrize(
    "data",
    [
        {"type": "response.telepathy.delta", "delta": "a"},
        {"type": "response.output_text.delta", "delta": {"a": "b"}, "output_index": 0, "content_index": 0},
        {"type": "response.audio.delta", "delta": "AAAA"},
        {"type": "response.image_generation_call.partial_image", "partial_image_b64": "AAAA"},
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": {"type": "reasoning", "encrypted_content": "g" * 40},
        },
        {"type": "response.output_item.done", "output_index": 0, "item": {"type": "telepathy", "thought": "a"}},
    ],
)
def test_what_no_guard_can_read_is_owned_up_to(data: dict[str, Any]) -> None:
    assert None in [delta.text for delta in Responses().stream(BODY).read(Event(data))]


SHAPES = st.lists(st.sampled_from(["message", "call"]), max_size=3)


@given(SHAPES, st.integers(0, 30), st.sampled_from(["stop", "replace"]))
def test_whatever_had_left_the_ending_is_one_the_sdk_can_read(shapes: list[str], cut: int, how: str) -> None:
    made = {"message": lambda i: message(i, "a", "b"), "call": lambda i: call(i, '{"a', '": 1}')}
    events = whole(*(one for i, shape in enumerate(shapes) for one in made[shape](i)))
    stream = Responses().stream(BODY)
    left = relayed(stream, events[:cut])
    ending = stream.stop(BLOCKED) if how == "stop" else stream.replace(REWRITTEN)
    response = seen([*left, *ending])
    finished = cut >= len(events)
    assert response.status == ("completed" if finished or how == "replace" else "incomplete")
