"""An answer made of choices, as chat and the older completions have it: what stands beside them, one put in another's
place."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gateway.dialects.choices.vendor_fields import BESIDE, vendor_parts
from gateway.dialects.dialect import Choice, Json
from gateway.dialects.fields import added, dotted, is_identifier, is_index, items, only_names, strangers, text
from gateway.errors import BadRequest, UpstreamError
from guard_runtime.conversation import Kind, Part, Path

# Fields of an answer or chunk and of a choice. Strings of the NAMES are no content: each is held to an identifier's
# shape, those of Azure's own filter included. What is KNOWN is read.
ANSWER_NAMES = frozenset(
    {
        "id",
        "object",
        "created",
        "system_fingerprint",
        "service_tier",
        "obfuscation",
        "p",
        "request_id",
        "usage",
        "moderation",
    }
)
ANSWER_KNOWN = frozenset({"choices", "model", *BESIDE})
CHOICE_NAMES = frozenset({"index", "finish_reason", "native_finish_reason", "content_filter_offsets"})
NO_USAGE: Mapping[str, int] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def read_choices(answer: Json, parts: Callable[[Json, Path], Iterator[Part]]) -> tuple[Choice, ...]:
    """Each choice with its `parts`. What stands beside the choices (citations, a provider's name) belongs to the first
    of them. Raises `UpstreamError`."""
    if not isinstance(answer, Mapping) or not isinstance(answer.get("choices"), list) or not answer["choices"]:
        raise UpstreamError("The model's provider sent an answer without choices.")
    try:
        beside = tuple(_beside(answer))
        parts_of = [tuple(_indexed(choice, path, parts)) for choice, path in items(answer["choices"], ("choices",))]
    except BadRequest as exc:
        raise UpstreamError(f"The model's provider sent an answer that cannot be read: {exc}") from exc
    return tuple(Choice(i, (*beside, *own) if i == 0 else own) for i, own in enumerate(parts_of))


def _indexed(choice: Json, path: Path, parts: Callable[[Json, Path], Iterator[Part]]) -> Iterator[Part]:
    if not is_index(choice.get("index", 0)):
        raise BadRequest(f"{dotted(path)} has no index", param=dotted(path))
    return parts(choice, path)


def _beside(answer: Json) -> Iterator[Part]:
    if not is_identifier(answer.get("model", "")):
        yield from text(answer["model"], ("model",), Kind.NAME)
    yield from vendor_parts(answer, BESIDE, ())
    yield from strangers(answer, (), ANSWER_KNOWN, ANSWER_NAMES)


def with_refused(answer: Json, position: int, choice: Json) -> dict[str, Any]:
    """`answer` with that choice in the place of its own. What stood beside the choices goes too, but for the stamp."""
    choices = list(answer["choices"])
    choices[position] = {**choice, "index": choices[position].get("index", position)}
    stamp = {key: value for key, value in answer.items() if key in (*ANSWER_NAMES, "model") and only_names(value)}
    return {**stamp, "choices": choices}


def with_choice(answer: Json, position: int, other: Json) -> dict[str, Any]:
    """`answer` with that choice taken from the first of `other`; usage added up."""
    choices = list(answer["choices"])
    choices[position] = {**other["choices"][0], "index": choices[position].get("index", position)}
    return {**answer, "choices": choices, "usage": added(answer.get("usage"), other.get("usage"))}
