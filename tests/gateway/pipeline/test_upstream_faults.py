"""The whole gateway before a provider that fails, real sockets on both sides: one lawful ending, one record."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import pytest

from gateway.upstreams.openai import Endpoint, OpenAICompatible
from gateway.upstreams.retries import Retries
from gateway.upstreams.upstream import Timeouts
from tests.support.faulty_provider import (
    Provider,
    Script,
    answer,
    broken,
    chunks,
    cut,
    dripped,
    faulty_thread,
    raw_sse,
    sse,
    stalled,
    status,
    unreachable,
    written,
)
from tests.support.gateway_server import KEY, Parts, record, served

TEXT = "一句话。 And another one! "
SAID = chunks(TEXT)
WHOLE = sse(*SAID)
HALF = len(written(WHOLE)) // 2
PLAIN = {
    "id": "c",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
}
GARBAGE = b'data: {"choices": [\n\n'
BEGINNING = [b"data: " + orjson.dumps(event) + b"\n\n" for event in SAID[:8]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the caller got: the status, the text, the code of an error (a reply's or an event's), and how it ended."""

    status: int
    text: str
    error: str | None
    done: bool
    outcome: str


def ask(url: str, *, stream: bool, patience: float = 20.0) -> Seen:
    """One request through a gateway whose provider is at this address, and may be silent for so many seconds."""
    endpoint = Endpoint(
        url,
        timeouts=Timeouts(connect=20.0, first_byte=patience, idle=patience, whole=patience),
        retries=Retries(attempts=2, wait=0.01, longest_wait=0.1),
    )
    parts = Parts(upstream=OpenAICompatible("provider", endpoint))
    body = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
    with served(parts.gateway) as gateway:
        headers = {"authorization": f"Bearer {KEY}"}
        reply = httpx.post(f"{gateway}/v1/chat/completions", json=body, headers=headers, timeout=60)
        outcome = str(record(parts)["outcome"])
    if reply.headers["content-type"].startswith("text/event-stream"):
        return _streamed(reply, outcome)
    said = reply.json()
    text = "".join(choice["message"]["content"] for choice in said.get("choices", ()))
    return Seen(reply.status_code, text, said.get("error", {}).get("code"), False, outcome)


def _streamed(reply: httpx.Response, outcome: str) -> Seen:
    frames = [frame.removeprefix("data: ") for frame in reply.text.split("\n\n") if frame and frame[0] != ":"]
    events: Sequence[Any] = [orjson.loads(frame) for frame in frames if frame != "[DONE]"]
    text = "".join(choice["delta"].get("content") or "" for e in events for choice in e.get("choices", ()))
    errors = [event["error"]["code"] for event in events if "error" in event]
    assert len(errors) <= 1 and frames.count("[DONE]") <= 1
    return Seen(reply.status_code, text, errors[0] if errors else None, frames[-1] == "[DONE]", outcome)


def asked(*scripts: Script, stream: bool = True, patience: float = 20.0) -> tuple[Seen, Provider]:
    with faulty_thread(*scripts) as provider:
        return ask(provider.url, stream=stream, patience=patience), provider


@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_that_refuses_the_connection_is_a_502(stream: bool) -> None:
    with unreachable() as url:
        assert ask(url, stream=stream) == Seen(502, "", "upstream_error", False, "upstream_failed")


@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_that_never_answers_is_a_504(stream: bool) -> None:
    seen, provider = asked(stalled(WHOLE if stream else answer(PLAIN), 0), stream=stream, patience=1.0)
    assert (seen.status, seen.text, seen.outcome) == (504, "", "upstream_timeout")
    assert len(provider.requests) <= 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_in_trouble_is_asked_again_and_then_told(stream: bool) -> None:
    seen, provider = asked(status(503, {"error": {"message": "busy"}}), stream=stream)
    assert (seen.status, seen.text, seen.outcome) == (503, "", "upstream_failed")
    assert len(provider.requests) == 2


@pytest.mark.parametrize(
    "script", [answer([PLAIN]), answer("no object"), status(200, "<html>"), raw_sse(b"data: 1\n\n")]
)
def test_garbage_for_an_answer_is_a_502(script: Script) -> None:
    seen, _ = asked(script, stream=False)
    assert (seen.status, seen.text, seen.outcome) == (502, "", "upstream_failed")


@pytest.mark.parametrize(
    "script", [raw_sse(GARBAGE), raw_sse(b"\xff\xfe\n\n", GARBAGE), answer(PLAIN), sse(done=False)]
)
def test_garbage_for_a_stream_is_a_502(script: Script) -> None:
    seen, _ = asked(script)
    assert (seen.status, seen.text, seen.outcome) == (502, "", "upstream_failed")


@pytest.mark.parametrize("garbage", [GARBAGE, b"data: [1]\n\n", b'data: {"choices": 3}\n\n', b"data: \xff\n\n"])
def test_garbage_in_a_stream_ends_it_behind_what_was_said_before(garbage: bytes) -> None:
    seen, _ = asked(raw_sse(*BEGINNING, garbage, b"data: " + orjson.dumps(SAID[9]) + b"\n\n"))
    assert seen.error == "upstream_error" and seen.outcome == "upstream_failed"
    assert seen.status == 502 or (seen.done and TEXT.startswith(seen.text))


def test_a_stream_without_its_closing_event_is_closed_for_it() -> None:
    assert asked(sse(*SAID, done=False))[0] == Seen(200, TEXT, None, True, "allowed")


@pytest.mark.parametrize("script", [sse(*SAID[:-1], done=False), cut(WHOLE, HALF), broken(WHOLE, HALF)])
def test_a_stream_that_stops_in_the_middle_says_so(script: Script) -> None:
    seen, _ = asked(script)
    assert (seen.status, seen.error, seen.done, seen.outcome) == (200, "upstream_error", True, "upstream_failed")
    assert TEXT.startswith(seen.text)


def test_a_stream_that_falls_silent_in_the_middle_says_so() -> None:
    seen, _ = asked(stalled(WHOLE, HALF), patience=2.0)
    assert (seen.status, seen.error, seen.done, seen.outcome) == (200, "upstream_timeout", True, "upstream_timeout")
    assert seen.text and TEXT.startswith(seen.text)


@pytest.mark.parametrize("size", [1, 7])
def test_a_stream_in_pieces_of_a_byte_arrives_whole(size: int) -> None:
    assert asked(dripped(WHOLE, size))[0] == Seen(200, TEXT, None, True, "allowed")


def test_one_chunk_of_a_megabyte_arrives_whole() -> None:
    text = "Many words and no end. " * 45_600
    said = [{**SAID[0], "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}]
    assert len(text) > 1_000_000
    assert asked(sse(*said))[0] == Seen(200, text, None, True, "allowed")


def test_a_bad_word_anywhere_in_a_megabyte_stops_it_before_it() -> None:
    text = "Many words and no end. " * 40_000 + "something forbidden. " + "Many words. " * 5_000
    said = [{**SAID[0], "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}]
    seen, _ = asked(sse(*said))
    assert (seen.text, seen.error, seen.done, seen.outcome) == ("", None, True, "blocked")


def test_an_answer_cut_in_the_middle_is_a_502() -> None:
    whole = answer(PLAIN)
    seen, _ = asked(cut(whole, len(written(whole)) - 20), stream=False)
    assert (seen.status, seen.text, seen.outcome) == (502, "", "upstream_failed")
