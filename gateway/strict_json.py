"""JSON read once, strictly: what two parsers could read in two ways is refused."""

import json
from collections.abc import Sequence
from typing import Any

import orjson


class NotStrict(ValueError):
    """The text is no JSON, or JSON with duplicate keys, NaN, lone surrogates, or numbers no float can hold."""


class DuplicateKey(NotStrict):
    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key[:64]!r} stands twice in one object")
        self.key = key


def decode(data: bytes | str) -> Any:
    """The value of a JSON text (UTF-8). Raises `NotStrict`."""
    try:
        orjson.loads(data)  # refuses NaN, lone surrogates, bad UTF-8, depth over 1024; but takes duplicate keys
        return json.loads(data, object_pairs_hook=_object, parse_float=_finite)
    except DuplicateKey:
        raise
    except (RecursionError, OverflowError) as exc:
        raise NotStrict("it is nested too deep, or holds a number too large") from exc
    except ValueError as exc:
        raise NotStrict(_reason(data, exc)) from exc


def flattened(data: str) -> list[Any]:
    """The value of a JSON text with its objects as lists of pairs, so that duplicate keys stay. Raises `NotStrict`."""
    try:
        value = json.loads(data, object_pairs_hook=lambda pairs: [list(pair) for pair in pairs])
    except (ValueError, RecursionError) as exc:
        raise NotStrict(str(exc)) from exc
    return [value]


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DuplicateKey(key)
            seen.add(key)
    return found


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise NotStrict("it holds a number too large for a float")
    return number


def _reason(data: bytes | str, exc: ValueError) -> str:
    """What is wrong, naming the field where it is a constant that JSON does not have."""
    if isinstance(exc, NotStrict):
        return str(exc)
    place = f"line {exc.lineno} column {exc.colno}" if isinstance(exc, json.JSONDecodeError) else ""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    start = exc.pos if isinstance(exc, json.JSONDecodeError) else 0
    for constant in ("NaN", "-Infinity", "Infinity"):
        if text[max(0, start - 1) :].lstrip("-").startswith(constant.lstrip("-")):
            field = text[max(0, start - 80) : start].rsplit('"', 2)
            name = field[1] if len(field) == 3 else "a number"
            return f"{name} is {constant}, which is not JSON ({place})"
    message = exc.msg if isinstance(exc, json.JSONDecodeError) else str(exc)
    return f"{message}: {place}" if place else message
