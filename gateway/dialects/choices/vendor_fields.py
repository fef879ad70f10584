"""Fields that only some providers add to a choice: reasoning details, annotations, citations, search results.

Each string in one is a text of its own, so that neither keys nor line ends stand between the pieces of a stream.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.dialects.dialect import Channel, Delta, Json
from gateway.dialects.fields import is_identifier, is_index, only_names
from gateway.dialects.media import of_url
from gateway.dialects.seals import SEALED_FIELDS, is_seal
from guard_runtime.conversation import Kind, Media, MediaKind, Part, Path

IN_MESSAGE: Mapping[str, Kind] = {
    "annotations": Kind.TEXT,
    "citations": Kind.TEXT,
    "context": Kind.TEXT,
    "extra_content": Kind.TEXT,
    "images": Kind.MEDIA,
    "provider_specific_fields": Kind.TEXT,
    "reasoning_details": Kind.REASONING,
    "search_results": Kind.TEXT,
    "thinking_blocks": Kind.REASONING,
    "web_search": Kind.TEXT,
}
"""Of a message or a delta, and what the text in them is."""

BESIDE: Mapping[str, Kind] = {
    "base_resp": Kind.TEXT,
    "citations": Kind.TEXT,
    "metadata": Kind.TEXT,
    "note": Kind.TEXT,
    "prompt_filter_results": Kind.TEXT,
    "provider": Kind.NAME,
    "related_questions": Kind.TEXT,
    "search_results": Kind.TEXT,
    "web_search": Kind.TEXT,
}
"""Of an answer or a chunk, beside the choices."""

OF_CHOICE: Mapping[str, Kind] = {
    "content_filter_result": Kind.TEXT,
    "content_filter_results": Kind.TEXT,
    "matched_stop": Kind.TEXT,
    "provider_specific_fields": Kind.TEXT,
    "stop_reason": Kind.TEXT,
}
"""Of a choice, beside its message. `content_filter_result` is Azure's report that its filter was down."""

OF_CALL: Mapping[str, Kind] = {"extra_content": Kind.TEXT, "provider_specific_fields": Kind.TEXT}
"""Of a tool call: a thought signature."""

_NAMES = frozenset({"type", "format", "id", "index"})
REPORTS = frozenset({"content_filter_result", "content_filter_results", "metadata", "prompt_filter_results"})
"""Fields of names and numbers, read where one of their strings is none: Azure's results, a server's versions."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One string of a vendor field: the path to it, the channel it belongs to in a stream. `text` is None for a seal or
    a picture."""

    path: Path
    channel: Channel
    text: str | None
    kind: Kind
    media: Media | None = None


def _leaves(field: str, value: Any, kind: Kind) -> Iterator[Leaf]:
    """Every string in the value of a vendor field, but for names and types that are identifiers. The elements of a list
    are told apart by the `index` they carry, or by their place."""
    waiting: list[tuple[Any, Path, Channel]] = [] if field in REPORTS and only_names(value) else [(value, (), ())]
    while waiting:
        inner, path, channel = waiting.pop()
        match inner:
            case "" | bool() | None:
                pass
            case str():
                yield from _string(inner, path, channel, kind)
            case Mapping():
                odd = [key for key in inner if not is_identifier(key)]
                if odd:
                    yield Leaf((*path, "$keys"), (*channel, "$keys"), "".join(odd), kind)
                waiting.extend((item, (*path, key), (*channel, key)) for key, item in reversed(list(inner.items())))
            case list():
                numbered = ((item, (*path, i), (*channel, _number(item, i))) for i, item in enumerate(inner))
                waiting.extend(reversed(list(numbered)))


def _string(value: str, path: Path, channel: Channel, kind: Kind) -> Iterator[Leaf]:
    key = next((step for step in reversed(path) if isinstance(step, str)), "")
    if key in _NAMES and is_identifier(value):
        return
    if key in SEALED_FIELDS and is_seal(value):
        yield Leaf(path, channel, None, Kind.SEAL)
    elif kind is Kind.MEDIA and key == "url":
        yield Leaf(path, channel, None, Kind.MEDIA, of_url(MediaKind.IMAGE, value))
    else:
        yield Leaf(path, channel, value, Kind.TEXT if kind is Kind.MEDIA else kind)


def _number(item: Any, place: int) -> int:
    index = item.get("index") if isinstance(item, Mapping) else None
    return index if is_index(index) else place


def vendor_parts(holder: Json, fields: Mapping[str, Kind], path: Path) -> Iterator[Part]:
    """The parts of these fields of a plain answer, or of a message that is sent back."""
    for field, kind in fields.items():
        for leaf in _leaves(field, holder.get(field), kind):
            yield Part((*path, field, *leaf.path), leaf.text, leaf.kind, leaf.media)


def vendor_deltas(holder: Json, fields: Mapping[str, Kind], channel: Channel) -> Iterator[Delta]:
    """What these fields of an event add, each string to a channel of its own."""
    for field, kind in fields.items():
        for leaf in _leaves(field, holder.get(field), kind):
            yield Delta((*channel, field, *leaf.channel), leaf.text, leaf.kind)


def with_vendor_texts(
    holder: Json, fields: Mapping[str, Kind], channel: Channel, texts: Mapping[Channel, str]
) -> dict[str, Any]:
    """A copy with other texts in these fields. Where an event has several pieces of one channel, the first takes all of
    its text. A field whose key holds a text that is replaced is removed."""
    new = dict(holder)
    placed: set[Channel] = set()
    for field, kind in fields.items():
        for leaf in _leaves(field, holder.get(field), kind):
            at = (*channel, field, *leaf.channel)
            if leaf.text is None or at not in texts:
                continue
            if leaf.path and leaf.path[-1] == "$keys":
                new.pop(field, None)
                break
            new[field] = _put(new[field], leaf.path, "" if at in placed else texts[at])
            placed.add(at)
    return new


def _put(value: Any, path: Path, text: str) -> Any:
    if not path:
        return text
    copy = value.copy()
    copy[path[0]] = _put(copy[path[0]], path[1:], text)
    return copy
