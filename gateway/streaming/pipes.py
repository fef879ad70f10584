"""The two ends of a relayed stream: the inbox that holds the upstream back, and the caller who may be slow or gone."""

from collections import deque
from collections.abc import Callable, Sequence

import anyio
import anyio.lowlevel
from starlette.types import Message, Send

from gateway.dialects.dialect import Event
from gateway.dialects.sse import encode
from gateway.errors import UpstreamError

INBOX_EVENTS = 256
INBOX_BYTES = 65_536


Change = Callable[[Sequence[Event]], Sequence[Event]]


class Caller:
    """The caller's side of the response. `write` starts it when there is something to say, and notices that nobody is
    there: `patience` is how long (seconds) a write may take. `change` has the last word on every event."""

    def __init__(self, send: Send, start: Message, patience: float, change: Change | None = None) -> None:
        self._send = send
        self._change: Change = change or list
        self._start = start
        self._patience = patience
        self.started = False
        self.finished = False
        self.gone = False
        self.wrote_at = anyio.current_time()

    async def say(self, events: Sequence[Event]) -> bool:
        return await self.write(self._encoded(events))

    async def write(self, body: bytes) -> bool:
        return await self._write({"type": "http.response.body", "body": body, "more_body": True})

    async def finish(self, events: Sequence[Event]) -> None:
        await self._write({"type": "http.response.body", "body": self._encoded(events), "more_body": False})
        self.finished = True

    def _encoded(self, events: Sequence[Event]) -> bytes:
        return b"".join(map(encode, self._change(events)))

    async def _write(self, message: Message) -> bool:
        if self.gone:
            return False
        try:
            with anyio.fail_after(self._patience):
                if not self.started:
                    await self._send(self._start)
                    self.started = True  # only now: a send that is cancelled while it waits for room has sent nothing
                await self._send(message)
        except OSError:  # the server says so (ASGI), or TimeoutError
            self.gone = True
        self.wrote_at = anyio.current_time()
        return not self.gone


class Bell:
    """Wakes whoever waits: something has happened."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self, until: float) -> None:
        with anyio.CancelScope(deadline=until):
            await self._event.wait()
        self._event = anyio.Event()


class Inbox:
    """What the upstream has sent and the gate has not taken. When it is full, in events or in bytes, the reader waits,
    and with it the upstream's socket. One event always fits."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._events: deque[tuple[Event, int]] = deque()
        self._size = 0
        self._room = anyio.Event()
        self.closed = False
        self.ended = False
        self.error: UpstreamError | None = None

    def __len__(self) -> int:
        return len(self._events)

    async def put(self, event: Event) -> None:
        """Raises `UpstreamError` for an event that cannot be written as one. What comes after the end is dropped."""
        size = len(encode(event))
        while self._events and (len(self._events) >= INBOX_EVENTS or self._size + size > INBOX_BYTES):
            self._room = anyio.Event()
            await self._room.wait()
        if self.ended:
            await anyio.lowlevel.checkpoint()  # its reader has been cancelled, and learns it here
            return
        self._events.append((event, size))
        self._size += size
        self._bell.ring()

    def take(self) -> tuple[Event, int]:
        event, size = self._events.popleft()
        self._size -= size
        self._room.set()
        self.closed = event.data is None
        return event, size

    def end(self, error: UpstreamError | None, *, discard: bool = False) -> None:
        """Nothing more comes. `discard`: what is here does not count either."""
        if discard:
            self._events.clear()
            self._size = 0
        self.error = self.error or error
        self.ended = True
        self._bell.ring()
