"""Every dialect, the same questions: is every string read, and is bad input met with a clear error and nothing else?"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects import embeddings
from gateway.dialects.choices import chat, choices, completions
from gateway.dialects.choices.chat import Chat
from gateway.dialects.choices.completions import Completions
from gateway.dialects.choices.vendor_fields import REPORTS
from gateway.dialects.dialect import Dialect, Event
from gateway.dialects.embeddings import Embeddings
from gateway.dialects.messages import message_blocks, message_stream, messages
from gateway.dialects.messages.messages import Messages
from gateway.dialects.responses import response_items, responses
from gateway.dialects.responses.responses import Responses
from gateway.errors import BadRequest, UpstreamError
from gateway.strict.strict_json import NotStrict, decode
from guard_runtime.conversation import Kind, Part, Path
from tests.gateway.dialects import full_embeddings
from tests.gateway.dialects.choices import full_chat, full_completions
from tests.gateway.dialects.messages import full_messages
from tests.gateway.dialects.mutations import (
    MARK,
    SENTENCE,
    json_values,
    marked,
    places,
    reads,
    replaced,
    smuggled,
    words_in,
)
from tests.gateway.dialects.refusals import BLOCKED
from tests.gateway.dialects.responses import full_responses

LABELS = frozenset({"user", "safety_identifier", "prompt_cache_key"})
"""What the caller calls somebody or something: kept by the provider, never shown to a model."""


@dataclass(frozen=True)
class Case:
    """`free` are the paths whose strings nobody reads by design: the model's name, which must be one of the
    configuration's, and the caller's own bookkeeping."""

    dialect: Dialect
    full: Any
    free: tuple[Path, ...] = (("model",), ("metadata",), *((label,) for label in sorted(LABELS)))

    def is_free(self, path: Path) -> bool:
        return any(path[: len(free)] == free for free in self.free)


CASES = {
    "chat": Case(Chat(), full_chat),
    "completions": Case(Completions(), full_completions),
    "responses": Case(Responses(), full_responses),
    "messages": Case(Messages(), full_messages),
    "embeddings": Case(Embeddings(), full_embeddings),
}
STREAMED = sorted(name for name, case in CASES.items() if case.full.EVENTS)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(params=STREAMED)
def streamed(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_no_string_of_a_request_passes_unread(case: Case) -> None:
    hidden = []
    for path, body in smuggled(case.full.REQUEST):
        try:
            parts = case.dialect.read_request(body).judged
        except BadRequest:
            continue
        if not case.is_free(path) and not reads(parts, path):
            hidden.append(path)
    assert hidden == []


SEALED = frozenset({"signature", "encrypted_content", "encrypted_index", "encrypted_stdout"})
"""Base64 that only the provider can open; anything else under these keys is read."""
NO_CONTENT: dict[str, frozenset[str]] = {
    "chat": chat.FIELDS.identifiers | LABELS | chat.MESSAGE_NAMES | chat.CALL_NAMES | chat.PIECE_NAMES,
    "completions": completions.FIELDS.identifiers | LABELS,
    "responses": responses.FIELDS.identifiers
    | LABELS
    | response_items.ITEM_NAMES
    | response_items.PIECE_NAMES
    | {"verbosity"},
    "messages": messages.FIELDS.identifiers | message_blocks.BLOCK_NAMES | {"role", "media_type", "effort"} | SEALED,
    "embeddings": embeddings.FIELDS.identifiers | LABELS,
}
"""The keys whose strings are no content, by the dialects' own lists. Each is held to an identifier's shape."""
NO_CONTENT_IN_ANSWERS: dict[str, frozenset[str]] = {
    "chat": choices.ANSWER_NAMES
    | choices.CHOICE_NAMES
    | REPORTS
    | {"model"}
    | chat.MESSAGE_NAMES
    | chat.CALL_NAMES
    | {"id"},
    "completions": choices.ANSWER_NAMES | choices.CHOICE_NAMES | REPORTS | {"model"},
    "responses": responses.ANSWER_NAMES | response_items.ITEM_NAMES | response_items.PIECE_NAMES | responses.SETTINGS,
    "messages": message_stream.ANSWER_NAMES | message_blocks.BLOCK_NAMES | SEALED,
    "embeddings": embeddings.ANSWER_NAMES | embeddings.ITEM_NAMES,
}
CONTENT = frozenset(
    {"content", "text", "input", "prompt", "arguments", "description", "instructions", "system", "name"}
)


def test_a_mark_at_every_string_of_a_request_is_in_a_part_or_under_a_key_that_is_no_content(case: Case) -> None:
    hidden = []
    for path, body in marked(case.full.REQUEST):
        try:
            parts = case.dialect.read_request(body).judged
        except BadRequest:
            continue
        if not case.is_free(path) and not _shown(path, parts, NO_CONTENT[case.dialect.name]):
            hidden.append(path)
    assert hidden == []


def test_a_mark_at_every_string_of_an_answer_is_in_a_part_or_under_a_key_that_is_no_content(case: Case) -> None:
    hidden = []
    for path, body in marked(case.full.ANSWER):
        try:
            parts = [part for choice in case.dialect.read_answer(body) for part in choice.parts]
        except UpstreamError:
            continue
        if not _shown(path, parts, NO_CONTENT_IN_ANSWERS[case.dialect.name]):
            hidden.append(path)
    assert hidden == []


def _shown(path: Path, parts: Sequence[Part], no_content: frozenset[str]) -> bool:
    read = any(MARK in part.text if part.text is not None else part.path == path[: len(part.path)] for part in parts)
    return read or any(step in no_content for step in path)


def test_no_list_of_keys_without_content_has_a_key_of_content() -> None:
    for lists in (NO_CONTENT, NO_CONTENT_IN_ANSWERS):
        assert all(not keys & (CONTENT - responses.SETTINGS) for keys in lists.values())


def test_a_full_request_is_taken_as_it_is(case: Case) -> None:
    parts = case.dialect.read_request(case.full.REQUEST).judged
    assert len({part.path for part in parts}) == len(parts) > 3


def test_no_string_of_an_answer_passes_unread(case: Case) -> None:
    hidden = []
    for path, body in smuggled(case.full.ANSWER):
        try:
            parts = [part for choice in case.dialect.read_answer(body) for part in choice.parts]
        except UpstreamError:
            continue
        if not reads(parts, path):
            hidden.append(path)
    assert hidden == []


def test_what_a_refused_answer_keeps_has_no_string_that_was_read(case: Case) -> None:
    """One choice is refused: nothing of it, and nothing that stood beside the choices, is in the body any more."""
    for path, body in smuggled(case.full.ANSWER):
        try:
            positions = [choice.position for choice in case.dialect.read_answer(body)]
        except UpstreamError:
            continue
        try:
            for position in positions:
                body = case.dialect.refused(case.full.REQUEST, body, position, BLOCKED)
        except UpstreamError as exc:
            body = case.dialect.error(exc)
        assert SENTENCE not in str(body), path


def test_no_string_of_a_stream_passes_unread(streamed: Case) -> None:
    hidden = []
    for number, event in enumerate(streamed.full.EVENTS):
        for path, data in smuggled(event.data):
            stream = streamed.dialect.stream(streamed.full.REQUEST)
            try:
                for before in streamed.full.EVENTS[:number]:
                    stream.read(before)
                deltas = stream.read(Event(data, event.name))
            except UpstreamError:
                continue
            if not any(delta.text is None or SENTENCE in delta.text for delta in deltas):
                hidden.append((number, path))
    assert hidden == []


def test_the_name_of_an_event_is_its_own_or_none(streamed: Case) -> None:
    for event in streamed.full.EVENTS:
        with pytest.raises(UpstreamError):
            streamed.dialect.stream(streamed.full.REQUEST).read(Event(event.data, SENTENCE))


def test_a_full_stream_has_nothing_in_it_that_cannot_be_read(streamed: Case) -> None:
    stream = streamed.dialect.stream(streamed.full.REQUEST)
    deltas = [delta for event in streamed.full.EVENTS for delta in stream.read(event)]
    assert [delta.channel for delta in deltas if delta.text is None and delta.kind is not Kind.SEAL] == []
    assert len({delta.channel for delta in deltas}) > 2
    assert stream.finished


def test_an_edit_of_every_channel_leaves_no_old_text_in_a_stream(streamed: Case) -> None:
    for number, event in enumerate(streamed.full.EVENTS):
        for path, data in smuggled(event.data):
            stream = streamed.dialect.stream(streamed.full.REQUEST)
            changed = Event(data, event.name)
            try:
                for before in streamed.full.EVENTS[:number]:
                    stream.edited(before, {}) if stream.read(before) else None
                deltas = stream.read(changed)
            except UpstreamError:
                continue
            if any(delta.text is None for delta in deltas):
                continue
            edits = {delta.channel: "[x]" for delta in deltas if delta.text}
            assert SENTENCE not in str(stream.edited(changed, edits).data), (number, path)


def _bad_requests() -> list[Any]:
    return [
        pytest.param(case.dialect, body, param, id=f"{name}-{i}-{param}")
        for name, case in CASES.items()
        for i, (body, param) in enumerate(case.full.BAD_REQUESTS)
    ]


@pytest.mark.parametrize(("dialect", "body", "param"), _bad_requests())
def test_a_bad_request_is_told_which_field_is_wrong(dialect: Dialect, body: Any, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        dialect.read_request(body)
    assert caught.value.param == param
    assert caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        '{"model": "demo", "model": "other", "messages": []}',
        '{"model": "demo", "temperature": NaN}',
        '{"model": "demo", "seed": ' + "9" * 5000 + "}",
        '{"model": "demo", "messages": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
    ids=["twice the same key", "NaN", "5000 digits", "100000 levels"],
)
def test_json_that_two_readers_could_read_in_two_ways_never_reaches_a_dialect(text: str) -> None:
    with pytest.raises(NotStrict):
        decode(text)


@cache
def _requests(name: str) -> st.SearchStrategy[Any]:
    return _changed([CASES[name].full.REQUEST])


@cache
def _answers(name: str) -> st.SearchStrategy[Any]:
    return _changed([CASES[name].full.ANSWER])


@cache
def _events(name: str) -> st.SearchStrategy[Any]:
    return _changed([event.data for event in CASES[name].full.EVENTS])


def _changed(bodies: Sequence[Any]) -> st.SearchStrategy[Any]:
    """Random JSON, or one of the full bodies with random JSON in a random place."""
    values = json_values(words_in(*bodies))
    spots = [(body, path) for body in bodies for path, _ in places(body)]
    return values | st.builds(lambda spot, value: replaced(*spot, value), st.sampled_from(spots), values)


@given(data=st.data(), name=st.sampled_from(sorted(CASES)))
@settings(max_examples=200)
def test_whatever_a_caller_sends_is_read_or_a_bad_request(data: st.DataObject, name: str) -> None:
    case = CASES[name]
    body = data.draw(_requests(name))
    if not isinstance(body, dict):
        return
    try:
        case.dialect.read_request(body)
    except BadRequest as exc:
        assert case.dialect.error(exc)
        return
    if case.dialect.streams(body) or name in STREAMED:
        case.dialect.stream(body)


@given(data=st.data(), name=st.sampled_from(sorted(CASES)))
@settings(max_examples=150)
def test_whatever_a_provider_answers_is_read_or_an_upstream_error(data: st.DataObject, name: str) -> None:
    case = CASES[name]
    try:
        case.dialect.read_answer(data.draw(_answers(name)))
    except UpstreamError as exc:
        assert exc.status == 502


@given(data=st.data(), name=st.sampled_from(STREAMED))
@settings(max_examples=200)
def test_whatever_a_provider_streams_is_read_or_an_upstream_error(data: st.DataObject, name: str) -> None:
    case = CASES[name]
    stream = case.dialect.stream(case.full.REQUEST)
    for _ in range(data.draw(st.integers(1, 4))):
        body = data.draw(_events(name))
        if not isinstance(body, dict):
            continue
        event = Event(body, data.draw(st.sampled_from([event.name for event in case.full.EVENTS])))
        try:
            deltas = stream.read(event)
        except UpstreamError:
            return
        stream.edited(event, {delta.channel: "[x]" for delta in deltas if delta.text})
        stream.sent(event)
