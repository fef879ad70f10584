"""A dialect added in one file, this one, and one line of registration (`registered`) is served like all the others."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway.api.runtime import Gateway
from gateway.dialects.dialect import Channel, Choice, Delta, Dialect, Event, Json, Refusal
from gateway.dialects.fields import items, strangers, text, unread, usage_in
from gateway.dialects.json_schema import TEXT, TEXTS, record, some
from gateway.dialects.openai_errors import ERROR, blocked_body, error_body
from gateway.dialects.registry import dialects
from gateway.dialects.request_fields import Content, Flag, Identifier, Number, RequestFields
from gateway.errors import GatewayError
from gateway.policy.sources import Sources, Treatment
from gateway.tenants.limits import Limits
from gateway.upstreams.upstream import Scripted
from guard_runtime.conversation import Conversation, Part, Role, Turn
from tests.support import gateway_server
from tests.support.gateway_server import KEY, Parts, blocking, served

FIELDS = RequestFields(
    {
        "persona": Content(TEXT, system=True),
        "question": Content(TEXT),
        "hints": Content(some(record(("hint",), hint=TEXT)), counted=True),
        "stop": Content(TEXTS),
        "mood": Number(0, 1),
        "stream": Flag(),
        "user": Identifier(),
    },
    required=("question",),
)
ANSWER_TEXTS = ("reply", "footnote")
ANSWER_NAMES = frozenset({"id", "usage", "ended"})


class Toy:
    """Asks {persona, question, hints, stop}; is answered {reply, footnote}."""

    name = "toy"
    path = "/v1/toy"
    summary = "A toy"
    fields = FIELDS
    error_schema = ERROR
    azure = True
    speaks = True
    annotates = False
    forwarded: frozenset[str] = frozenset()

    def read_request(self, body: Json) -> Conversation:
        FIELDS.check(body)
        persona = Turn(Role.SYSTEM, tuple(text(body.get("persona"), ("persona",))))
        parts = [*text(body.get("question"), ("question",))]
        for hint, path in items(body.get("hints"), ("hints",)):
            parts += text(hint.get("hint"), (*path, "hint"))
        for i, word in enumerate(body.get("stop") or ()):
            parts += text(word, ("stop", i))
        return Conversation((persona, Turn(Role.USER, tuple(parts))))

    def read_answer(self, answer: Json, asked: Json | None = None) -> tuple[Choice, ...]:
        parts: list[Part] = list(strangers(answer, (), frozenset(ANSWER_TEXTS), ANSWER_NAMES))
        for name in ANSWER_TEXTS:
            parts += text(answer.get(name), (name,))
        return (Choice(0, tuple(parts)),)

    def normalised(self, answer: Json) -> Json:
        return answer

    def choices(self, body: Json) -> int:
        return 1

    def usage(self, data: Json) -> Json:
        return usage_in(data)

    def blocked_prompt(self, refusal: Refusal) -> Json:
        return blocked_body(refusal)

    def completion(self, body: Json, refusal: Refusal) -> Json:
        return {"id": refusal.id, "reply": refusal.text, "ended": "refused"}

    def refused(self, body: Json, answer: Json, position: int, refusal: Refusal) -> Json:
        return self.completion(body, refusal)

    def instructed(self, body: Json, instruction: str) -> Json:
        return {**body, "persona": instruction}

    def with_choice(self, answer: Json, position: int, other: Json) -> Json:
        return other

    def error(self, error: GatewayError) -> Json:
        return error_body(error)

    def streams(self, body: Json) -> bool:
        return body.get("stream") is True

    def stream(self, body: Json) -> "ToyStream":
        return ToyStream()


class ToyStream:
    """Events {reply} and {footnote}, then {ended}."""

    def __init__(self) -> None:
        self._finished = False
        self._ended = False

    @property
    def finished(self) -> bool:
        return self._finished

    def normalised(self, event: Event) -> Event:
        return event

    def without(self, event: Event, unknown: Collection[Channel]) -> Event | None:
        gone = {str(channel[-1]) for channel in unknown}
        kept = {key: value for key, value in (event.data or {}).items() if key not in gone}
        return Event(kept) if kept else None

    def read(self, event: Event) -> Sequence[Delta]:
        data = event.data or {}
        self._finished = self._finished or "ended" in data
        hidden = [Delta(("event", key), None) for key in unread(data, frozenset(ANSWER_TEXTS), ANSWER_NAMES)]
        return [*hidden, *(Delta((name,), data[name]) for name in ANSWER_TEXTS if data.get(name))]

    def edited(self, event: Event, texts: Mapping[Channel, str]) -> Event:
        return Event({**(event.data or {}), **{str(channel[0]): replacement for channel, replacement in texts.items()}})

    def sent(self, event: Event) -> None:
        self._ended = self._ended or "ended" in (event.data or {})

    def begin(self, refusal: Refusal) -> Sequence[Event]:
        return self.replace(refusal)

    def stop(self, refusal: Refusal) -> Sequence[Event]:
        return [Event({"ended": "refused"})]

    def replace(self, refusal: Refusal) -> Sequence[Event]:
        return [Event({"reply": refusal.text}), Event({"ended": "replaced"})]

    def fail(self, error: GatewayError) -> Sequence[Event]:
        return [] if self._ended else [Event(dict(error_body(error)))]

    def close(self) -> Sequence[Event]:
        return []


TOY: Dialect = Toy()


def registered(parts: Parts) -> Gateway:
    gateway = parts.gateway
    gateway.runtime = replace(gateway.runtime, dialects=(*dialects(), TOY))
    return gateway


REQUEST: dict[str, Any] = {
    "model": "m",
    "persona": "You are kind.",
    "question": "How are you?",
    "hints": [{"hint": "Be short."}, {"hint": "Be clear."}],
    "stop": ["END"],
    "mood": 0.5,
    "user": "u1",
}
FORBIDDEN_IN: Mapping[str, Any] = {
    "persona": "something forbidden",
    "question": "something forbidden",
    "hints": [{"hint": "Be short."}, {"hint": "something forbidden"}],
    "stop": ["END", "something forbidden"],
}
ANSWER: dict[str, Any] = {"id": "a1", "reply": "I am fine.", "footnote": "As always.", "usage": {"total_tokens": 7}}


def answering(answer: Json) -> Scripted:
    """An upstream that gives this answer, streamed three characters at a time."""

    def events(body: Json) -> Iterator[Event]:
        for name, value in answer.items():
            if name not in ANSWER_NAMES:
                yield from (Event({name: value[i : i + 3]}) for i in range(0, len(value), 3))
        yield Event({"ended": "done", "usage": answer["usage"]})

    return Scripted("toy", lambda body: answer, events)


@pytest.fixture(scope="module")
def parts() -> Parts:
    return Parts(upstream=answering(ANSWER))


@pytest.fixture(scope="module")
def url(parts: Parts) -> Iterator[str]:
    with served(registered(parts)) as address:
        yield address


def post(url: str, body: Json, path: str = "/v1/toy") -> httpx.Response:
    return httpx.post(url + path, json=body, headers={"authorization": f"Bearer {KEY}"}, timeout=30)


def test_it_is_served_and_every_text_is_read_and_recorded(url: str, parts: Parts) -> None:
    before = len(parts.sink.records)
    assert post(url, REQUEST).json() == ANSWER
    record = gateway_server.record(parts, before + 1)
    assert (record["dialect"], record["outcome"], record["tokens"]) == ("toy", "allowed", {"total_tokens": 7})
    places = {place for _, place, *_ in record["read"]}  # type: ignore[attr-defined]
    assert {"persona", "question", "hints[0].hint", "hints[1].hint", "stop[0]", "reply", "footnote"} == places


def test_its_answers_are_streamed(url: str) -> None:
    answer = post(url, {**REQUEST, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert '"ended":"done"' in answer.text


def test_it_has_its_path_on_azure(url: str) -> None:
    body = {name: value for name, value in REQUEST.items() if name != "model"}
    assert post(url, body, "/openai/deployments/m/toy").json() == ANSWER


def test_it_is_documented_field_by_field(url: str) -> None:
    paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    operation = paths["/v1/toy"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"].keys() == {"model", *FIELDS.kinds}
    assert schema["properties"]["mood"] == {"type": ["number", "null"], "minimum": 0, "maximum": 1}
    assert schema["required"] == ["model", "question"]
    assert "text/event-stream" in operation["responses"]["200"]["content"]
    assert "/openai/deployments/{model}/toy" in paths


def test_an_unknown_path_names_it_among_those_that_are_served(url: str) -> None:
    assert "/v1/toy" in post(url, {}, "/v1/tay").json()["error"]["message"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"unknown": "a text"}, "unknown"),
        ({"mood": 2}, "mood"),
        ({"stream": "yes"}, "stream"),
        ({"user": "two words"}, "user"),
        ({"model": ""}, "model"),
        ({"api_base": "http://evil"}, "api_base"),
        ({"hints": [{"hint": "x", "api_key": "k"}]}, "hints.0.api_key"),
        ({"hints": [{"hint": "x"}] * 4}, "hints"),
    ],
)
def test_what_it_does_not_take_is_refused_by_name(change: Json, param: str) -> None:
    upstream = answering(ANSWER)
    with served(registered(Parts(upstream=upstream, limits=Limits(messages=3)))) as url:
        answer = post(url, {**REQUEST, **change})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert upstream.asked == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", sorted(FIELDS.content))
def test_a_forbidden_word_in_any_field_the_model_reads_is_stopped(
    parts: Parts, url: str, name: str, stream: bool
) -> None:
    before = len(parts.upstream.asked)  # type: ignore[attr-defined]
    answer = post(url, {**REQUEST, name: FORBIDDEN_IN[name], "stream": stream})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_filter")
    assert len(parts.upstream.asked) == before  # type: ignore[attr-defined]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ANSWER_TEXTS)
def test_a_forbidden_word_in_any_text_of_an_answer_does_not_reach_the_caller(name: str, stream: bool) -> None:
    upstream = answering({**ANSWER, name: "something forbidden"})
    with served(registered(Parts(upstream=upstream))) as url:
        answer = post(url, {**REQUEST, "stream": stream})
    assert (answer.status_code, len(upstream.asked)) == (200, 1)
    assert '"ended":"refused"' in answer.text
    assert not any(piece in answer.text for piece in ("forbidden", '"for', '"bid', '"rbi', "den"))


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_field_is_dropped_or_held_as_the_policy_says(stream: bool) -> None:
    for drop, ended in ((True, "done"), (False, "refused")):
        parts = Parts(
            upstream=answering({**ANSWER, "unknown": "something forbidden"}), policy=blocking(drop_unknown=drop)
        )
        with served(registered(parts)) as url:
            answer = post(url, {**REQUEST, "stream": stream})
        assert "ended" not in answer.text or f'"ended":"{ended}"' in answer.text
        assert not any(piece in answer.text for piece in ("forbidden", '"for', '"bid', '"rbi'))


def test_only_what_it_calls_a_system_field_can_be_trusted() -> None:
    policy = blocking(sources=Sources(system=Treatment.TRUST))
    with served(registered(Parts(upstream=answering(ANSWER), policy=policy))) as url:
        assert post(url, {**REQUEST, "persona": FORBIDDEN_IN["persona"]}).status_code == 200
        assert post(url, {**REQUEST, "question": FORBIDDEN_IN["question"]}).status_code == 400
