"""A compressed request body made whole, piece by piece, within the limit on bodies and a bound on how far it grows."""

import zlib
from typing import Protocol

import zstandard

from gateway.errors import BadRequest, EncodedBody, TooLarge

MAX_RATIO = 200
"""How many times larger a body may be than what was sent. Conversations as JSON come to 3 to 20."""
FREE = 256 * 1024
"""A body of up to this many bytes may have any ratio: short texts that repeat themselves compress very well."""
_STEP = 64 * 1024
_FED = 256
"""How many bytes of zstd are read at once: they become at most some MiB."""
_WINDOW = 8 * 1024 * 1024
"""The most memory a zstd body may ask for: what RFC 9659 lets HTTP use."""


class Decompressor(Protocol):
    def add(self, piece: bytes) -> bytes:
        """What this piece of the body stands for. Raises `BadRequest` (or its kin)."""

    def end(self) -> None:
        """Raises `BadRequest` where the body stops in the middle."""


def decompressor(encoding: str, limit: int) -> Decompressor:
    """For the value of a Content-Encoding header. `limit`: the most bytes that a body may have. Raises `EncodedBody`
    for a coding that is not read here."""
    match encoding.strip().lower():
        case "" | "identity":
            return _Plain()
        case "gzip" | "x-gzip":
            return _Compressed(_Gzip(), limit)
        case "zstd":
            return _Compressed(_Zstd(), limit)
    raise EncodedBody("Only gzip and zstd bodies are read here. Send one of these, or the JSON as it is.")


class _Plain:
    def add(self, piece: bytes) -> bytes:
        return piece

    def end(self) -> None: ...


class _Codec(Protocol):
    """One coding."""

    def step(self, data: bytes) -> tuple[bytes, bytes]:
        """What the beginning of the data stands for, a bounded piece of it, and the rest of the data."""

    @property
    def complete(self) -> bool: ...


class _Compressed:
    def __init__(self, codec: _Codec, limit: int) -> None:
        self._codec = codec
        self._limit = limit
        self._received = 0
        self._made = 0

    def add(self, piece: bytes) -> bytes:
        self._received += len(piece)
        whole: list[bytes] = []
        rest, more = piece, bool(piece)
        while more:
            if self._codec.complete:
                raise BadRequest("Something follows the end of the compressed body.")
            made, rest = self._codec.step(rest)
            more = bool(rest) or (len(made) >= _STEP and not self._codec.complete)
            self._made += len(made)
            self._require_bounded()
            whole.append(made)
        return b"".join(whole)

    def _require_bounded(self) -> None:
        if self._made > self._limit:
            raise TooLarge(f"The body, decompressed, is larger than {self._limit} bytes, the limit here.")
        if self._made > max(FREE, MAX_RATIO * self._received):
            raise TooLarge(f"The body grows to more than {MAX_RATIO} times what was sent. Send it uncompressed.")

    def end(self) -> None:
        if not self._codec.complete:
            raise BadRequest("The compressed body stops in the middle.")


class _Gzip:
    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    def step(self, data: bytes) -> tuple[bytes, bytes]:
        try:
            made = self._stream.decompress(data, _STEP)
        except zlib.error:
            raise BadRequest("The body is not gzip, which its Content-Encoding says it is.") from None
        return made, self._stream.unconsumed_tail or self._stream.unused_data

    @property
    def complete(self) -> bool:
        return self._stream.eof


class _Zstd:
    """zstd cannot be told how much to give at once, so it is fed little: the window bounds what a block can become."""

    def __init__(self) -> None:
        self._stream = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()

    def step(self, data: bytes) -> tuple[bytes, bytes]:
        try:
            made = self._stream.decompress(data[:_FED])
        except zstandard.ZstdError:
            raise BadRequest("The body is not zstd, which its Content-Encoding says it is.") from None
        return made, self._stream.unused_data + data[_FED:]

    @property
    def complete(self) -> bool:
        return self._stream.eof
