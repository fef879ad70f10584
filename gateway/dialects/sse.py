"""Server-sent events on the wire: bytes in, events out; one event in, one event out."""

import re
from collections.abc import Iterator

import orjson

from gateway.dialects.dialect import Event
from gateway.errors import UpstreamError

MAX_FRAME = 4 * 1024 * 1024
"""Bytes of one event that are kept while its end has not come."""

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: every client must ignore it (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")


class Decoder:
    """Reads one stream, however it is cut into chunks. Raises `UpstreamError` when an event is longer than `max_frame`
    bytes, is not UTF-8, or carries anything but a JSON object or [DONE].

    Of two equal keys in an object the last is kept, and only what was kept is ever forwarded. Comments, `id` and
    `retry` are dropped; so are events without data, as the specification says.
    """

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self._max_frame = max_frame
        self._buffer = bytearray()
        self._searched = 0
        self._begun = False
        self._after_cr = False
        self._name: bytes = b""
        self._data: list[bytes] = []
        self._size = 0

    def decode(self, chunk: bytes) -> Iterator[Event]:
        """The events that this chunk completes, to be read to their end before the next chunk. Those in front of
        garbage come out before it raises, so that what is seen does not depend on how the stream was cut."""
        self._buffer += chunk
        return (event for line in self._lines() if (event := self._read(line)) is not None)

    def flush(self) -> list[Event]:
        """What is left when the connection has ended in good order: an event that lacks only its blank line, or
        nothing. Raises `UpstreamError` when the stream was cut inside an event."""
        rest, self._buffer = bytes(self._buffer), bytearray()
        events = (self._read(rest) if rest else None, self._dispatch())
        return [event for event in events if event is not None]

    def _lines(self) -> Iterator[bytes]:
        if not self._begun and not self._begin():
            return
        if self._after_cr and self._buffer:
            # A CR ended the last line at once; an LF behind it belongs to the same line end.
            if self._buffer.startswith(b"\n"):
                del self._buffer[0]
            self._after_cr = False
        while line_end := _LINE_END.search(self._buffer, self._searched):
            line = bytes(self._buffer[: line_end.start()])
            end = line_end.end()
            self._after_cr = end == len(self._buffer) and line_end[0] == b"\r"
            del self._buffer[:end]
            self._searched = 0
            yield line
        self._searched = len(self._buffer)
        if self._size + len(self._buffer) > self._max_frame:
            raise UpstreamError(f"The provider sent one stream event of more than {self._max_frame} bytes.")

    def _begin(self) -> bool:
        if len(self._buffer) < len(_BOM) and _BOM.startswith(self._buffer):
            return False
        if self._buffer.startswith(_BOM):
            del self._buffer[: len(_BOM)]
        self._begun = True
        return True

    def _read(self, line: bytes) -> Event | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._size += len(value) + 1
        elif field == b"event":
            self._name = value
        return None

    def _dispatch(self) -> Event | None:
        data, name = b"\n".join(self._data), self._name
        self._data, self._name, self._size = [], b"", 0
        if not data.strip():
            return None
        return Event(_parsed(data), _text(name) or None)


def encode(event: Event) -> bytes:
    """The event as bytes. Raises `UpstreamError` for one that could be read as two, or cannot be written as JSON."""
    try:
        data = b"[DONE]" if event.data is None else orjson.dumps(event.data)
        name = (event.name or "").encode()
    except (TypeError, UnicodeEncodeError) as exc:
        raise UpstreamError("The provider sent a stream event that cannot be written as JSON.") from exc
    if not name:
        return b"data: " + data + b"\n\n"
    if _LINE_END.search(name):
        raise UpstreamError("The provider sent a stream event whose name has a line break in it.")
    return b"event: " + name + b"\ndata: " + data + b"\n\n"


def _parsed(data: bytes) -> dict[str, object] | None:
    if data.strip() == b"[DONE]":
        return None
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError:
        # Not chained: orjson's error carries the whole document, and a log would then hold what the model said.
        parsed = None
    if not isinstance(parsed, dict):
        raise UpstreamError("The provider sent a stream event that is not a JSON object.")
    return parsed


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise UpstreamError("The provider sent a stream event whose name is not UTF-8.") from None
