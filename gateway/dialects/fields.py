"""Reading JSON for content: the strings at its leaves, identifiers, tool arguments that are JSON themselves."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeGuard

from gateway.errors import BadRequest, UpstreamError
from gateway.strict.strict_json import DuplicateKey, Json, NotStrict, decode, flattened
from guard_runtime.conversation import Kind, Part, Path

JSON_MARK = "$json"
KEYS_MARK = "$keys"
RESULTS_MARK = "$results"
"""Ends the path of a part that stands for what a tool run by the provider brings in, which no guard here can read."""

MAX_INDEX = 2048
"""Of a choice, a block or an item in an answer: memory is kept for each. OpenAI takes 128 choices of one prompt, and
several prompts in one request for completions."""

MAX_ID = 512
"""Characters of an id that is no plain name."""

_IDENTIFIER = re.compile(r"[\x21-\x7e]{0,256}")
_SHOWN = re.compile(r"[A-Za-z0-9_.$-]{1,64}")
_MAX_DEPTH = 128


def is_identifier(value: object) -> bool:
    """Whether a string can only be a name or an id: at most 256 visible ASCII characters without blanks."""
    return isinstance(value, str) and _IDENTIFIER.fullmatch(value) is not None


def is_printable_id(value: object) -> bool:
    """Whether a string can be an id as some clients make them: one line of printable characters, blanks among them."""
    return isinstance(value, str) and len(value) <= MAX_ID and value.isprintable()


def wordy_ids(holder: Json, names: Iterable[str]) -> frozenset[str]:
    """Those ids in an object that are more than a name, and so are read like one."""
    return frozenset(
        name for name in names if not is_identifier(holder.get(name)) and is_printable_id(holder.get(name))
    )


def is_index(value: object) -> TypeGuard[int]:
    """Whether an upstream may number a choice, a block or an item so."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_INDEX


def strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, the keys of its objects too, in order."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as text:
                yield text
            case None | int() | float():  # before the mappings: their check is the slowest
                pass
            case dict() | Mapping() as holder:
                for key, inner in reversed(list(holder.items())):
                    waiting += (inner, key)
            case list() as items:
                waiting.extend(reversed(items))


def carries_text(value: Any) -> bool:
    """Whether any leaf of a JSON value is a string that is not empty, or any key more than a name."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as text:
                if text:
                    return True
            case None | int() | float():
                pass
            case dict() | Mapping() as holder:
                if not all(map(is_identifier, holder)):
                    return True
                waiting.extend(holder.values())
            case list() as items:
                waiting.extend(items)
    return False


def carries_tokens(value: Any) -> bool:
    """Whether a JSON value holds a list of whole numbers, which may be the ids of a text's tokens."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case Mapping() as holder:
                waiting.extend(holder.values())
            case list() as items:
                if any(isinstance(item, int) and not isinstance(item, bool) for item in items):
                    return True
                waiting.extend(items)
    return False


def only_names(value: Any) -> bool:
    """Whether every string in a JSON value, keys included, is an identifier."""
    return value is None or all(map(is_identifier, strings(value)))


def unread(holder: Json, known: frozenset[str], names: frozenset[str] = frozenset()) -> Iterator[str]:
    """The keys whose content nothing reads: unknown ones that carry text or token ids, and names that are no names."""
    for key, value in holder.items():
        if key in names:
            if not only_names(value):
                yield key
        elif key not in known and (carries_text(value) or carries_tokens(value) or not is_identifier(key)):
            yield key


def unread_in_answer(holder: Json, known: frozenset[str], names: frozenset[str] = frozenset()) -> Iterator[str]:
    """As `unread`, for an answer: there a list of numbers may be the tokens of a text that was masked."""
    for key, value in holder.items():
        if key not in known and key not in names and carries_tokens(value):
            yield key
    yield from (key for key in unread(holder, known, names) if not carries_tokens(holder[key]) or key in names)


def strangers(holder: Json, path: Path, known: frozenset[str], names: frozenset[str] = frozenset()) -> Iterator[Part]:
    """A part without text for every key of an answer whose strings nothing reads."""
    for key in unread_in_answer(holder, known, names):
        yield Part((*path, key), None)


def joined(value: Any, path: Path, kind: Kind) -> Iterator[Part]:
    """One part for all the text of a definition (a tool, a schema). It can be judged but not edited in place."""
    if value is None:
        return
    text = "\n".join(text for text in strings(value) if text)
    if text:
        yield Part(path, text, kind)


def leaves(value: Any, path: Path, kind: Kind) -> Iterator[Part]:
    """A part for every string and number in a JSON value, and one for the keys of each object."""
    waiting: list[tuple[Any, Path]] = [(value, path)]
    while waiting:
        inner, at = waiting.pop()
        match inner:
            case str() if inner:
                yield Part(at, inner, kind)
            case bool() | None | "":
                pass
            case int() | float():
                yield Part(at, str(inner), kind)
            case Mapping():
                if inner:
                    yield Part((*at, KEYS_MARK), "\n".join(inner), kind)
                waiting.extend((item, (*at, key)) for key, item in reversed(list(inner.items())))
            case list():
                waiting.extend((item, (*at, i)) for i, item in reversed(list(enumerate(inner))))


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


def text(value: object, path: Path, kind: Kind = Kind.TEXT) -> Iterator[Part]:
    """A part for a string; nothing for null or an empty one. Raises `BadRequest` for anything else."""
    if value is None or value == "":
        return
    if not isinstance(value, str):
        raise BadRequest(f"{dotted(path)} must be a string", param=dotted(path))
    yield Part(path, value, kind)


def mapping(value: object, path: Path) -> Json:
    """The object at a path. Raises `BadRequest` for anything else."""
    if not isinstance(value, Mapping):
        raise BadRequest(f"{dotted(path)} must be an object", param=dotted(path))
    return value


def items(value: object, path: Path) -> Iterator[tuple[Json, Path]]:
    """The objects of the list at a path (none for null), each with its own path. Raises `BadRequest`."""
    if value is None:
        return
    if not isinstance(value, list):
        raise BadRequest(f"{dotted(path)} must be a list", param=dotted(path))
    for i, item in enumerate(value):
        yield mapping(item, (*path, i)), (*path, i)


def dotted(path: Path) -> str:
    """A path as people write it: messages[2].content. A key that is no name is not repeated."""
    shown = ""
    for step in path:
        if isinstance(step, int):
            shown += f"[{step}]"
        else:
            name = step if _SHOWN.fullmatch(step) else "(key)"
            shown += f".{name}" if shown else name
    return shown


def refuse_unknown(value: Json, known: frozenset[str], path: Path) -> None:
    """Raises `BadRequest` for an unknown key that carries text, because no guard would read it."""
    for key in unread(value, known):
        name = dotted((*path, key))
        raise BadRequest(
            f"{name} is an unknown field, so the text in it cannot be checked. Remove the field.", param=name
        )


def require_known(parts: Iterator[Part]) -> Iterator[Part]:
    """The parts of a request. Raises `BadRequest` for an unknown one."""
    for part in parts:
        if part.text is None and part.kind is Kind.TEXT:
            name = dotted(part.path)
            if part.path[-1] == "type":
                raise BadRequest(f"{name} is an unknown type, so its content cannot be checked.", param=name)
            raise BadRequest(
                f"{name} is unknown, or holds text where only a name may stand, so it cannot be checked. Remove it.",
                param=name,
            )
        yield part


def require_names(value: Json, names: frozenset[str], path: Path) -> None:
    """Raises `BadRequest` where a field for names and ids holds anything else."""
    for key in names & value.keys():
        if not only_names(value[key]):
            name = dotted((*path, key))
            raise BadRequest(f"{name} must be an identifier: at most 256 visible ASCII characters", param=name)


def require_depth(body: Json) -> None:
    """Raises `BadRequest` where a body is nested deeper than any API needs."""
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


def added(usage: object, more: object) -> dict[str, Any]:
    """Adds up two usage objects: the total cost of a regenerated answer."""
    total = dict(usage) if isinstance(usage, Mapping) else {}
    for key, value in more.items() if isinstance(more, Mapping) else ():
        if isinstance(value, int) and isinstance(total.get(key, 0), int):
            total[key] = total.get(key, 0) + value
    return total


def usage_in(holder: object) -> Json:
    """The `usage` object in an answer or event; empty where there is none."""
    usage = holder.get("usage") if isinstance(holder, Mapping) else None
    return usage if isinstance(usage, Mapping) else {}


def require_event_name(name: str | None, expected: str | None) -> None:
    """Raises `UpstreamError` for an event with an unexpected name: names are relayed without being read by a guard."""
    if name is not None and name != expected:
        raise UpstreamError("The model's provider sent an event under a name that is not its own.")


def provider_failed(error: object) -> UpstreamError:
    """The error for an error event of the provider. Its message is left out, because no guard has read it."""
    return UpstreamError(f"The model's provider reported an error in the middle of its answer{_code_of(error)}.")


def refuse_error(answer: Json) -> None:
    """Raises `UpstreamError` for a plain answer that is an error, though its status says that it is none."""
    error = answer.get("error") or answer.get("detail")
    if error and not any(answer.get(key) for key in ("choices", "content", "data", "output")):
        raise UpstreamError(f"The model's provider answered with an error in place of an answer{_code_of(error)}.")


def _code_of(error: object) -> str:
    code = error.get("code") or error.get("type") if isinstance(error, Mapping) else None
    shown = str(code) if isinstance(code, int) else code
    return f" ({shown})" if is_identifier(shown) and shown else ""


def removed(value: Any, path: Path) -> Any:
    """A copy of `value` without what stands at a path. A thing of unknown type goes as a whole: in a list that is its
    element, elsewhere nothing can be removed."""
    if path[-1] == "type" and len(path) > 1:
        path = path[:-1]
    return _removed(value, path)


def _removed(value: Any, path: Path) -> Any:
    head, rest = path[0], path[1:]
    if isinstance(value, Mapping) and head in value:
        if not rest:
            return {key: inner for key, inner in value.items() if key != head}
        return {**value, head: _removed(value[head], rest)}
    if isinstance(value, list) and isinstance(head, int) and head < len(value):
        if not rest:
            return [*value[:head], *value[head + 1 :]]
        return [*value[:head], _removed(value[head], rest), *value[head + 1 :]]
    return value
