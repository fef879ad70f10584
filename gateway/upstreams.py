"""Where answers come from: any OpenAI-compatible endpoint, the demo model, a script."""

from contextlib import AbstractAsyncContextManager
from collections.abc import AsyncIterator
from typing import Protocol

from gateway.dialects.dialect import Event, Json


class Upstream(Protocol):
    """`path` is the dialect's own ("/v1/chat/completions"); `body` is the object that was judged."""

    name: str

    async def answer(self, path: str, body: Json) -> Json:
        """The whole answer. Raises `UpstreamError`."""

    def stream(self, path: str, body: Json) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """The events of a streamed answer, up to and with the closing one. Raises `UpstreamError` on entering when the
        upstream refuses, and from the iterator when it dies, goes silent or sends garbage. Leaving closes the connection."""

    def running(self) -> AbstractAsyncContextManager[object]: ...
