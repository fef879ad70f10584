"""A bug anywhere on a request's way is one reply in the right shape and one record, and its message goes nowhere."""

import logging
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import httpx
import pytest

from gateway.bugs import bug_place
from gateway.dialects.choices.chat import Chat
from gateway.dialects.messages.messages import Messages
from gateway.dialects.moderations import Moderations
from gateway.policy.policy import Action, OnBlock, Rewrite
from gateway.records.receipts import Receipts
from gateway.records.record import Record
from gateway.telemetry.metrics import Metrics
from gateway.tenants.tenants import Tenants
from gateway.upstreams.upstream import Scripted
from guard_runtime.conversation import Conversation
from guard_runtime.guards.scripted import ScriptedGuard
from guard_runtime.verdict import Span, Verdict
from tests.support.gateway_server import BAD, KEY, PRIVACY, Parts, blocking, record, served

CONTENT = "白鹭飞过 the heron"
"""What the caller said: no log, record or error may repeat it."""
PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}
DIALECTS = {"chat": Chat, "messages": Messages}
CHATTY = Scripted.saying("A harmless answer.")


def raises(*_: object, **__: object) -> NoReturn:
    raise KeyError(CONTENT)


def body(*, stream: bool = False, content: str = CONTENT) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": content}]}


def post(url: str, path: str, sent: Mapping[str, Any]) -> httpx.Response:
    return httpx.post(url + path, json=sent, headers={"authorization": f"Bearer {KEY}"}, timeout=30)


def assert_failed(reply: httpx.Response, url: str, parts: Parts, dialect: str) -> None:
    """A 500 in the dialect's shape, under one id in header, record and receipt; counted once."""
    assert reply.status_code == 500
    error = reply.json()
    assert error["error"]["type"] == ("api_error" if dialect == "messages" else "server_error")
    line = record(parts)
    assert (line["outcome"], line["status"], line["dialect"]) == ("failed", 500, dialect)
    assert (line["error"], line["tenant"]) == ("internal_error", "shop")
    assert str(line["detail"]).startswith("KeyError at ")
    assert line["id"] == reply.headers["x-request-id"]
    key = {"authorization": f"Bearer {KEY}"}
    receipt = httpx.get(f"{url}/v1/receipts/{line['id']}", headers=key).json()
    assert receipt["outcome"] == "failed"
    counted = f'libragate_requests_total{{dialect="{dialect}",outcome="failed",tenant="shop"}} 1.0'
    assert counted in httpx.get(f"{url}/metrics").text


@pytest.fixture
def told(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """Everything that was written by then, to logs and to either stream; at the end none of it may repeat content."""
    caplog.set_level(logging.WARNING, "gateway")  # the simulation turns it off for the whole process
    written: list[str] = []

    def everything() -> str:
        written.extend((*capfd.readouterr(), caplog.text))
        return "".join(written)

    yield everything
    for piece in (CONTENT, "白鹭", "heron", "Traceback"):
        assert piece not in everything()


class BrokenWords(UserDict[str, str]):
    """A policy's refusals whose reading is a bug."""

    def keys(self) -> NoReturn:
        raises()


class BrokenLabel(str):
    __slots__ = ()

    def __format__(self, spec: str) -> NoReturn:
        raises()


class MarkingGuard(ScriptedGuard):
    """Marks the first characters of every text, under a label that cannot be written."""

    async def check(self, conversation: Conversation) -> Verdict:
        verdict = await super().check(conversation)
        spans = tuple(Span(part.path, 0, 2, PRIVACY, BrokenLabel("x")) for part in conversation.judged if part.text)
        return replace(verdict, spans=spans)


@dataclass(frozen=True, slots=True)
class Planted:
    """A gateway with a bug in one place."""

    make: Callable[[], Parts]
    patched: tuple[str, ...] = ()
    content: str = CONTENT


def masking() -> Parts:
    return Parts(
        guards=(MarkingGuard(lambda text: {PRIVACY: 0.9}),),
        upstream=CHATTY,
        policy=blocking(Action.REWRITE, Rewrite.MASK),
    )


PLAIN = {
    "read_request": Planted(Parts, ("read_request",)),
    "read_answer": Planted(Parts, ("read_answer",)),
    "upstream": Planted(lambda: Parts(upstream=Scripted("broken", raises, raises))),
    "refusal": Planted(
        lambda: Parts(policy=blocking(refusal=BrokenWords(), on_block=OnBlock.COMPLETION)), content="forbidden"
    ),
    "mask": Planted(masking),
}


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("place", PLAIN)
def test_a_bug_on_the_plain_path_is_a_recorded_500(
    place: str, dialect: str, monkeypatch: pytest.MonkeyPatch, told: Callable[[], str]
) -> None:
    planted = PLAIN[place]
    for name in planted.patched:
        monkeypatch.setattr(DIALECTS[dialect], name, raises)
    parts = planted.make()
    with served(parts.gateway) as url:
        reply = post(url, PATHS[dialect], body(content=planted.content))
        assert_failed(reply, url, parts, dialect)
    assert "KeyError at " in told()


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("place", ["read_request", "refusal", "mask"])
def test_a_bug_before_a_stream_begins_is_a_recorded_500(
    place: str, dialect: str, monkeypatch: pytest.MonkeyPatch, told: Callable[[], str]
) -> None:
    planted = PLAIN[place]
    for name in planted.patched:
        monkeypatch.setattr(DIALECTS[dialect], name, raises)
    parts = planted.make()
    with served(parts.gateway) as url:
        reply = post(url, PATHS[dialect], body(stream=True, content=planted.content))
        assert_failed(reply, url, parts, dialect)
    assert "KeyError at " in told()


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("place", ["upstream", "stream"])
def test_a_bug_in_a_stream_ends_it_with_an_error_and_one_record(
    place: str, dialect: str, monkeypatch: pytest.MonkeyPatch, told: Callable[[], str]
) -> None:
    parts = Parts(upstream=Scripted("broken", raises, raises) if place == "upstream" else CHATTY)
    if place == "stream":
        monkeypatch.setattr(DIALECTS[dialect], "stream", raises)
    with served(parts.gateway) as url:
        reply = post(url, PATHS[dialect], body(stream=True))
        line = record(parts)
    assert reply.status_code == 502
    assert reply.json()["error"]["message"] == "The answer could not be relayed to its end."
    assert (line["outcome"], line["id"]) == ("failed", reply.headers["x-request-id"])
    assert str(line["detail"]).startswith("KeyError at ")
    assert "a stream failed: KeyError at " in told()


@pytest.mark.parametrize("method", ["read_request", "answer"])
def test_a_bug_in_moderations_is_a_recorded_500(
    method: str, monkeypatch: pytest.MonkeyPatch, told: Callable[[], str]
) -> None:
    monkeypatch.setattr(Moderations, method, raises)
    parts = Parts()
    with served(parts.gateway) as url:
        reply = post(url, "/v1/moderations", {"input": CONTENT})
        assert_failed(reply, url, parts, "moderations")
    assert "KeyError at " in told()


class BrokenGuard(ScriptedGuard):
    @property
    def ready(self) -> bool:  # type: ignore[override]
        raises()

    @ready.setter
    def ready(self, value: bool) -> None: ...


@pytest.mark.parametrize(
    ("path", "owner", "method"),
    [
        ("/v1/models", Tenants, "find"),
        ("/v1/models/m", Tenants, "find"),
        ("/v1/receipts/AAAA-AAAA-AAAA", Receipts, "find"),
        ("/metrics", Metrics, "page"),
        ("/readyz", None, ""),
    ],
)
def test_a_bug_in_a_page_is_a_500_with_an_id(
    path: str, owner: type | None, method: str, monkeypatch: pytest.MonkeyPatch, told: Callable[[], str]
) -> None:
    if owner is not None:
        monkeypatch.setattr(owner, method, raises)
    parts = Parts(guards=(BrokenGuard(BAD),))
    with served(parts.gateway) as url:
        reply = httpx.get(url + path, headers={"authorization": f"Bearer {KEY}"})
        line = record(parts)
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal_error")
    assert (line["outcome"], line["id"]) == ("failed", reply.headers["x-request-id"])
    assert "KeyError at " in told()


@dataclass(slots=True)
class BrokenSink:
    written: list[Record] = field(default_factory=list)

    def write(self, record: Record) -> None:
        raises()


def test_a_bug_in_a_sink_changes_no_reply_and_keeps_no_other_sink_from_its_record(told: Callable[[], str]) -> None:
    parts = Parts()
    gateway = parts.gateway
    gateway.runtime = replace(gateway.runtime, sinks=(BrokenSink(), parts.sink))
    with served(gateway) as url:
        reply = post(url, PATHS["chat"], body())
        assert record(parts)["outcome"] == "allowed"
    assert reply.status_code == 200
    assert "BrokenSink: KeyError at " in told()


def test_what_escapes_every_net_is_logged_by_uvicorn_without_its_message(
    monkeypatch: pytest.MonkeyPatch, told: Callable[[], str]
) -> None:
    monkeypatch.setattr(Chat, "error", raises)
    monkeypatch.setattr(Chat, "read_request", raises)
    with served(Parts().gateway) as url:
        assert post(url, PATHS["chat"], body()).status_code == 500
    assert "Exception in ASGI application: KeyError at " in told()


def test_a_bug_is_told_by_class_and_place_alone() -> None:
    with pytest.raises(KeyError) as caught:
        raises()
    place = bug_place(caught.value)
    assert place.startswith("KeyError at gateway/pipeline/test_bugs.py:")
    assert place.endswith(" in raises")
    both = ExceptionGroup(CONTENT, [caught.value, ValueError(CONTENT)])
    assert bug_place(both) == f"{place}; ValueError"
