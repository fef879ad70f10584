"""Where answers come from: any OpenAI-compatible endpoint, the demo model, a script."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, Self

import anyio

from gateway.dialects.dialect import Event, Json
from gateway.errors import UpstreamError

Headers = Mapping[str, str]
NO_HEADERS: Headers = MappingProxyType({})

_NOTED = 1000


class Upstream(Protocol):
    """`path` is the dialect's own ("/v1/chat/completions"); `body` is the object that was judged; `headers` are those
    of the caller's that the dialect passes on."""

    name: str

    async def answer(self, path: str, body: Json, headers: Headers = NO_HEADERS) -> Json:
        """The whole answer. Raises `UpstreamError`."""

    def stream(
        self, path: str, body: Json, headers: Headers = NO_HEADERS
    ) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """The events of a streamed answer, up to and with the closing one. Raises `UpstreamError` on entering when the
        upstream refuses, and from the iterator when it dies, goes silent or sends garbage. The iterator simply ends
        where a connection ends in good order, with or without a closing event: only the dialect knows what that means.
        Leaving closes the connection at once."""

    def running(self) -> AbstractAsyncContextManager[object]:
        """Ready to be asked, once entered. Leaving closes what it holds."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `first_byte` is the wait for an answer to begin, which for a plain answer is the whole of its writing;
    `idle` the longest silence inside one; `whole` the longest plain answer."""

    connect: float = 5.0
    first_byte: float = 120.0
    idle: float = 60.0
    whole: float = 600.0


@dataclass(frozen=True, slots=True)
class Pause:
    """A silence in a script, in seconds."""

    seconds: float


Step = Event | Pause | UpstreamError


class Scripted:
    """Says what it is told: for tests and load runs. `answers` gives the body for a plain answer, or the error to
    raise; `streams` the steps of a streamed one, an error being raised where it stands (first of all: on entering).

    `asked` keeps the first thousand things it was asked, `headers` what came with them; `open` counts the streams that
    were entered and not left.
    """

    def __init__(
        self,
        name: str,
        answers: Callable[[Json], Json | UpstreamError],
        streams: Callable[[Json], Iterable[Step]],
    ) -> None:
        self.name = name
        self.asked: list[tuple[str, Json]] = []
        self.headers: list[Headers] = []
        self.open = 0
        self._answers = answers
        self._streams = streams

    @classmethod
    def saying(cls, text: str, name: str = "scripted", size: int = 4, pause: float = 0.0) -> Self:
        """Answers every chat request with `text`; streams it `size` characters at a time, `pause` seconds apart."""
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        return cls(
            name,
            answers=lambda body: _completion(body, text),
            streams=lambda body: [step for event in _chunks(body, pieces) for step in (Pause(pause), event)],
        )

    async def answer(self, path: str, body: Json, headers: Headers = NO_HEADERS) -> Json:
        self._note(path, body, headers)
        answer = self._answers(body)
        if isinstance(answer, UpstreamError):
            raise answer
        return answer

    @asynccontextmanager
    async def stream(self, path: str, body: Json, headers: Headers = NO_HEADERS) -> AsyncIterator[AsyncIterator[Event]]:
        self._note(path, body, headers)
        steps = list(self._streams(body))
        if steps and isinstance(steps[0], UpstreamError):
            raise steps[0]
        self.open += 1
        try:
            yield _played(steps)
        finally:
            self.open -= 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        yield self

    def _note(self, path: str, body: Json, headers: Headers) -> None:
        if len(self.asked) < _NOTED:
            self.headers.append(headers)
            self.asked.append((path, body))


async def _played(steps: Iterable[Step]) -> AsyncIterator[Event]:
    for step in steps:
        match step:
            case Pause(seconds):
                await anyio.sleep(seconds)
            case UpstreamError():
                raise step
            case Event():
                yield step


def _completion(body: Json, text: str) -> Json:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {**_head(body, "chat.completion"), "choices": [choice], "usage": usage}


def _chunks(body: Json, pieces: Iterable[str]) -> Iterable[Event]:
    head = _head(body, "chat.completion.chunk")
    first: list[Json] = [{"role": "assistant", "content": ""}]
    for delta in (*first, *({"content": piece} for piece in pieces)):
        yield Event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    yield Event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    yield Event(None)


def _head(body: Json, kind: str) -> Json:
    return {"id": "chatcmpl-scripted", "object": kind, "created": 0, "model": body.get("model", "scripted")}
