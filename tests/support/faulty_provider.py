"""
A provider that fails as it is told to, on a real socket.

    async with faulty(answer({"id": "x"})) as provider:            # every request gets this script
        ... point an upstream at provider.url ...
    async with faulty(status(429), answer({...})) as provider:     # one script a request; the last one is repeated
        ...
    with faulty_thread(sse(*chunks("hello"))) as provider:         # the same beside code that is not async

A script is a list of moves, played on the connection once a request has been read:

    Send(b"...")           write bytes
    Drip(b"...", 1, 0.01)  write them `size` bytes at a time, `pause` seconds apart (0: one event-loop turn apart)
    Endless(b"...")        write them for ever
    Pause(0.1)             say nothing for a while
    Stall()                say nothing until the other side leaves
    Reset()                RST: the connection breaks
    Close()                FIN: the connection ends

A script that does not end the connection leaves it open for the next request. Scripts for the usual cases:

    answer(body)                     200, application/json
    status(503, body, **headers)     any status; a str body goes as text/html; retry_after="1" is Retry-After: 1
    sse(*events, done=True)          200, text/event-stream, a chunk an event; [DONE] at its end unless done=False
    chunks("text")                   the chat.completion.chunk objects that say it, for sse()
    raw_sse(b"...", ...)             200, text/event-stream, exactly these bytes, a chunk each
    cut(script, n)                   the script's first n bytes, then FIN
    broken(script, n)                the script's first n bytes, then RST
    dripped(script, size, pause)     the same bytes in small writes
    stalled(script, n)               the script's first n bytes, then silence

`provider.requests` are those read (method, path, headers with lower-case names, body, .json); `provider.connections`
counts what was accepted, `provider.open` what is open now,
`provider.sent` the bytes that Endless has written; `await provider.asked()` waits for the first request,
`await provider.closed()` until nothing is open. A script notices that the other side has left in Stall, Endless and
between requests; end yours with Stall() to see it at once.
`unreachable()` gives a port nobody listens on; `full_backlog()` one that never accepts.
"""

import asyncio
import json
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

JSON = {"Content-Type": "application/json"}
EVENT_STREAM = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}


@dataclass(frozen=True)
class Send:
    data: bytes


@dataclass(frozen=True)
class Drip:
    data: bytes
    size: int = 1
    pause: float = 0.0


@dataclass(frozen=True)
class Endless:
    data: bytes


@dataclass(frozen=True)
class Pause:
    seconds: float


@dataclass(frozen=True)
class Stall:
    pass


@dataclass(frozen=True)
class Reset:
    pass


@dataclass(frozen=True)
class Close:
    pass


Move = Send | Drip | Endless | Pause | Stall | Reset | Close
Script = Sequence[Move]


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Provider:
    scripts: Sequence[Script]
    requests: list[Request] = field(default_factory=list)
    scheme: str = "http"
    connections: int = 0
    sent: int = 0
    port: int = 0
    meetings: set[asyncio.Task[None] | None] = field(default_factory=set)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    met_one: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/v1"

    @property
    def open(self) -> int:
        return len(self.meetings)

    async def closed(self) -> None:
        """Returns once no connection is open. Put a deadline round it."""
        while self.open:
            self.left.clear()
            await self.left.wait()

    async def asked(self) -> None:
        """Returns once a request has been read."""
        await self.met_one.wait()

    async def met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.meetings.add(asyncio.current_task())
        try:
            while (request := await _read(reader)) is not None:
                script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
                self.requests.append(request)
                self.met_one.set()
                for move in script:
                    await self._play(move, reader, writer)
                    if writer.transport.is_closing():
                        return
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.meetings.discard(asyncio.current_task())
            self.left.set()
            writer.close()

    async def _play(self, move: Move, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match move:
            case Send(data):
                writer.write(data)
                await writer.drain()
            case Drip(data, size, pause):
                for i in range(0, len(data), size):
                    writer.write(data[i : i + size])
                    await writer.drain()
                    await asyncio.sleep(pause)
            case Endless(data):
                while not reader.at_eof():
                    writer.write(data)
                    self.sent += len(data)
                    await writer.drain()
                    await asyncio.sleep(0)
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case Stall():
                await reader.read()
            case Reset():
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            case Close():
                writer.close()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    return Request(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


@asynccontextmanager
async def faulty(*scripts: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Provider]:
    provider = Provider(scripts, scheme="http" if tls is None else "https")
    server = await asyncio.start_server(provider.met, "127.0.0.1", 0, ssl=tls)
    provider.port = server.sockets[0].getsockname()[1]
    try:
        yield provider
    finally:
        server.close()
        # Those still being played belong to connections that the test left open.
        for meeting in tuple(provider.meetings):
            if meeting is not None:
                meeting.cancel()
        await asyncio.sleep(0)


@contextmanager
def faulty_thread(*scripts: Script) -> Iterator[Provider]:
    started: list[Provider] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    end = asyncio.Event()

    async def play() -> None:
        async with faulty(*scripts) as provider:
            started.append(provider)
            ready.set()
            await end.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(play(),))
    thread.start()
    ready.wait()
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()
        loop.close()


@contextmanager
def unreachable() -> Iterator[str]:
    """An address that refuses connections, as long as the context is open."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/v1"


@contextmanager
def full_backlog() -> Iterator[str]:
    """An address whose queue of connections is full: the next one is never accepted, nor refused (Linux)."""
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        try:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(listening.getsockname())
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        finally:
            for one in waiting:
                one.close()


def head(code: int, headers: Mapping[str, str]) -> bytes:
    return "".join([f"HTTP/1.1 {code} X\r\n", *(f"{k}: {v}\r\n" for k, v in headers.items()), "\r\n"]).encode()


def answer(body: Any) -> list[Move]:
    return status(200, body)


def status(code: int, body: Any = None, **headers: str) -> list[Move]:
    kind = {"Content-Type": "text/html"} if isinstance(body, str) else JSON
    data = body.encode() if isinstance(body, str) else json.dumps({} if body is None else body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return [Send(head(code, {**kind, "Content-Length": str(len(data)), **named}) + data)]


def chunks(text: str) -> list[Any]:
    deltas = [{"role": "assistant", "content": ""}, *({"content": character} for character in text), {}]
    return [
        {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}],
        }
        for delta in deltas
    ]


def sse(*events: Any, done: bool = True) -> list[Move]:
    pieces = [b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n" for event in events]
    return raw_sse(*pieces, *([b"data: [DONE]\n\n"] if done else []))


def raw_sse(*pieces: bytes) -> list[Move]:
    framed = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    return [Send(head(200, EVENT_STREAM)), *(Send(piece) for piece in framed), Send(b"0\r\n\r\n")]


def written(script: Script) -> bytes:
    """All the bytes that a script sends."""
    return b"".join(move.data for move in script if isinstance(move, Send | Drip))


def cut(script: Script, n: int) -> list[Move]:
    return [Send(written(script)[:n]), Close()]


def broken(script: Script, n: int) -> list[Move]:
    return [Send(written(script)[:n]), Pause(0.01), Reset()]


def stalled(script: Script, n: int) -> list[Move]:
    return [Send(written(script)[:n]), Stall()]


def dripped(script: Script, size: int = 1, pause: float = 0.0) -> list[Move]:
    return [Drip(written(script), size, pause)]
