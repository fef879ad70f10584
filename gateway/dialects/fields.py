"""What dialects share about JSON: strings found at every leaf, identifiers, tool arguments that are JSON themselves."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.dialects.dialect import Json
from gateway.errors import BadRequest
from gateway.strict_json import DuplicateKey, NotStrict, decode, flattened
from guard_runtime.conversation import Kind, Part, Path

JSON_MARK = "$json"
KEYS_MARK = "$keys"

_IDENTIFIER = re.compile(r"[\x21-\x7e]{0,256}")
_MAX_DEPTH = 128


def is_identifier(value: object) -> bool:
    """Whether a string can only be a name or an id: at most 256 visible ASCII characters, no blank among them."""
    return isinstance(value, str) and _IDENTIFIER.fullmatch(value) is not None


def strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, the keys of its objects too, in order."""
    match value:
        case str():
            yield value
        case Mapping():
            for key, inner in value.items():
                yield key
                yield from strings(inner)
        case list():
            for inner in value:
                yield from strings(inner)


def carries_text(value: Any) -> bool:
    """Whether any leaf of a JSON value is a string that is not empty, or any key more than a name."""
    match value:
        case str():
            return bool(value)
        case Mapping():
            return any(not is_identifier(key) or carries_text(inner) for key, inner in value.items())
        case list():
            return any(carries_text(inner) for inner in value)
    return False


def joined(value: Any, path: Path, kind: Kind) -> Iterator[Part]:
    """One part for all the text of a definition (a tool, a schema). It can be judged but not edited in place."""
    text = "\n".join(text for text in strings(value) if text)
    if text:
        yield Part(path, text, kind)


def leaves(value: Any, path: Path, kind: Kind) -> Iterator[Part]:
    """A part for every string and number in a JSON value, and one for the keys of each object."""
    match value:
        case str() if value:
            yield Part(path, value, kind)
        case bool() | None | "":
            return
        case int() | float():
            yield Part(path, str(value), kind)
        case Mapping():
            if value:
                yield Part((*path, KEYS_MARK), "\n".join(value), kind)
            for key, inner in value.items():
                yield from leaves(inner, (*path, key), kind)
        case list():
            for i, inner in enumerate(value):
                yield from leaves(inner, (*path, i), kind)


def arguments(value: object, path: Path) -> Iterator[Part]:
    """A tool call's arguments: the leaves of the JSON they are, or the raw text where they are not JSON."""
    if not isinstance(value, str):
        raise BadRequest(f"{dotted(path)} must be a string holding JSON", param=dotted(path))
    if not value.strip():
        return
    try:
        decoded = decode(value)
    except DuplicateKey:  # the model reads the raw text, both values in it
        yield from joined(flattened(value), path, Kind.TOOL_CALL)
        return
    except NotStrict:
        yield Part(path, value, Kind.TOOL_CALL)
        return
    if isinstance(decoded, Mapping | list):
        yield from leaves(decoded, (*path, JSON_MARK), Kind.TOOL_CALL)
    else:
        yield Part(path, value, Kind.TOOL_CALL)


def dotted(path: Path) -> str:
    """A path as people write it: messages[2].content"""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def refuse_unknown(value: Json, known: frozenset[str], path: Path) -> None:
    """Raises `BadRequest` for a key nobody knows that carries text: it would pass unread."""
    for key, inner in value.items():
        if key not in known and carries_text(inner):
            name = dotted((*path, key))
            raise BadRequest(
                f"{name}: this field is not known here, so no guard could read the text in it. Remove it.", param=name
            )


def require_depth(body: Json) -> None:
    """Raises `BadRequest` where a body is nested deeper than anything an API asks for."""
    level: list[Any] = [body]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, Mapping) else value)
            if isinstance(inner, Mapping | list)
        ]
        if not level:
            return
    raise BadRequest(f"The body is nested more than {_MAX_DEPTH} levels deep.")


def added(usage: Json | None, more: Json | None) -> dict[str, Any]:
    """Two usage objects, their numbers added up: what a regenerated answer cost in all."""
    total = dict(usage or {})
    for key, value in (more or {}).items():
        if isinstance(value, int) and isinstance(total.get(key, 0), int):
            total[key] = total.get(key, 0) + value
    return total
