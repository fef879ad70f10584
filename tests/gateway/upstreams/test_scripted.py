"""The scripted upstream: it says what it is told, and remembers what it was asked."""

import pytest

from gateway.dialects.dialect import Event
from gateway.errors import UpstreamError
from gateway.upstreams.upstream import Pause, Scripted, Upstream

pytestmark = pytest.mark.anyio

BODY = {"model": "m", "messages": []}


async def test_it_says_its_text_plain_and_streamed() -> None:
    scripted = Scripted.saying("你好，世界", size=2)
    answer = await scripted.answer("/v1/chat/completions", BODY)
    assert (answer["model"], answer["choices"][0]["message"]["content"]) == ("m", "你好，世界")
    async with scripted.running(), scripted.stream("/v1/chat/completions", BODY) as events:
        assert scripted.open == 1
        found = [event async for event in events]
    assert scripted.open == 0
    assert found[-1] == Event(None)
    deltas = [event.data["choices"][0]["delta"].get("content", "") for event in found if event.data is not None]
    assert deltas == ["", "你好", "，世", "界", ""]
    assert scripted.asked == [("/v1/chat/completions", BODY)] * 2


async def test_it_fails_where_it_is_told_to() -> None:
    fault = UpstreamError("down")
    upstream: Upstream = Scripted("s", answers=lambda body: fault, streams=lambda body: [fault])
    with pytest.raises(UpstreamError, match="down"):
        await upstream.answer("/v1/chat/completions", BODY)
    with pytest.raises(UpstreamError, match="down"):
        async with upstream.stream("/v1/chat/completions", BODY):
            raise AssertionError("entered")
    later = Scripted("s", answers=lambda body: {}, streams=lambda body: [Event({"a": 1}), Pause(0.0), fault])
    async with later.stream("/v1/chat/completions", BODY) as events:
        assert await anext(events) == Event({"a": 1})
        with pytest.raises(UpstreamError, match="down"):
            await anext(events)
    assert later.open == 0
