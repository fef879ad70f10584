"""Every dialect, the same questions: is every string read, and is bad input met with a clear error and nothing else?"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.chat import Chat
from gateway.dialects.completions import Completions
from gateway.dialects.dialect import Dialect, Event
from gateway.dialects.messages import Messages
from gateway.dialects.responses import Responses
from gateway.errors import BadRequest, UpstreamError
from gateway.strict_json import NotStrict, decode
from guard_runtime.conversation import Path
from tests.dialects import full_chat, full_completions, full_messages, full_responses
from tests.dialects.mutations import SENTENCE, json_values, places, reads, replaced, smuggled, words_in
from tests.dialects.refusals import BLOCKED


@dataclass(frozen=True)
class Case:
    """`free` are the paths whose strings nobody reads by design: the model's name, which must be one of the
    configuration's, and the caller's own bookkeeping."""

    dialect: Dialect
    full: Any
    free: tuple[Path, ...] = (("model",), ("metadata",))

    def is_free(self, path: Path) -> bool:
        return any(path[: len(free)] == free for free in self.free)


CASES = {
    "chat": Case(Chat(), full_chat),
    "completions": Case(Completions(), full_completions),
    "responses": Case(Responses(), full_responses),
    "messages": Case(Messages(), full_messages),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
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


def test_a_full_request_is_taken_as_it_is(case: Case) -> None:
    parts = case.dialect.read_request(case.full.REQUEST).judged
    assert len({part.path for part in parts}) == len(parts) > 3


def test_no_string_of_an_answer_passes_unread(case: Case) -> None:
    hidden = []
    for path, body in smuggled(case.full.ANSWER):
        try:
            choices = case.dialect.read_answer(body)
        except UpstreamError:
            continue
        if not reads([part for choice in choices for part in choice.parts], path):
            hidden.append(path)
    assert hidden == []


def test_what_a_refused_answer_keeps_has_no_string_that_was_read(case: Case) -> None:
    """One choice is refused: nothing of it, and nothing that stood beside the choices, is in the body any more."""
    for path, body in smuggled(case.full.ANSWER):
        try:
            positions = [choice.position for choice in case.dialect.read_answer(body)]
        except UpstreamError:
            continue
        for position in positions:
            body = case.dialect.refused(case.full.REQUEST, body, position, BLOCKED)
        assert SENTENCE not in str(body), path


def test_no_string_of_a_stream_passes_unread(case: Case) -> None:
    hidden = []
    for number, event in enumerate(case.full.EVENTS):
        for path, data in smuggled(event.data):
            stream = case.dialect.stream(case.full.REQUEST)
            try:
                for before in case.full.EVENTS[:number]:
                    stream.read(before)
                deltas = stream.read(Event(data, event.name))
            except UpstreamError:
                continue
            if not any(delta.text is None or SENTENCE in delta.text for delta in deltas):
                hidden.append((number, path))
    assert hidden == []


def test_the_name_of_an_event_is_its_own_or_none(case: Case) -> None:
    for event in case.full.EVENTS:
        with pytest.raises(UpstreamError):
            case.dialect.stream(case.full.REQUEST).read(Event(event.data, SENTENCE))


def test_a_full_stream_has_nothing_in_it_that_cannot_be_read(case: Case) -> None:
    stream = case.dialect.stream(case.full.REQUEST)
    deltas = [delta for event in case.full.EVENTS for delta in stream.read(event)]
    assert [delta.channel for delta in deltas if delta.text is None] == []
    assert len({delta.channel for delta in deltas}) > 2
    assert stream.finished


def test_an_edit_of_every_channel_leaves_no_old_text_in_a_stream(case: Case) -> None:
    for number, event in enumerate(case.full.EVENTS):
        for path, data in smuggled(event.data):
            stream = case.dialect.stream(case.full.REQUEST)
            changed = Event(data, event.name)
            try:
                for before in case.full.EVENTS[:number]:
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
@settings(max_examples=200, deadline=None)
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
    assert case.dialect.streams(body) in (True, False)
    case.dialect.stream(body)


@given(data=st.data(), name=st.sampled_from(sorted(CASES)))
@settings(max_examples=150, deadline=None)
def test_whatever_a_provider_answers_is_read_or_an_upstream_error(data: st.DataObject, name: str) -> None:
    case = CASES[name]
    try:
        case.dialect.read_answer(data.draw(_answers(name)))
    except UpstreamError as exc:
        assert exc.status == 502


@given(data=st.data(), name=st.sampled_from(sorted(CASES)))
@settings(max_examples=200, deadline=None)
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
