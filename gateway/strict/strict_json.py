"""JSON read once, strictly: what two parsers could read in two ways is refused."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import orjson

Json = Mapping[str, Any]
"""A JSON object that has been read; nothing changes it in place."""

_CONSTANT = re.compile(r'"([^"\\]{1,64})"\s*:\s*\[?\s*(-?Infinity|NaN)\b')


class NotStrict(ValueError):
    """The text is no JSON, or JSON with duplicate keys, NaN, lone surrogates, or numbers no float can hold. `field` is
    the key at fault, where there is one."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class DuplicateKey(NotStrict):
    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key[:64]!r} stands twice in one object")
        self.key = key


def decode(data: bytes | str) -> Any:
    """The value of a JSON text (UTF-8). Raises `NotStrict`."""
    try:
        orjson.loads(data)  # refuses NaN, lone surrogates, bad UTF-8, depth over 1024; but takes duplicate keys
    except orjson.JSONDecodeError as exc:
        raise _explained(data, exc) from exc
    try:
        return _DECODER.decode(data if isinstance(data, str) else data.decode())
    except NotStrict:
        raise
    except (RecursionError, ValueError) as exc:  # ValueError: a number of more than 4,300 digits
        raise NotStrict("it is nested too deep, or holds a number with too many digits") from exc


def flattened(data: str) -> list[Any]:
    """The value of a JSON text with its objects as lists of pairs, so that duplicate keys stay. Raises `NotStrict`."""
    try:
        return [json.loads(data, object_pairs_hook=lambda pairs: [list(pair) for pair in pairs])]
    except (ValueError, RecursionError) as exc:
        raise NotStrict(str(exc)) from exc


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DuplicateKey(key)
            seen.add(key)
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise NotStrict("it holds a number too large for a float")
    return number


def _whole(text: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**64:
        raise NotStrict("it holds a whole number of more than 64 bits")
    return number


def _constant(name: str) -> NoReturn:
    raise NotStrict(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_int=_whole, parse_constant=_constant)


def _explained(data: bytes | str, exc: orjson.JSONDecodeError) -> NotStrict:
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    near = _CONSTANT.search(text, max(0, exc.pos - 128), exc.pos + 16)
    if near is not None:
        return NotStrict(f"{near[1]} is {near[2]}, which is not JSON", field=near[1])
    return NotStrict(f"{exc.msg} at line {exc.lineno} column {exc.colno}")
