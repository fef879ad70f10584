"""One channel of a streamed answer: its text while it is held, the masks on it, the run that may still grow."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.dialects.dialect import Channel
from guard_runtime.conversation import Kind, Part
from guard_runtime.verdict import Span

_DIGITS = "0123456789"
_SPELT = f"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz{_DIGITS}@._+-/="
_FULL_WIDTH = 0xFEE0
RUN = frozenset(_SPELT + "".join(chr(ord(c) + _FULL_WIDTH) for c in _SPELT) + ":\\\u200b\u200c\u200d\u2060\ufeff")
"""What numbers, addresses and keys are spelt with, their full-width twins and the zero-width marks between them."""
DIGITS = frozenset(_DIGITS + "".join(chr(ord(c) + _FULL_WIDTH) for c in _DIGITS))
MAX_RUN = 256
"""Characters. Longer than any number or address, and than the keys providers hand out (164 for OpenAI's projects)."""
MAX_BEFORE = 32_768
"""Characters of an answer that are kept for guards that remember. What grows longer is started anew."""

_HAN = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+")
_SENTENCE_END = re.compile(r"[。！？；!?\n]|\.\s")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPE = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})|\\(.)", re.S)
_SHORT = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


@dataclass(frozen=True, slots=True)
class Mask:
    """Characters [start, end) of a channel that leave as `label`, in the event that holds the first of them."""

    start: int
    end: int
    label: str


@dataclass(slots=True, eq=False)
class ChannelText:
    """One channel. Positions count the characters the upstream sent: released <= cleared <= checked <= taken <= length
    (in async mode `released` runs ahead). Of the text itself it keeps what is not cleared, as `context` a tail of what
    is, as it left, and `before` that what came earlier. A channel of unreadable pieces counts the pieces."""

    channel: Channel
    kind: Kind
    unreadable: bool
    label: Callable[[str], str]
    before: str = ""
    context: str = ""
    fresh: str = ""
    arrived: list[str] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    offsets: Sequence[int] | None = None
    length: int = 0
    taken: int = 0
    checked: int = 0
    cleared: int = 0
    released: int = 0
    grown: float = 0.0

    def grow(self, raw: str, now: float) -> "Piece":
        self.arrived.append(raw)
        self.length += len(raw)
        self.grown = now
        return Piece(self, raw, self.length)

    def read(self, budget: int) -> tuple[Part, int]:
        """The part to check, and the weight of what is new in it."""
        if self.unreadable:
            self.taken = self.length
            self.arrived.clear()
            return Part(self.channel, None, self.kind), 0
        self.fresh += "".join(self.arrived)
        self.arrived.clear()
        known = self.checked - self.cleared
        new = self.fresh[known : known + budget + 1]
        if weigh(new) > budget:
            new = new[: max(1, budget // 4)]
        self.taken = self.checked + len(new)
        text = _SURROGATE.sub("\ufffd", self.context + self.fresh[: self.taken - self.cleared])
        before, self.offsets = self.before, None
        if self.kind is Kind.TOOL_CALL and "\\" in text:
            text, self.offsets = unescaped(text)
        if self.kind is Kind.TOOL_CALL and "\\" in before:
            before, _ = unescaped(before)
        return Part(self.channel, text, self.kind, before=before), weigh(new)

    def settle(self, spans: Sequence[Span], overlap: int) -> None:
        """The running check has allowed what was taken, but for `spans`."""
        self.checked = self.taken
        if self.unreadable:
            self.cleared = self.checked
            return
        self.fresh += "".join(self.arrived)
        self.arrived.clear()
        shift = self.cleared - len(self.context)
        found = [Mask(shift + self._raw(s.start), shift + self._raw(s.end), self.label(s.label)) for s in spans]
        found = [Mask(max(m.start, self.cleared), m.end, m.label) for m in found if m.end > self.cleared]
        kept = [Mask(m.start, min(m.end, self.cleared), m.label) for m in self.masks if m.start < self.cleared]
        self.masks = kept + merged(found)
        to = self.checked
        if self.kind is not Kind.NAME:
            to = self.cleared + run_start(self.fresh, self.checked - self.cleared)
            to = min((m.start for m in self.masks if to - MAX_RUN < m.start < to < m.end), default=to)
        self.clear_to(to, overlap)

    def clear_to(self, position: int, overlap: int) -> None:
        if self.unreadable or position <= self.cleared:
            return
        count = position - self.cleared
        known = self.context + self.masked(self.fresh[:count], self.cleared)
        self.context = reach(known[-4 * overlap :] if overlap else "", overlap)
        self.before += known[: len(known) - len(self.context)]
        if len(self.before) > MAX_BEFORE:
            self.before = ""
        self.fresh = self.fresh[count:]
        self.cleared = position

    def masked(self, raw: str, start: int) -> str:
        """The characters [start, start + len(raw)) as they leave."""
        out, at, end = [], start, start + len(raw)
        for mask in self.masks:
            if mask.end <= start or mask.start >= end:
                continue
            out.append(raw[at - start : max(mask.start, start) - start])
            if mask.start >= start:
                out.append(mask.label)
            at = min(mask.end, end)
        return "".join((*out, raw[at - start :]))

    def _raw(self, position: int) -> int:
        return position if self.offsets is None else self.offsets[position]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event added to one channel, up to position `end`."""

    text: ChannelText
    raw: str
    end: int


def has_surrogate(text: str) -> bool:
    """Whether there is half a character in it, which no guard can read and nothing can be written with."""
    return _SURROGATE.search(text) is not None


def weigh(text: str) -> int:
    """Estimated tokens times four: a Han character (a kana, a Hangul syllable) is a token, four others are one."""
    return 4 * len(text) - 3 * len(_HAN.sub("", text))


def tail(text: str, tokens: int) -> str:
    """The last `tokens` estimated tokens of a text."""
    budget = 4 * tokens
    for start in range(len(text) - 1, -1, -1):
        budget -= weigh(text[start])
        if budget < 0:
            return text[start + 1 :]
    return text


def reach(text: str, tokens: int) -> str:
    """What a later check reads again of a text: from the start of its last sentence on, at least a third of `tokens`
    and at most all of them."""
    longest = tail(text, tokens)
    last = max((found.end() for found in _SENTENCE_END.finditer(longest)), default=0)
    return longest[min(last, len(longest) - len(tail(longest, -(-tokens // 3)))) :]


def run_start(text: str, end: int) -> int:
    """Where the run that may go on over position `end` begins; `end` itself where none does."""
    if end < len(text) and not _in_run(text, end):
        return end
    start = end
    while start > 0 and end - start < MAX_RUN and _in_run(text, start - 1):
        start -= 1
    return start


def _in_run(text: str, at: int) -> bool:
    """A single space counts between two digits: card numbers are written so."""
    if text[at] != " ":
        return text[at] in RUN
    return at > 0 and text[at - 1] in DIGITS and (at + 1 == len(text) or text[at + 1] in DIGITS)


def merged(masks: Sequence[Mask]) -> list[Mask]:
    """Masks in order and apart; of those that overlap, the longest names them all."""
    apart: list[Mask] = []
    for mask in sorted(masks, key=lambda mask: (mask.start, -mask.end)):
        if apart and mask.start < apart[-1].end:
            last = apart.pop()
            label = max(last, mask, key=lambda one: one.end - one.start).label
            mask = Mask(last.start, max(last.end, mask.end), label)
        apart.append(mask)
    return apart


def unescaped(text: str) -> tuple[str, Sequence[int]]:
    """The text with JSON's escapes undone, and for each of its characters (and its end) where that stood before."""
    out: list[str] = []
    offsets: list[int] = []
    at = 0
    for match in _ESCAPE.finditer(text):
        out.append(text[at : match.start()])
        offsets.extend(range(at, match.start()))
        out.append(_meant(match))
        offsets.append(match.start())
        at = match.end()
    out.append(text[at:])
    offsets.extend(range(at, len(text) + 1))
    return "".join(out), offsets


def _meant(match: re.Match[str]) -> str:
    high, low, single, short = match.groups()
    if high:
        return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
    if single:
        return _SURROGATE.sub("\ufffd", chr(int(single, 16)))
    return _SHORT.get(short, short)
