"""The relay to a provider, against a real socket that fails in every way a provider has been seen to fail."""

import asyncio
import contextlib
import gzip
import ssl
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.dialects.dialect import Event
from gateway.errors import BadRequest, UpstreamError, UpstreamTimeout
from gateway.upstreams.openai import Endpoint, OpenAICompatible
from gateway.upstreams.retries import Again, Patience, Retries
from gateway.upstreams.upstream import Timeouts
from tests.support.faulty_provider import (
    JSON,
    Close,
    Endless,
    Move,
    Pause,
    Provider,
    Reset,
    Script,
    Send,
    Stall,
    answer,
    broken,
    chunks,
    cut,
    dripped,
    faulty,
    full_backlog,
    head,
    raw_sse,
    sse,
    stalled,
    status,
    unreachable,
    written,
)

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "你好"}]}
FAST = Retries(attempts=3, wait=0.01, longest_wait=1.0)
KEY = "sk-canary-0123456789"


def endpoint(url: str, **settings: object) -> Endpoint:
    return Endpoint(url, **{"key": KEY, "retries": FAST, **settings})  # type: ignore[arg-type]


@asynccontextmanager
async def relay(*scripts: Script, **settings: object) -> AsyncIterator[tuple[OpenAICompatible, Provider]]:
    async with (
        faulty(*scripts) as provider,
        OpenAICompatible("p", endpoint(provider.url, **settings)).running() as upstream,
    ):
        yield upstream, provider


async def streamed(upstream: OpenAICompatible) -> list[Event]:
    async with upstream.stream(CHAT, BODY) as events:
        return [event async for event in events]


async def failure(upstream: OpenAICompatible, *, stream: bool = False) -> UpstreamError:
    with pytest.raises(UpstreamError) as raised:
        await (streamed(upstream) if stream else upstream.answer(CHAT, BODY))
    shown = "".join(traceback.format_exception(raised.value)) + repr(raised.value) + repr(upstream)
    assert KEY not in shown
    return raised.value


async def test_a_plain_answer_comes_back_as_it_is() -> None:
    async with relay(answer({"id": "x", "odd": [1, "中"]})) as (upstream, provider):
        assert await upstream.answer(CHAT, BODY) == {"id": "x", "odd": [1, "中"]}
        assert [request.path for request in provider.requests] == [CHAT]


async def test_the_provider_sees_the_judged_object_and_nothing_else_of_the_caller() -> None:
    body = {"model": "m", "messages": [], "odd": {"中": [1.5, None]}}
    async with relay(answer({}), headers={"X-Team": "a"}) as (upstream, provider):
        await upstream.answer(CHAT, body)
    (request,) = provider.requests
    assert request.json == body
    assert {name: value for name, value in request.headers.items() if name not in ("host", "content-length")} == {
        "accept": "*/*",
        "accept-encoding": "identity",
        "authorization": f"Bearer {KEY}",
        "content-type": "application/json",
        "user-agent": "LibraGate",
        "x-team": "a",
    }


async def test_a_base_url_may_have_any_path() -> None:
    assert str(Endpoint("https://a.test/compatible/v1/").url(CHAT)) == "https://a.test/compatible/v1/chat/completions"
    assert str(Endpoint("https://a.test").url(CHAT)) == "https://a.test/chat/completions"


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("ftp://a.test", None),
        ("a.test/v1", None),
        ("https://u:p@a.test", None),
        ("https://a.test/v1?x=1", None),
        ("https://a.test/v1#f", None),
        ("https://a.test", "sk-secret\r\nX-Evil: 1"),
        ("https://a.test", ""),
        ("https://a.test", "密钥"),
    ],
)
def test_an_endpoint_that_cannot_be_right_is_refused_without_repeating_the_key(url: str, key: str | None) -> None:
    with pytest.raises(ValueError) as raised:
        Endpoint(url, key=key)
    assert "sk-secret" not in str(raised.value)
    assert ":p@" not in str(raised.value)


def test_the_key_is_in_no_repr() -> None:
    assert KEY not in repr(endpoint("https://a.test")) + repr(OpenAICompatible("p", endpoint("https://a.test")))


@pytest.mark.parametrize("scripted", [sse(*chunks("你好")), dripped(sse(*chunks("你好")))])
async def test_a_stream_comes_back_event_by_event_however_it_is_cut(scripted: list[Move]) -> None:
    async with relay(scripted) as (upstream, _):
        assert await streamed(upstream) == [*map(Event, chunks("你好")), Event(None)]


async def test_one_chunk_of_a_megabyte_is_one_event() -> None:
    big = {"choices": [{"index": 0, "delta": {"content": "x" * 1_000_000}}]}
    async with relay(sse(big)) as (upstream, _):
        assert await streamed(upstream) == [Event(big), Event(None)]


async def test_an_event_over_the_limit_is_an_error() -> None:
    async with relay(sse({"text": "x" * 200_000}), max_event=100_000) as (upstream, provider):
        assert "100000 bytes" in (await failure(upstream, stream=True)).message
        await asyncio.wait_for(provider.closed(), 1)


async def test_a_stream_without_its_closing_event_just_ends() -> None:
    async with relay(sse(*chunks("a"), done=False)) as (upstream, _):
        assert await streamed(upstream) == list(map(Event, chunks("a")))


async def test_what_follows_the_closing_event_is_not_read() -> None:
    async with relay(raw_sse(b'data: {"a": 1}\n\ndata: [DONE]\n\ndata: {"late": 1}\n\n')) as (upstream, _):
        assert await streamed(upstream) == [Event({"a": 1}), Event(None)]


async def test_connections_are_used_again_after_answers_and_whole_streams() -> None:
    whole = written(sse({"a": 2}))
    late = [Send(whole[:-5]), Pause(0.02), Send(whole[-5:])]
    async with relay(sse({"a": 1}), late, answer({})) as (upstream, provider):
        await streamed(upstream)
        await streamed(upstream)
        await upstream.answer(CHAT, BODY)
        assert provider.connections == 1


@pytest.mark.parametrize("garbage", [b"data: <html>\n\n", b"data: \xff\n\n", b"data: [1]\n\n", b'data: {"a": "b'])
async def test_garbage_in_a_stream_is_an_error_behind_what_came_before_it(garbage: bytes) -> None:
    async with relay(raw_sse(b'data: {"a": 1}\n\n', garbage)) as (upstream, _):
        seen = []
        with pytest.raises(UpstreamError):
            async with upstream.stream(CHAT, BODY) as events:
                async for event in events:
                    seen.append(event)
        assert seen == [Event({"a": 1})]


async def test_a_stream_cut_at_any_byte_is_an_error_or_an_unfinished_stream_never_a_finished_one() -> None:
    whole = sse({"a": "中"}, {"b": 2})
    events = [Event({"a": "中"}), Event({"b": 2})]
    for make in (cut, broken):
        for n in range(len(written(whole))):
            async with relay(make(whole, n), retries=Retries(attempts=1)) as (upstream, _):
                seen = []
                with contextlib.suppress(UpstreamError):
                    async with upstream.stream(CHAT, BODY) as found:
                        async for event in found:
                            seen.append(event)
                assert seen == [*events, Event(None)][: len(seen)]
                done = written(whole)[:n].find(b"[DONE]\n\n") > 0
                assert done or Event(None) not in seen


async def test_an_answer_cut_at_any_byte_is_an_error() -> None:
    whole = answer({"a": "中"})
    for make in (cut, broken):
        for n in range(len(written(whole))):
            async with relay(make(whole, n), retries=Retries(attempts=1)) as (upstream, _):
                await failure(upstream)


# Silence, each kind with its own deadline.

SHORT = Timeouts(first_byte=0.1, idle=0.1, whole=0.3)


async def test_a_provider_that_accepts_no_connection_is_a_timeout_after_every_attempt() -> None:
    with full_backlog() as url:
        async with OpenAICompatible("p", endpoint(url, timeouts=Timeouts(connect=0.05))).running() as upstream:
            error = await failure(upstream)
    assert (type(error), error.status, error.code) == (UpstreamTimeout, 504, "upstream_timeout")
    assert "accepted no connection" in error.message


@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_never_begins_is_asked_once_and_is_a_timeout(stream: bool) -> None:
    async with relay([Stall()], timeouts=SHORT) as (upstream, provider):
        error = await failure(upstream, stream=stream)
        assert (type(error), "did not begin" in error.message) == (UpstreamTimeout, True)
        assert len(provider.requests) == 1
        await asyncio.wait_for(provider.closed(), 1)


async def test_a_stream_whose_headers_come_and_whose_first_event_does_not_waits_as_long_as_for_a_first_byte() -> None:
    patient = Timeouts(first_byte=0.2, idle=0.01)
    begun = [*raw_sse()[:1], Stall()]
    async with relay(begun, timeouts=patient) as (upstream, provider):
        assert "within 0.2 seconds" in (await failure(upstream, stream=True)).message
        await asyncio.wait_for(provider.closed(), 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_falls_silent_inside_its_answer_is_a_timeout(stream: bool) -> None:
    whole = sse(*chunks("hello")) if stream else answer({"a": 1})
    short = Timeouts(idle=0.1)
    async with relay(stalled(whole, len(written(whole)) - 8), timeouts=short) as (upstream, provider):
        error = await failure(upstream, stream=stream)
        assert (type(error), "fell silent" in error.message) == (UpstreamTimeout, True)
        await asyncio.wait_for(provider.closed(), 1)


async def test_an_answer_that_drips_for_ever_has_a_last_moment() -> None:
    start = Send(head(200, {**JSON, "Content-Length": "1000000"}))
    async with relay([start, *dripped([Send(b" " * 1000)], pause=0.02)], timeouts=SHORT) as (upstream, _):
        assert "did not finish" in (await failure(upstream)).message


# What a provider may refuse, and what becomes of it.


async def test_a_refused_connection_is_a_502() -> None:
    with unreachable() as url:
        async with OpenAICompatible("p", endpoint(url)).running() as upstream:
            error = await failure(upstream)
    assert (error.status, error.code, error.message) == (
        502,
        "upstream_error",
        "The model's provider (p) cannot be reached.",
    )
    assert url.rsplit(":", 1)[1] not in error.message


@pytest.mark.parametrize("stream", [False, True])
async def test_a_providers_own_error_is_passed_on_with_its_status(stream: bool) -> None:
    said = {"error": {"message": "too long", "type": "invalid_request_error", "param": "messages[0]", "code": "ctx"}}
    async with relay(status(400, said)) as (upstream, provider):
        error = await failure(upstream, stream=stream)
        assert (error.status, error.message, error.type, error.param, error.code) == (
            400,
            "too long",
            "invalid_request_error",
            "messages[0]",
            "ctx",
        )
        assert len(provider.requests) == 1


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"error": "model not found"}, "model not found"),
        ({"object": "error", "message": "bad", "code": 400}, "bad"),
        ({"detail": "nope"}, "nope"),
        ({"error": {"message": ["not", "a", "string"], "code": {"a": 1}}}, "The model's provider (p) answered with"),
        ({"error": {"message": "line\r\ndata: {}\n\n\x1b[31mred"}}, "line data: {} [31mred"),
        ({"error": {"message": f"Incorrect API key: {KEY}"}}, "Incorrect API key: [key]"),
        ({"error": {"message": "y" * 5000}}, "y" * 1000 + "…"),
        ("<html>nginx <script>alert(1)</script></html>", "The model's provider (p) answered with status 422."),
        ([1, 2], "The model's provider (p) answered with status 422."),
    ],
)
async def test_every_shape_of_error_becomes_one_bounded_sentence(said: object, message: str) -> None:
    async with relay(status(422, said)) as (upstream, _):
        error = await failure(upstream)
        assert (error.status, error.code) == (422, "upstream_error")
        assert error.message.startswith(message)
        assert len(error.message) <= 1001


@pytest.mark.parametrize("code", [401, 402, 403, 407])
async def test_a_refusal_of_the_gateways_own_account_is_not_the_callers_fault(code: int) -> None:
    async with relay(status(code, {"error": {"message": f"bad key {KEY}", "code": "invalid_api_key"}})) as (
        upstream,
        _,
    ):
        error = await failure(upstream)
        assert (error.status, error.code) == (502, "upstream_auth")
        assert "bad key" not in error.message


async def test_a_redirect_is_not_followed() -> None:
    async with faulty(answer({"stolen": True})) as elsewhere:
        for code in (301, 302, 303, 307, 308):
            async with relay(status(code, {}, Location=elsewhere.url)) as (upstream, provider):
                error = await failure(upstream, stream=code == 307)
                assert (error.status, "redirect" in error.message) == (502, True)
                assert len(provider.requests) == 1
        assert elsewhere.connections == 0


@pytest.mark.parametrize("code", [201, 204, 206, 299, 600, 999])
async def test_a_status_that_is_no_answer_is_a_502(code: int) -> None:
    async with relay([*status(code, {"choices": []}), Close()]) as (upstream, _):
        assert (await failure(upstream)).status == 502


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, gzip"])
async def test_a_compressed_answer_is_refused_unopened(coding: str, stream: bool) -> None:
    kind = "text/event-stream" if stream else "application/json"
    data = gzip.compress(b"data: {}\n\n" if stream else b"{}")
    headers = {"Content-Type": kind, "Content-Encoding": coding, "Content-Length": str(len(data))}
    async with relay([Send(head(200, headers) + data)]) as (upstream, _):
        assert "compressed" in (await failure(upstream, stream=stream)).message


@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream", "text/event-streams", ""])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_of_another_media_type_is_refused(kind: str, stream: bool) -> None:
    async with relay([Send(head(200, {"Content-Type": kind, "Content-Length": "2"}) + b"{}")]) as (upstream, _):
        assert "was asked for" in (await failure(upstream, stream=stream)).message


@pytest.mark.parametrize("body", [b"[]", b"", b"{", b'{"a": NaN}', b'{"a": "\xff"}', b"[" * 100_000])
async def test_an_answer_that_is_no_json_object_is_refused(body: bytes) -> None:
    async with relay([Send(head(200, {**JSON, "Content-Length": str(len(body))}) + body)]) as (upstream, _):
        assert (await failure(upstream)).status == 502


async def test_an_endless_answer_is_cut_off_at_its_limit() -> None:
    endless = [Send(head(200, {**JSON, "Transfer-Encoding": "chunked"})), Endless(b"5\r\n     \r\n" * 1000)]
    async with relay(endless, max_answer=100_000) as (upstream, provider):
        assert "100000 bytes" in (await failure(upstream)).message
        await asyncio.wait_for(provider.closed(), 1)


@pytest.mark.parametrize("field", [b"X-A: b\r\n", b"X" * 10_000])
async def test_endless_headers_are_cut_off(field: bytes) -> None:
    async with relay([Send(b"HTTP/1.1 200 OK\r\n"), Endless(field)]) as (upstream, provider):
        assert (await failure(upstream)).status == 502
        await asyncio.wait_for(provider.closed(), 1)


@pytest.mark.parametrize("noise", [b"SSH-2.0-OpenSSH\r\n\r\n", b"\x16\x03\x01\x00\x00", b"HTTP/1.1 abc\r\n\r\n"])
async def test_something_that_is_not_http_is_a_502(noise: bytes) -> None:
    async with relay([Send(noise), Close()]) as (upstream, _):
        assert (await failure(upstream)).status == 502


async def test_a_certificate_that_nobody_vouches_for_is_not_accepted_and_the_key_not_sent() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(Path(__file__).with_name("self_signed.pem"))
    async with (
        faulty(answer({}), tls=tls) as provider,
        OpenAICompatible("p", endpoint(provider.url)).running() as upstream,
    ):
        error = await failure(upstream)
        assert (error.status, error.message) == (502, "The model's provider (p) could not prove who it is (TLS).")
        assert provider.requests == []


# Trying again.


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_passing_failure_is_tried_again(code: int, stream: bool) -> None:
    good = sse({"a": 1}) if stream else answer({"a": 1})
    async with relay(status(code), status(code, "<html>"), good) as (upstream, provider):
        found = await streamed(upstream) if stream else [Event(await upstream.answer(CHAT, BODY)), Event(None)]
        assert found == [Event({"a": 1}), Event(None)]
        assert [request.json for request in provider.requests] == [BODY] * 3


@pytest.mark.parametrize("fault", [[Reset()], [Close()]])
async def test_a_connection_lost_before_the_answer_began_is_tried_again(fault: list[Move]) -> None:
    async with relay(fault, answer({"a": 1})) as (upstream, provider):
        assert await upstream.answer(CHAT, BODY) == {"a": 1}
        assert len(provider.requests) == 2


async def test_a_pooled_connection_the_provider_has_closed_does_no_harm() -> None:
    async with relay([*answer({"a": 1}), Close()], answer({"a": 2})) as (upstream, _):
        assert await upstream.answer(CHAT, BODY) == {"a": 1}
        assert await upstream.answer(CHAT, BODY) == {"a": 2}


async def test_the_attempts_have_an_end_and_the_last_error_is_told() -> None:
    async with relay(status(500), status(502), status(503, {"error": {"message": "third"}})) as (upstream, provider):
        error = await failure(upstream)
        assert (error.status, error.message, len(provider.requests)) == (503, "third", 3)


@pytest.mark.parametrize("code", [400, 401, 404, 408, 409, 422])
async def test_a_lasting_failure_is_not_tried_again(code: int) -> None:
    async with relay(status(code)) as (upstream, provider):
        await failure(upstream)
        assert len(provider.requests) == 1


@pytest.mark.parametrize("fault", [cut, broken])
@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_is_tried_again_after_the_first_byte(fault: object, stream: bool) -> None:
    whole = sse({"a": 1}) if stream else answer({"a": 1})
    async with relay(fault(whole, len(written(whole)) - (30 if stream else 1))) as (upstream, provider):  # type: ignore[operator]
        await failure(upstream, stream=stream)
        assert len(provider.requests) == 1


async def test_a_provider_that_says_do_not_retry_is_believed() -> None:
    async with relay(status(503, {}, x_should_retry="false")) as (upstream, provider):
        await failure(upstream)
        assert len(provider.requests) == 1


async def test_a_short_retry_after_is_waited_for() -> None:
    async with relay(status(429, {}, retry_after_ms="20"), status(429, {}, retry_after="0"), answer({})) as (
        upstream,
        _,
    ):
        assert await upstream.answer(CHAT, BODY) == {}


async def test_a_wait_that_was_asked_for_is_kept() -> None:
    now, seen = asyncio.get_running_loop().time, []

    async def attempt() -> None:
        seen.append(now())
        if len(seen) < 3:
            raise Again(UpstreamError("busy"), after=(len(seen) - 1) * 0.5)

    await Patience(Retries(wait=0.0)).call(attempt)
    # A lower bound, which no slow machine can break.
    assert seen[2] - seen[1] > 0.49


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ({"retry_after": "30"}, "30"),
        ({"retry_after_ms": "2500"}, "3"),
        ({"retry_after": "Sat, 21 Nov 2026 00:01:00 GMT", "date": "Sat, 21 Nov 2026 00:00:00 GMT"}, "60"),
    ],
)
async def test_a_long_retry_after_is_passed_on_at_once(header: dict[str, str], told: str) -> None:
    async with relay(status(429, {}, **header)) as (upstream, provider):
        error = await failure(upstream)
        assert (error.status, error.code, error.headers) == (429, "rate_limit_exceeded", {"Retry-After": told})
        assert len(provider.requests) == 1


@pytest.mark.parametrize("header", ["soon", "-1", "1e9", "nan", "\xb2", "Sat, 99 Nov 2026"])
async def test_a_retry_after_that_means_nothing_is_nothing(header: str) -> None:
    async with relay(status(429, {}, retry_after=header)) as (upstream, provider):
        assert (await failure(upstream)).headers == {}
        assert len(provider.requests) == 3


async def test_retries_never_multiply_an_outage() -> None:
    asked = 100
    async with relay(status(503), retries=Retries(attempts=3, wait=0.0, longest_wait=0.0)) as (upstream, provider):
        for _ in range(asked):
            await failure(upstream)
        assert asked < len(provider.requests) <= asked * 1.1 + 10


# Leaving.


async def test_leaving_a_stream_closes_its_connection_at_once() -> None:
    async with relay([*raw_sse(b'data: {"a": 1}\n\n')[:2], Stall()]) as (upstream, provider):
        async with upstream.stream(CHAT, BODY) as events:
            assert await anext(events) == Event({"a": 1})
            assert provider.open == 1
        await asyncio.wait_for(provider.closed(), 1)


async def test_a_caller_that_is_cancelled_while_it_waits_closes_the_connection() -> None:
    async with relay([Stall()]) as (upstream, provider):
        waiting = asyncio.create_task(upstream.answer(CHAT, BODY))
        await asyncio.wait_for(provider.asked(), 1)
        waiting.cancel()
        await asyncio.wait_for(provider.closed(), 1)


async def test_an_unread_stream_holds_the_provider_back() -> None:
    sent = b"data: " + b'{"a":"' + b"x" * 100_000 + b'"}\n\n'
    async with relay([*raw_sse()[:1], Endless(b"%x\r\n%b\r\n" % (len(sent), sent))]) as (upstream, provider):
        async with upstream.stream(CHAT, BODY) as events:
            await anext(events)
            await asyncio.sleep(0.1)
            assert provider.sent < 16_000_000, "more than the two sockets' buffers has been taken in"
        await asyncio.wait_for(provider.closed(), 1)


# What is never sent.


@pytest.mark.parametrize("body", [{"a": 2**64}, {"a": "\ud800"}])
async def test_a_body_that_cannot_be_written_is_not_sent(body: dict[str, object]) -> None:
    async with relay(answer({})) as (upstream, provider):
        with pytest.raises(BadRequest):
            await upstream.answer(CHAT, {**BODY, **body})
        assert provider.connections == 0
