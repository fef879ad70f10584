"""Bodies changed in one place: a sentence put at every leaf, a key nobody knows in every object, wrong types."""

from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

from guard_runtime.conversation import Part, Path

SENTENCE = "没有人读过 this sentence"
"""No identifier: it has blanks and is not ASCII."""

MARK = "mk7q3"
"""An identifier: it may stand where only a name or an id may, and nothing else has it."""


def places(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value in a JSON value, with its path."""
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    if isinstance(value, list):
        for i, inner in enumerate(value):
            yield from places(inner, (*path, i))


def replaced(body: Any, path: Path, value: Any) -> Any:
    """A copy with that value at the path; the rest is shared."""
    if not path:
        return value
    new = body.copy()
    new[path[0]] = replaced(body[path[0]], path[1:], value)
    return new


def smuggled(body: Any) -> Iterator[tuple[Path, Any]]:
    """The body with the sentence at each string or null leaf, and beside the others in each list and object: as a value
    and as a key. Each with the path where it is."""
    for path, value in list(places(body)):
        match value:
            case str() | None | bool() | int() | float():
                yield path, replaced(body, path, SENTENCE)
                yield path, replaced(body, path, [{"deep": SENTENCE}])
            case dict():
                yield (*path, "nobody"), replaced(body, path, {**value, "nobody": SENTENCE})
                yield (*path, "nobody"), replaced(body, path, {**value, "nobody": [{"deep": SENTENCE}]})
                yield (*path, SENTENCE), replaced(body, path, {**value, SENTENCE: 1})
            case list():
                yield (*path, len(value)), replaced(body, path, [*value, SENTENCE])


def marked(body: Any) -> Iterator[tuple[Path, Any]]:
    """The body with the mark in the place of each string, one at a time."""
    for path, value in list(places(body)):
        if isinstance(value, str):
            yield path, replaced(body, path, MARK)


def reads(parts: Sequence[Part], path: Path) -> bool:
    """Whether the sentence is in a part, or a part without text stands where it was put."""
    return any(
        SENTENCE in part.text if part.text is not None else part.path == path[: len(part.path)] for part in parts
    )


def json_values(keys: Sequence[str]) -> st.SearchStrategy[Any]:
    """Any JSON value, its keys and words often those of the dialect."""
    words = st.sampled_from([*keys, "", SENTENCE]) | st.text(max_size=4)
    whole = st.integers(-(2**63), 2**64 - 1)
    leaves = st.none() | st.booleans() | whole | st.floats(allow_nan=False, allow_infinity=False) | words
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4), max_leaves=8
    )


def words_in(*bodies: Any) -> list[str]:
    """Every key and every short string of these bodies."""
    found: set[str] = set()
    for body in bodies:
        for path, value in places(body):
            found |= {step for step in path if isinstance(step, str)}
            if isinstance(value, str) and len(value) < 24:
                found.add(value)
    return sorted(found)
