"""The chat dialect: what it says when it refuses, and every lawful way its streams end."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.dialects.choices.chat import Chat
from gateway.dialects.choices.choice_stream import ChoiceStream
from gateway.dialects.dialect import Event
from gateway.errors import UpstreamError
from guard_runtime.conversation import Kind, Role
from tests.gateway.dialects.choices.full_chat import ANSWER, EVENTS, HI, REQUEST, chunk, piece
from tests.gateway.dialects.refusals import BLOCKED, OUTAGE, REWRITTEN

BODY = {"model": "demo", "messages": [HI]}
STRUCTURED = {**BODY, "response_format": {"type": "json_object"}}
CONTENT = (0, "content")


def stream(n: int = 1, *, usage: bool = False, sent: Sequence[Event] = ()) -> ChoiceStream:
    body = {**BODY, "stream": True, "n": n, "stream_options": {"include_usage": usage}}
    made = Chat().stream(body)
    for event in sent:
        made.read(event)
        made.sent(event)
    return made


def seen(events: Sequence[Event]) -> dict[int, tuple[str, str | None]]:
    """For each choice what a client has read and how it finished; the events are checked on the way."""
    assert events[-1].data is None, "a stream ends with [DONE]"
    assert all(event.data is not None for event in events[:-1]), "and with one only"
    texts: dict[int, str] = {}
    finishes: dict[int, str | None] = {}
    state = ChatCompletionStreamState()
    first = [choice["index"] for event in events if event.data for choice in event.data.get("choices", [])]
    # The SDK's helper cannot read a stream in which a later choice comes first; nor can we help it.
    helped = list(dict.fromkeys(first)) == sorted(set(first)) == list(range(len(set(first))))
    for event in events[:-1]:
        assert event.data is not None
        if helped and "error" not in event.data:
            state.handle_chunk(ChatCompletionChunk.model_validate(event.data))
        for choice in event.data.get("choices", []):
            index, delta = choice["index"], choice["delta"]
            assert finishes.get(index) is None, "nothing follows a finish reason"
            texts[index] = texts.get(index, "") + (delta.get("content") or "") + (delta.get("refusal") or "")
            finishes[index] = choice["finish_reason"]
    return {index: (texts[index], finishes[index]) for index in texts}


def test_definitions_come_first_and_as_the_system_speaks() -> None:
    turns = Chat().read_request(REQUEST).turns
    assert [turn.role for turn in turns[:3]] == [Role.SYSTEM, Role.SYSTEM, Role.SYSTEM]
    assert {part.kind for part in turns[0].parts} >= {Kind.TOOL_DEFINITION, Kind.SCHEMA}


def test_a_tool_calls_arguments_are_read_leaf_by_leaf_with_their_escapes_undone() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": r'{"a": {"b": ["\u4f60\u597d", 13800138000]}}'}}
    parts = Chat().read_request({**BODY, "messages": [{"role": "assistant", "tool_calls": [call]}]}).judged
    path = ("messages", 0, "tool_calls", 0, "function", "arguments", "$json")
    read = {part.path: part.text for part in parts}
    assert read[*path, "a", "b", 0] == "你好"
    assert read[*path, "a", "b", 1] == "13800138000"
    assert read[*path, "$keys"] == "a"


@pytest.mark.parametrize("text", ['{"a": "x", "a": "y"}', "[" * 900 + '"x y"' + "]" * 900, '{"a": "x y', "x y"])
def test_arguments_that_are_odd_json_are_read_all_the_same(text: str) -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": text}}
    parts = Chat().read_request({**BODY, "messages": [{"role": "assistant", "tool_calls": [call]}]}).judged
    read = "\n".join(part.text or "" for part in parts)
    assert all(word in read for word in ("x", "y") if word in text)


def test_a_blocked_choice_is_replaced_and_the_other_left_alone() -> None:
    refused = Chat().refused(BODY, ANSWER, 1, BLOCKED)
    completion = ChatCompletion.model_validate(refused)
    assert completion.choices[1].finish_reason == "content_filter"
    assert completion.choices[1].message.refusal == "抱歉。"
    assert completion.choices[1].message.content is None
    assert completion.choices[0].message.content == "hello"
    assert completion.usage is not None


@pytest.mark.parametrize(("body", "field"), [(BODY, "content"), (STRUCTURED, "refusal")])
def test_a_safe_message_is_content_but_a_refusal_to_a_caller_who_parses(body: dict[str, Any], field: str) -> None:
    for said in (Chat().refused(body, ANSWER, 0, REWRITTEN), Chat().completion(body, REWRITTEN)):
        choice = ChatCompletion.model_validate(said).choices[0]
        assert getattr(choice.message, field) == "换个话题。"
        assert choice.finish_reason == "stop"


def test_a_blocked_prompt_is_told_in_azures_words() -> None:
    error = Chat().blocked_prompt(BLOCKED)["error"]
    assert error["code"] == "content_filter"
    assert error["message"] == "抱歉。"
    assert error["innererror"]["content_filter_result"] == {"privacy_and_property": {"filtered": True}}


def test_with_choice_keeps_the_index_and_adds_the_usage_up() -> None:
    other = {"choices": [{"index": 0, "message": {"content": "new"}}], "usage": {"total_tokens": 4}, "citations": ["x"]}
    mixed = Chat().with_choice(ANSWER, 1, other)
    assert mixed["choices"][1] == {"index": 1, "message": {"content": "new"}}
    assert mixed["usage"]["total_tokens"] == 7


def test_a_block_before_anything_left_says_the_sentence() -> None:
    assert seen(stream().stop(BLOCKED)) == {0: ("抱歉。", "content_filter")}


def test_a_block_in_the_middle_adds_no_text() -> None:
    sent = [chunk(piece(0, {"role": "assistant", "content": "so"}))]
    assert seen([*sent, *stream(sent=sent).stop(BLOCKED)]) == {0: ("so", "content_filter")}


def test_a_block_closes_every_choice_but_those_that_had_finished() -> None:
    sent = [chunk(piece(1, {"content": "b"})), chunk(piece(0, {"content": "a"}, "stop"))]
    assert seen([*sent, *stream(3, sent=sent).stop(BLOCKED)]) == {
        0: ("a", "stop"),
        1: ("b", "content_filter"),
        2: ("抱歉。", "content_filter"),
    }


def test_a_choice_nobody_expected_is_closed_too() -> None:
    sent = [chunk(piece(5, {"content": "x"}))]
    assert seen([*sent, *stream(sent=sent).stop(BLOCKED)])[5] == ("x", "content_filter")


def test_the_usage_the_upstream_gave_comes_before_done_once() -> None:
    sent = [chunk(piece(0, {"content": "a"}), usage={"total_tokens": 5})]
    events = stream(usage=True, sent=sent).stop(BLOCKED)
    assert [event.data["usage"] for event in events if event.data and "usage" in event.data] == [{"total_tokens": 5}]
    sent.append(chunk(usage={"total_tokens": 6}))
    events = stream(usage=True, sent=sent).stop(BLOCKED)
    assert [event.data for event in events if event.data and "usage" in event.data] == []


def test_a_safe_message_comes_in_the_place_of_what_was_held() -> None:
    sent = [chunk(piece(0, {"role": "assistant", "content": "so "}))]
    assert seen([*sent, *stream(sent=sent).replace(REWRITTEN)]) == {0: ("so 换个话题。", "stop")}
    assert seen(stream(2).replace(REWRITTEN)) == {0: ("换个话题。", "stop"), 1: ("换个话题。", "stop")}


def test_a_refused_prompt_is_a_whole_stream() -> None:
    events = stream(2, usage=True).begin(BLOCKED)
    assert seen(events) == {0: ("抱歉。", "stop")}
    assert events[0].data is not None
    assert events[0].data["id"] == "chatcmpl-K7"


def test_a_failure_is_an_error_event_and_done() -> None:
    events = stream().fail(OUTAGE)
    assert [event.data and event.data["error"]["code"] for event in events] == ["guard_unavailable", None]


def test_nothing_follows_done() -> None:
    done = stream(usage=True, sent=[*EVENTS, Event(None)])
    assert [*done.stop(BLOCKED), *done.replace(REWRITTEN), *done.fail(OUTAGE), *done.close()] == []


def test_a_stream_that_only_lacks_done_is_closed_with_it() -> None:
    assert stream(sent=[chunk(piece(0, {}, "stop"))]).close() == [Event(None)]


def test_a_stream_is_finished_when_every_choice_is() -> None:
    made = stream(2)
    made.read(chunk(piece(1, {}, "stop")))
    assert not made.finished
    made.read(chunk(piece(0, {}, "stop")))
    assert made.finished


def test_a_second_finish_reason_opens_nothing() -> None:
    sent = [chunk(piece(0, {"content": "a"}, "stop")), chunk(piece(0, {}, "length"))]
    assert [event.data for event in stream(sent=sent).stop(BLOCKED)] == [None]


@pytest.mark.parametrize(
    "data",
    [
        {"choices": {}},
        {"choices": ["x"]},
        {"choices": [{"delta": {}}]},
        {"choices": [{"index": True, "delta": {}}]},
        {"choices": [{"index": 2048, "delta": {}}]},
        {"choices": [{"index": 0, "delta": "x"}]},
        {"choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 0, "delta": {"content": "b"}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": {}}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": "0"}]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 1}, {}]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"function": "x"}]}}]},
        {"choices": [{"index": 0, "delta": {"audio": "x"}}]},
        {"error": {"message": "the model said something vile", "code": "overloaded"}},
        {"error": "x"},
    ],
)
def test_a_chunk_that_makes_no_sense_is_the_upstreams_failure(data: dict[str, Any]) -> None:
    with pytest.raises(UpstreamError) as caught:
        stream().read(Event(data))
    assert "vile" not in caught.value.message


def test_text_is_edited_where_it_is_and_logprobs_go() -> None:
    event = chunk(piece(0, {"content": "1101"}, logprobs={"content": [{"token": "1101"}]}), piece(1, {"content": "b"}))
    edited = stream(2).edited(event, {CONTENT: "[id]"})
    assert edited.data is not None
    first, second = edited.data["choices"]
    assert first["delta"] == {"content": "[id]"}
    assert first["logprobs"] is None
    assert second["delta"] == {"content": "b"}


def test_interleaved_tool_calls_are_channels_of_their_own_and_edited_apart() -> None:
    def calls(*pieces: tuple[int, str]) -> Event:
        return chunk(piece(0, {"tool_calls": [{"index": i, "function": {"arguments": text}} for i, text in pieces]}))

    made = stream()
    events = [calls((0, '{"id": "11'), (1, '{"q"')), calls((1, ': "a"}'), (0, '01"}'))]
    texts: dict[Any, str] = {}
    for event in events:
        for delta in made.read(event):
            assert delta.kind is Kind.TOOL_CALL
            texts[delta.channel] = texts.get(delta.channel, "") + (delta.text or "")
    first, second = (0, "tool_calls", 0, "arguments"), (0, "tool_calls", 1, "arguments")
    assert texts == {first: '{"id": "1101"}', second: '{"q": "a"}'}
    edited = [made.edited(events[0], {first: '{"id": "[id]'}), made.edited(events[1], {first: '"}'})]
    left = [call for event in edited if event.data for call in event.data["choices"][0]["delta"]["tool_calls"]]
    assert [call["function"]["arguments"] for call in left if call["index"] == 0] == ['{"id": "[id]', '"}']
    assert [call["function"]["arguments"] for call in left if call["index"] == 1] == ['{"q"', ': "a"}']


PIECES = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["a", "b"]), st.sampled_from([None, None, None, "stop", "length"])),
    max_size=8,
)


@given(PIECES, st.sampled_from(["stop", "replace", "fail"]), st.booleans())
def test_whatever_had_left_the_ending_is_one_a_client_can_read(pieces: Any, how: str, usage: bool) -> None:
    sent, finished = [], set()
    for index, text, finish in pieces:
        if index not in finished:
            sent.append(chunk(piece(index, {"content": text}, finish)))
            finished |= {index} if finish else set()
    made = stream(3, usage=usage, sent=sent)
    ends = {
        "stop": lambda: made.stop(BLOCKED),
        "replace": lambda: made.replace(REWRITTEN),
        "fail": lambda: made.fail(OUTAGE),
    }
    got = seen([*sent, *ends[how]()])
    if how != "fail":
        assert all(finish for _, finish in got.values())
        assert set(got) == {0, 1, 2}
