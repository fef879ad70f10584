"""The text in logprobs: they repeat the answer token by token, and name the tokens that were not chosen."""

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.dialects.dialect import Json
from gateway.dialects.fields import strings

_KEYS = frozenset({"token", "bytes", "logprob", "top_logprobs", "id"})


def spelled(entries: object) -> str:
    """All text in a list of {token, bytes, logprob, top_logprobs}: that of the chosen tokens, then everything else."""
    listed: list[Any] = entries if isinstance(entries, list) else [entries]
    chosen = b"".join(_bytes(entry) for entry in listed if isinstance(entry, Mapping)).decode("utf-8", "replace")
    rest = " ".join(word for entry in listed for word in _rest(entry) if word)
    return f"{chosen}\n{rest}" if rest else chosen


def _rest(entry: object) -> Iterator[str]:
    if not isinstance(entry, Mapping):
        yield from strings(entry)
        return
    if entry.get("token") != _decoded(entry):
        yield from strings(entry.get("token"))
    others = {key: value for key, value in entry.items() if key != "token"}
    yield from (word for word in strings(others) if word not in _KEYS)
    alternatives = others.get("top_logprobs")
    for other in alternatives if isinstance(alternatives, list) else ():
        if isinstance(other, Mapping) and other.get("token") != _decoded(other):
            yield _decoded(other)


def _decoded(entry: Json) -> str:
    return _bytes(entry).decode("utf-8", "replace")


def _bytes(entry: Json) -> bytes:
    """A character may be split between two tokens: then only their bytes show it, not their strings."""
    values = entry.get("bytes")
    if isinstance(values, list) and values and all(isinstance(byte, int) and 0 <= byte < 256 for byte in values):
        return bytes(values)
    token = entry.get("token")
    return token.encode("utf-8", "replace") if isinstance(token, str) else b""
