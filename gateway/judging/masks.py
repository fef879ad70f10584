"""Masks: what stands in the place of characters that are not to go on."""

from collections.abc import Iterable
from dataclasses import replace

from guard_runtime.conversation import Conversation, Path, Turn
from guard_runtime.text.language import language_of
from guard_runtime.verdict import Span

_MASKED = {"zh": "[已隐去:{label}]", "en": "[redacted:{label}]"}


def mask_label(label: str, language: str) -> str:
    """What stands in a span's place: the kind of thing that was there, never a piece of it."""
    return _MASKED.get(language, _MASKED["en"]).format(label=label)


def masked(text: str, spans: Iterable[Span], language: str) -> str:
    """`text` with every span replaced by its label; a stretch of spans that overlap becomes the first one's."""
    out: list[str] = []
    at = 0
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if span.start >= at:
            out += (text[at : span.start], mask_label(span.label, language))
        at = max(at, span.end)
    return "".join((*out, text[at:]))


def masked_conversation(conversation: Conversation, spans: Iterable[Span]) -> Conversation:
    """The conversation with the spans masked, each text in its own language."""
    by_path: dict[Path, list[Span]] = {}
    for span in spans:
        by_path.setdefault(span.path, []).append(span)
    if not by_path:
        return conversation
    return replace(conversation, turns=tuple(_masked_turn(turn, by_path) for turn in conversation.turns))


def _masked_turn(turn: Turn, spans: dict[Path, list[Span]]) -> Turn:
    parts = (
        replace(part, text=masked(part.text, spans[part.path], language_of(part.text)))
        if part.text is not None and part.path in spans
        else part
        for part in turn.parts
    )
    return Turn(turn.role, tuple(parts))
