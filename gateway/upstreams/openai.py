"""The relay to any OpenAI-compatible endpoint: OpenAI, vLLM, llama.cpp, DeepSeek, Qwen, another LibraGate."""

import asyncio
import math
import re
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

import aiohttp
import orjson
from yarl import URL

from gateway.dialects.dialect import Event, Json
from gateway.dialects.sse import MAX_FRAME, Decoder
from gateway.errors import BadRequest, UpstreamError, UpstreamTimeout
from gateway.upstreams.errors import provider_error
from gateway.upstreams.retries import RETRIED, Again, Patience, Retries, retry_after
from gateway.upstreams.upstream import NO_HEADERS, Headers, Timeouts

_MAX_ERROR = 64 * 1024
_DRAIN = 0.1
_VISIBLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an OpenAI-compatible provider is. `base_url` is what its SDK is given ("https://api.openai.com/v1"): the
    dialect's path without its /v1 goes behind it. Sizes are bytes. Raises `ValueError`, which never repeats the key."""

    base_url: str
    key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    retries: Retries = field(default_factory=Retries)
    connections: int = 512
    max_answer: int = 16 * 1024 * 1024
    max_event: int = MAX_FRAME

    def __post_init__(self) -> None:
        url = URL(self.base_url)
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(f"base_url {self.base_url!r} is no http or https address")
        if url.user is not None or url.password is not None or url.query_string or url.fragment:
            raise ValueError("base_url may hold a host, a port and a path: no user, password, query or fragment")
        for name, value in self.sent_headers.items():
            if not _VISIBLE.fullmatch(value):
                raise ValueError(f"the value of the header {name} is empty, or is not visible ASCII on one line")

    @property
    def sent_headers(self) -> Mapping[str, str]:
        key = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        return {
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": "LibraGate",
            **key,
            **self.headers,
        }

    def url(self, path: str) -> URL:
        return URL(self.base_url.rstrip("/") + path.removeprefix("/v1"))


class OpenAICompatible:
    """Relays with one pool of connections. Of the caller's request only the body goes out, and the headers that its
    dialect passes on, in place of the configured ones; of the provider's answer only the body comes back."""

    def __init__(self, name: str, endpoint: Endpoint) -> None:
        self.name = name
        self._endpoint = endpoint
        self._patience = Patience(endpoint.retries)
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        timeouts = self._endpoint.timeouts
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._endpoint.connections, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._endpoint.sent_headers,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect, sock_read=None),
        ) as self._session:
            yield self

    async def answer(self, path: str, body: Json, headers: Headers = NO_HEADERS) -> Json:
        reply = await self._asked(path, body, headers)
        whole = self._endpoint.timeouts.whole
        try:
            async with asyncio.timeout(whole):
                return await reply.object(self._endpoint.max_answer)
        except TimeoutError:
            raise _late(self.name, "did not finish its answer", whole) from None
        finally:
            # After a whole answer the connection is back in the pool by now, and this does nothing.
            reply.response.close()

    async def transcribed(self, model: str, type: str, sound: bytes) -> Json:
        """What `/audio/transcriptions` answers for a sound of this MIME type. Raises `UpstreamError`."""
        boundary = secrets.token_hex(16)
        content = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        form = _form(boundary, {"model": model, "response_format": "json"}, type, sound)
        reply = await self._sent("/v1/audio/transcriptions", form, content)
        try:
            async with asyncio.timeout(self._endpoint.timeouts.whole):
                return await reply.object(self._endpoint.max_answer)
        except TimeoutError:
            raise _late(self.name, "did not finish its answer", self._endpoint.timeouts.whole) from None
        finally:
            reply.response.close()

    @asynccontextmanager
    async def stream(self, path: str, body: Json, headers: Headers = NO_HEADERS) -> AsyncIterator[AsyncIterator[Event]]:
        reply = await self._asked(path, body, headers)
        try:
            reply.expect("text/event-stream")
            events = _Events(reply, self._endpoint.max_event)
            yield events
            if events.complete:
                await reply.drained()
        finally:
            reply.response.close()

    async def _asked(self, path: str, body: Json, headers: Headers) -> "_Reply":
        return await self._sent(path, encoded(body), headers)

    async def _sent(self, path: str, payload: bytes, headers: Mapping[str, str]) -> "_Reply":
        """The reply, once its status says that an answer follows."""
        if self._session is None:
            raise RuntimeError(f"upstream {self.name} is asked before running() was entered")
        session, url = self._session, self._endpoint.url(path)
        return await self._patience.call(lambda: self._attempt(session, url, payload, headers))

    async def _attempt(
        self, session: aiohttp.ClientSession, url: URL, payload: bytes, headers: Mapping[str, str]
    ) -> "_Reply":
        timeouts = self._endpoint.timeouts
        try:
            async with asyncio.timeout(timeouts.first_byte):
                response = await session.post(url, data=payload, headers=headers, allow_redirects=False)
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            failure = _unreached(self.name, exc, timeouts)
        else:
            reply = _Reply(self.name, response, timeouts)
            if response.status == 200:
                return reply
            failure = await self._refused(reply)
        # Raised out here so that aiohttp's error is not chained: it carries our own headers, the key among them.
        raise failure

    async def _refused(self, reply: "_Reply") -> UpstreamError | Again:
        response = reply.response
        try:
            async with asyncio.timeout(self._endpoint.timeouts.idle):
                body: Json | None = await reply.object(_MAX_ERROR)
        except (UpstreamError, TimeoutError):
            body = None
        finally:
            response.close()
        error = provider_error(self.name, response.status, body, secret=self._endpoint.key)
        after = retry_after(response.headers)
        if after is not None:
            error.headers = {"Retry-After": str(math.ceil(after))}
        if response.status in RETRIED and response.headers.get("x-should-retry") != "false":
            return Again(error, after)
        return error


class _Reply:
    """A response whose body has not been read."""

    def __init__(self, name: str, response: aiohttp.ClientResponse, timeouts: Timeouts) -> None:
        self.name = name
        self.response = response
        self.timeouts = timeouts

    def expect(self, kind: str) -> None:
        """Raises `UpstreamError` for a body of another media type, or a compressed one."""
        coding = self.response.headers.get("Content-Encoding", "identity").strip().lower()
        if coding != "identity":
            raise _failed(self.name, f"sent a compressed answer ({coding[:20]!r}), though it was asked for a plain one")
        content_type = self.response.content_type
        if content_type != kind and not (kind == "application/json" and content_type.endswith("+json")):
            raise _failed(self.name, f"sent {content_type[:80]!r} where {kind} was asked for")

    async def read(self, patience: float) -> bytes:
        """The next bytes; b"" where the body has ended in good order."""
        content = self.response.content
        try:
            if ready := content.read_nowait():
                return ready
            async with asyncio.timeout(patience):
                return await content.readany()
        except TimeoutError:
            failure: UpstreamError = _late(self.name, "fell silent inside its answer", patience)
        except (aiohttp.ClientError, OSError):
            failure = _failed(self.name, "broke off inside its answer")
        raise failure

    async def object(self, limit: int) -> Json:
        """The whole body, of at most `limit` bytes, read as a JSON object."""
        self.expect("application/json")
        data = bytearray()
        while chunk := await self.read(self.timeouts.idle):
            data += chunk
            if len(data) > limit:
                raise _failed(self.name, f"sent an answer of more than {limit} bytes")
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError:
            body = None
        if isinstance(body, list) and len(body) == 1 and isinstance(body[0], dict) and "error" in body[0]:
            body = body[0]
        if not isinstance(body, dict):
            raise _failed(self.name, "sent an answer that is not a JSON object")
        return body

    async def drained(self) -> None:
        """Reads what little follows the closing event, so that the connection can be used again."""
        with suppress(TimeoutError, aiohttp.ClientError, OSError):
            async with asyncio.timeout(_DRAIN):
                while await self.response.content.readany():
                    pass


class _Events:
    """The events of one reply. Not a generator: one that is dropped half read is closed by nobody in particular."""

    def __init__(self, reply: _Reply, max_event: int) -> None:
        self.complete = False
        self._ended = False
        self._reply = reply
        self._decoder = Decoder(max_event)
        self._ready: Iterator[Event] = iter(())
        self._patience = reply.timeouts.first_byte

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self.complete:
            event = next(self._ready, None)
            if event is not None:
                self.complete = event.data is None
                return event
            if self._ended:
                break
            chunk = await self._reply.read(self._patience)
            self._patience = self._reply.timeouts.idle
            self._ended = not chunk
            self._ready = iter(self._decoder.flush()) if self._ended else self._decoder.decode(chunk)
        raise StopAsyncIteration


def encoded(body: Json) -> bytes:
    """The object that was judged, as it goes to the provider. Raises `BadRequest` for one that JSON cannot carry."""
    try:
        return orjson.dumps(body)
    except TypeError as exc:
        raise BadRequest(f"The body cannot be passed on as JSON: {exc}.") from None


def _form(boundary: str, fields: Mapping[str, str], type: str, sound: bytes) -> bytes:
    """A multipart form of these fields and one file."""
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    name = f"sound.{type.partition('/')[2]}"
    head += f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
    head += f"Content-Type: {type}\r\n\r\n"
    return head.encode() + sound + f"\r\n--{boundary}--\r\n".encode()


def _failed(name: str, what: str) -> UpstreamError:
    return UpstreamError(f"The model's provider ({name}) {what}.")


def _late(name: str, what: str, seconds: float) -> UpstreamTimeout:
    return UpstreamTimeout(f"The model's provider ({name}) {what} within {seconds:g} seconds.")


def _unreached(name: str, exc: Exception, timeouts: Timeouts) -> UpstreamError | Again:
    """What went wrong before a status came, and whether it may be tried again."""
    match exc:
        case aiohttp.ConnectionTimeoutError():
            return Again(_late(name, "accepted no connection", timeouts.connect))
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return _failed(name, "could not prove who it is (TLS)")
        case aiohttp.ClientConnectorDNSError():
            return Again(_failed(name, "has an address that cannot be looked up"))
        case aiohttp.ClientConnectorError():
            return Again(_failed(name, "cannot be reached"))
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            # Most often a pooled connection that was closed from over there just as it was taken.
            return Again(_failed(name, "closed the connection before it answered"), after=0.0)
        case TimeoutError():
            return _late(name, "did not begin to answer", timeouts.first_byte)
    return _failed(name, "answered with something that is not HTTP")
