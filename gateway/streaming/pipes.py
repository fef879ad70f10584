"""Back-pressure on both sides of a stream: a bounded buffer for upstream events and a writer for the client."""

from collections import deque
from collections.abc import Callable, Sequence

import anyio
import anyio.lowlevel
from starlette.types import Message, Send

from gateway.dialects.dialect import Event
from gateway.dialects.sse import encode
from gateway.errors import UpstreamError

BUFFER_EVENTS = 256
BUFFER_BYTES = 65_536


Change = Callable[[Sequence[Event]], Sequence[Event]]


class ClientWriter:
    """Writes the response. It starts with the first bytes, and notices a client that is gone: `timeout` is how long
    (seconds) a write may take. `change` is applied to every event last."""

    def __init__(self, send: Send, start: Message, timeout: float, change: Change | None = None) -> None:
        self._send = send
        self._change: Change = change or list
        self._start = start
        self._timeout = timeout
        self.started = False
        self.finished = False
        self.gone = False
        self.wrote_at = anyio.current_time()

    async def send(self, events: Sequence[Event]) -> bool:
        """Whether the client was still there."""
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
            with anyio.fail_after(self._timeout):
                if not self.started:
                    await self._send(self._start)
                    self.started = True  # only now: a send that is cancelled while it waits for room has sent nothing
                await self._send(message)
        except OSError:  # raised by the server for a closed connection (ASGI); TimeoutError is one too
            self.gone = True
        self.wrote_at = anyio.current_time()
        return not self.gone


class Wakeup:
    """Wakes the task that waits, because something has changed."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def notify(self) -> None:
        self._event.set()

    async def wait(self, until: float) -> None:
        with anyio.CancelScope(deadline=until):
            await self._event.wait()
        self._event = anyio.Event()


class UpstreamBuffer:
    """Events that the upstream has sent and the gate has not taken. When it is full, in events or in bytes, the reader
    waits, and with it the upstream's socket. One event always fits."""

    def __init__(self, wakeup: Wakeup) -> None:
        self._wakeup = wakeup
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
        while self._events and (len(self._events) >= BUFFER_EVENTS or self._size + size > BUFFER_BYTES):
            self._room = anyio.Event()
            await self._room.wait()
        if self.ended:
            await anyio.lowlevel.checkpoint()  # the reader was cancelled: the checkpoint raises it here
            return
        self._events.append((event, size))
        self._size += size
        self._wakeup.notify()

    def take(self) -> tuple[Event, int]:
        event, size = self._events.popleft()
        self._size -= size
        self._room.set()
        self.closed = event.data is None
        return event, size

    def end(self, error: UpstreamError | None, *, discard: bool = False) -> None:
        """Nothing more comes. `discard`: the events that are still here are dropped."""
        if discard:
            self._events.clear()
            self._size = 0
        self.error = self.error or error
        self.ended = True
        self._wakeup.notify()
