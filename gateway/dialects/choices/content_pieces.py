"""Content that is a list: text, thinking and references, as Mistral and Databricks send it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.dialects.choices.vendor_fields import vendor_deltas, with_vendor_texts
from gateway.dialects.dialect import Channel, Delta
from gateway.errors import UpstreamError
from guard_runtime.conversation import Kind

THINKING: Mapping[str, str] = {"thinking": "thinking", "reasoning": "summary", "reference": "title"}
"""The types of pieces that are neither text nor media, and the field in which their text stands, a string or a list."""

_TEXTS: Mapping[str, Kind] = {"text": Kind.TEXT, "refusal": Kind.REFUSAL}


def piece_deltas(pieces: Sequence[Any], channel: Channel) -> Iterator[Delta]:
    """What the pieces of one event add. Raises `UpstreamError`."""
    for piece in pieces:
        if not isinstance(piece, Mapping):
            raise UpstreamError("The model's provider sent a piece of content that is not an object.")
        yield from vendor_deltas({"content": _read(piece)}, {"content": _kind(piece)}, _at(channel, piece))


def with_piece_texts(pieces: Sequence[Any], channel: Channel, texts: Mapping[Channel, str]) -> list[Any]:
    """The pieces with other texts in them."""
    new = []
    remaining = dict(texts)
    for piece in pieces:
        fields, at = {"content": _kind(piece)}, _at(channel, piece)
        edited = with_vendor_texts({"content": _read(piece)}, fields, at, remaining)["content"]
        new.append({**piece, **edited})
        remaining |= {delta.channel: "" for delta in vendor_deltas({"content": _read(piece)}, fields, at)}
    return new


def _kind(piece: Mapping[str, Any]) -> Kind:
    return (
        Kind.REASONING
        if piece.get("type") in ("thinking", "reasoning")
        else _TEXTS.get(str(piece.get("type")), Kind.TEXT)
    )


def _read(piece: Mapping[str, Any]) -> Mapping[str, Any]:
    return piece if piece.get("type") != "reference" else {k: v for k, v in piece.items() if k != "reference_ids"}


def _at(channel: Channel, piece: Mapping[str, Any]) -> Channel:
    """One channel for the text of an answer and one for its thinking, however they are cut into pieces."""
    return (*channel, "pieces", str(_kind(piece)))
