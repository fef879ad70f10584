"""Bare texts that a model is given: one, a list of them, or token ids that a tokenizer can turn back into text."""

from collections.abc import Callable, Sequence

from gateway.dialects.fields import text
from gateway.errors import BadRequest
from guard_runtime.conversation import Part

Decoder = Callable[[Sequence[int]], str]
"""A tokenizer's decode: the text that these token ids are, special tokens included."""


def read_prompts(value: object, field: str, decoder: Decoder | None, limit: int) -> list[tuple[Part, ...]]:
    """The parts of each text in turn, none for an empty one. Raises `BadRequest` naming `field`, also for token ids
    without a `decoder`: no guard could read them."""
    if isinstance(value, str):
        return [tuple(text(value, (field,)))]
    if not isinstance(value, list) or not value:
        raise BadRequest(f"{field} must be a string or a list with at least one", param=field)
    if is_token_ids(value):
        return [(Part((field,), decoded(value, field, decoder)),)]
    if len(value) > limit:
        raise BadRequest(f"{field} holds {len(value)} texts; the limit here is {limit}", param=field)
    return [_item(item, (field, i), decoder) for i, item in enumerate(value)]


def _item(item: object, path: tuple[str, int], decoder: Decoder | None) -> tuple[Part, ...]:
    name = f"{path[0]}[{path[1]}]"
    if isinstance(item, list) and is_token_ids(item):
        return (Part(path, decoded(item, name, decoder)),)
    if not isinstance(item, str):
        raise BadRequest(f"{name} must be a string", param=name)
    return tuple(text(item, path))


def is_token_ids(value: Sequence[object]) -> bool:
    return bool(value) and all(isinstance(item, int) and not isinstance(item, bool) for item in value)


def decoded(ids: Sequence[int], param: str, decoder: Decoder | None) -> str:
    """The text that token ids are. Raises `BadRequest` when there is no decoder, or no such token."""
    if decoder is None:
        raise BadRequest(
            f"{param} is a list of token ids. No tokenizer is configured for this model, so they cannot be checked. "
            "Send the text as a string.",
            param=param,
        )
    try:
        return decoder(ids)
    except (ValueError, OverflowError, IndexError, KeyError) as exc:
        raise BadRequest(f"{param} holds a token id that this model does not have", param=param) from exc
