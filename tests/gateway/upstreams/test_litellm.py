"""litellm behind the same protocol, against a real socket: by its twin, or by itself with LIBRAGATE_REAL_LITELLM=1."""

import asyncio
import os
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.dialects.dialect import Event
from gateway.errors import BadRequest, ConfigError, UpstreamError, UpstreamTimeout
from gateway.upstreams.litellm import CHAT, LiteLLM, Vendor, refuse_stolen
from gateway.upstreams.retries import Retries
from gateway.upstreams.upstream import Timeouts
from tests.support.faulty_provider import (
    Provider,
    Script,
    Stall,
    answer,
    broken,
    chunks,
    faulty,
    raw_sse,
    sse,
    stalled,
    status,
    unreachable,
)

pytestmark = pytest.mark.anyio

KEY = "sk-canary-0123456789"
BODY = {"model": "openai/m", "messages": [{"role": "user", "content": "你好"}], "temperature": 0.5}
REPLY = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "好"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


@pytest.fixture(autouse=True)
def litellm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if os.environ.get("LIBRAGATE_REAL_LITELLM"):
        yield
        return
    monkeypatch.syspath_prepend(Path(__file__).with_name("twin"))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "litellm"]:
        del sys.modules[name]


@asynccontextmanager
async def asked(*scripts: Script, timeouts: Timeouts | None = None) -> AsyncIterator[tuple[LiteLLM, Provider]]:
    retries = Retries(wait=0.01, longest_wait=1.0)
    async with faulty(*scripts) as provider:
        vendor = Vendor(KEY, provider.url, timeouts=timeouts or Timeouts(), retries=retries)
        async with LiteLLM("v", vendor).running() as upstream:
            yield upstream, provider


async def streamed(upstream: LiteLLM) -> list[Event]:
    async with upstream.stream(CHAT, {**BODY, "stream": True}) as events:
        return [event async for event in events]


async def failure(upstream: LiteLLM, *, stream: bool = False) -> UpstreamError:
    with pytest.raises(UpstreamError) as raised:
        await (streamed(upstream) if stream else upstream.answer(CHAT, BODY))
    assert KEY not in "".join(traceback.format_exception(raised.value)) + repr(upstream)
    return raised.value


async def test_a_plain_answer_is_what_openai_would_have_sent() -> None:
    async with asked(answer(REPLY)) as (upstream, provider):
        assert await upstream.answer(CHAT, BODY) == REPLY
        (request,) = provider.requests
        assert request.json == {**BODY, "model": "m"} | ({"stream": False} if "stream" in request.json else {})
        assert request.headers["authorization"] == f"Bearer {KEY}"


async def test_a_stream_is_the_same_text_its_finish_and_its_closing_event() -> None:
    async with asked(sse(*chunks("你好"))) as (upstream, provider):
        events = await streamed(upstream)
        assert provider.requests[0].json["stream"] is True
    assert events[-1] == Event(None)
    choices = [event.data["choices"][0] for event in events if event.data is not None]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "你好"
    assert (choices[-1]["delta"], choices[-1]["finish_reason"]) == ({}, "stop")
    known = {"index", "delta", "finish_reason"}
    assert all(set(choice) <= known and set(choice["delta"]) <= {"role", "content"} for choice in choices)


@pytest.mark.parametrize(
    "option", [{"api_base": "http://evil"}, {"metadata": {"a": 1}}, {"extra_body": {}}, {"fallbacks": []}, {"top_k": 1}]
)
async def test_an_option_that_is_not_a_chat_option_is_refused_by_name(option: dict[str, object]) -> None:
    async with asked(answer(REPLY)) as (upstream, provider):
        with pytest.raises(BadRequest) as raised:
            await upstream.answer(CHAT, {**BODY, **option})
        assert raised.value.param == next(iter(option))
        with pytest.raises(BadRequest):
            await upstream.answer("/v1/completions", BODY)
        assert provider.connections == 0


async def test_a_vendors_refusal_is_passed_on_with_its_status() -> None:
    said = {"error": {"message": "too long", "type": "invalid_request_error", "code": "ctx", "param": "messages"}}
    async with asked(status(400, said)) as (upstream, _):
        error = await failure(upstream)
    assert (error.status, error.type, error.code, error.param) == (400, "invalid_request_error", "ctx", "messages")
    assert "too long" in error.message
    assert not error.message.startswith("litellm.")


async def test_a_refusal_of_the_gateways_own_account_is_not_the_callers_fault() -> None:
    async with asked(status(401, {"error": {"message": f"bad key {KEY}"}})) as (upstream, _):
        error = await failure(upstream)
    assert (error.status, error.code) == (502, "upstream_auth")


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_a_passing_failure_is_tried_again_by_us_and_by_nobody_else(code: int) -> None:
    async with asked(status(code), status(code, "<html>"), answer(REPLY)) as (upstream, provider):
        assert await upstream.answer(CHAT, BODY) == REPLY
        assert len(provider.requests) == 3
    async with asked(status(code, "<html>nginx</html>")) as (upstream, provider):
        error = await failure(upstream)
        assert error.status == (502 if code == 500 else code)
        assert len(provider.requests) == 3
        assert "html" not in error.message


async def test_a_provider_that_cannot_be_reached_is_a_502() -> None:
    with unreachable() as url:
        vendor = Vendor(KEY, url, retries=Retries(attempts=2, wait=0.01))
        async with LiteLLM("v", vendor).running() as upstream:
            assert (await failure(upstream)).status == 502


@pytest.mark.parametrize("stream", [False, True])
async def test_silence_is_a_timeout_and_the_connection_is_closed(stream: bool) -> None:
    script = stalled(sse(*chunks("hello")), 500) if stream else [Stall()]
    async with asked(script, timeouts=Timeouts(first_byte=1.0, idle=0.2)) as (upstream, provider):
        error = await failure(upstream, stream=stream)
        assert (type(error), error.status) == (UpstreamTimeout, 504)
        assert len(provider.requests) == 1
        await asyncio.wait_for(provider.closed(), 2)


@pytest.mark.parametrize("script", [broken(sse(*chunks("hello")), 500), raw_sse(b"data: <html>\n\n")])
async def test_a_broken_stream_is_an_error_and_is_not_asked_for_again(script: Script) -> None:
    async with asked(script) as (upstream, provider):
        assert (await failure(upstream, stream=True)).status == 502
        assert len(provider.requests) == 1


async def test_leaving_a_stream_closes_its_connection_at_once() -> None:
    async with asked(stalled(sse(*chunks("hello")), 500)) as (upstream, provider):
        async with upstream.stream(CHAT, {**BODY, "stream": True}) as events:
            assert (await anext(events)).data is not None
        await asyncio.wait_for(provider.closed(), 2)


def test_the_account_is_in_no_repr() -> None:
    assert KEY not in repr(Vendor(KEY, options={"aws_secret_access_key": KEY}))


@pytest.mark.parametrize("version", ["1.82.7", "1.82.8"])
def test_the_versions_that_steal_keys_are_refused_unimported(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / f"litellm-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: litellm\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "litellm", raising=False)
    with pytest.raises(ConfigError, match="steals keys"):
        LiteLLM("v", Vendor(KEY))
    assert "litellm" not in sys.modules


def test_where_it_is_missing_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ConfigError, match=r"pip install 'libragate\[litellm\]'"):
        refuse_stolen()


async def test_it_is_told_to_leave_the_network_and_the_environment_files_alone_before_it_is_imported() -> None:
    async with asked(answer(REPLY)):
        assert os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
        assert os.environ["LITELLM_MODE"] == "PRODUCTION"
        module = sys.modules["litellm"]
        assert (module.telemetry, module.drop_params, module.suppress_debug_info) == (False, False, True)
        if hasattr(module, "environment"):
            assert module.environment["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
