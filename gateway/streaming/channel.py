"""One channel of a streamed answer: its text while it is held, the masks on it, the run at its end that may grow."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.dialects.dialect import Channel
from gateway.streaming.token_weight import first_part, last_part, weigh
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
"""Characters of an answer that are kept for guards that cache what they have read. What grows longer is dropped."""

_SENTENCE_END = re.compile(r"[。！？；!?\n]|\.\s")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPE = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})|\\(.)", re.S)
_SHORT = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


Reread = Callable[[str, int], str]
"""The end of a text that a later check reads again, of at most so many estimated tokens."""


@dataclass(frozen=True, slots=True)
class Mask:
    """Characters [start, end) of a channel that leave as `label`, in the event that holds the first of them."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class ChannelRules:
    """What is the same for every channel of an answer: how a mask is written, and how much of the cleared text a later
    check reads again (`reread` of it, `overlap` estimated tokens at most)."""

    label: Callable[[str], str]
    overlap: int
    reread: Reread


@dataclass(slots=True)
class Positions:
    """How far a channel has come, in characters the upstream sent: cleared <= checked <= taken <= length, and released
    <= cleared (in async mode `released` runs ahead). They are moved here and nowhere else, and never back."""

    length: int = 0
    taken: int = 0
    checked: int = 0
    cleared: int = 0
    released: int = 0

    def grow(self, characters: int) -> int:
        self.length += characters
        return self.length

    def take(self, position: int) -> None:
        self.taken = min(position, self.length)

    def check(self) -> None:
        self.checked = self.taken

    def clear(self, position: int) -> None:
        self.cleared = max(self.cleared, min(position, self.checked))

    def release(self, position: int) -> None:
        self.released = max(self.released, position)


@dataclass(frozen=True, slots=True)
class ChannelCoverage:
    """How much of a channel guards have read: `characters` of its text, 0 where it cannot be read. `taken`: with what
    the running check reads."""

    channel: Channel
    kind: Kind
    unreadable: bool
    characters: int
    taken: int


@dataclass(slots=True, eq=False)
class ChannelText:
    """One channel. Of the text itself it keeps what is not cleared (`fresh`, and `arrived` that no check has seen), as
    `context` a tail of what is, as it left, and as `before` what came earlier. A channel of unreadable pieces counts
    the pieces. Only its methods change it."""

    channel: Channel
    kind: Kind
    unreadable: bool
    rules: ChannelRules
    before: str = ""
    context: str = ""
    context_weight: int = 0
    fresh: str = ""
    arrived: list[str] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    grown_at: float = 0.0
    labels_released: int = 0
    _at: Positions = field(default_factory=Positions)
    _offsets: Sequence[int] | None = None

    @property
    def cleared(self) -> int:
        return self._at.cleared

    @property
    def released(self) -> int:
        return self._at.released

    @property
    def unchecked(self) -> bool:
        """Whether there is text that no check has let through."""
        return self._at.length > self._at.checked

    @property
    def being_checked(self) -> bool:
        return self._at.taken > self._at.checked

    @property
    def all_taken(self) -> bool:
        """Whether a check reads or has read all of it."""
        return self._at.length == self._at.taken

    @property
    def only_run_left(self) -> bool:
        """Whether all of it is checked, and a run at its end is all that is not cleared."""
        return self._at.cleared < self._at.checked == self._at.length

    def coverage(self) -> ChannelCoverage:
        checked, taken = (0, 0) if self.unreadable else (self._at.checked, self._at.taken)
        return ChannelCoverage(self.channel, self.kind, self.unreadable, checked, taken)

    def grow(self, raw: str, now: float) -> "Piece":
        """The upstream has sent more."""
        self.arrived.append(raw)
        self.grown_at = now
        return Piece(self, raw, self._at.grow(len(raw)))

    def read(self, weight: int) -> tuple[Part, int]:
        """The part to check, with new text of at most `weight`, and what the new text weighs."""
        if self.unreadable:
            self._at.take(self._at.length)
            self.arrived.clear()
            return Part(self.channel, None, self.kind), 0
        self._join_arrived()
        known = self._at.checked - self._at.cleared
        new = first_part(self.fresh, known, weight)
        self._at.take(self._at.checked + len(new))
        text = _SURROGATE.sub("\ufffd", self.context + self.fresh[: known + len(new)])
        before, self._offsets = self.before, None
        if self.kind is Kind.TOOL_CALL and "\\" in text:
            text, self._offsets = unescaped(text)
        if self.kind is Kind.TOOL_CALL and "\\" in before:
            before, _ = unescaped(before)
        return Part(self.channel, text, self.kind, before=before), weigh(new)

    def settle(self, spans: Sequence[Span]) -> None:
        """The running check has allowed what was taken, but for `spans`.

            |-- before --|-- context --|------------ fresh ------------|-- arrived --|
                                       cleared    checked         taken              length
                         |---- what the check has read; spans count from here ----|

        Afterwards `checked` is where `taken` was, and `cleared` is there too, or at the start of the run or the mask
        that lies across it:

            ... my number is 1380013|8000        |: taken. "1380013" may go on, so cleared stops before it.
        """
        self._at.check()
        if self.unreadable:
            self._at.clear(self._at.checked)
            return
        self._join_arrived()
        self.masks = self._masks_from(spans)
        self._clear_to(self._safe_cut(self._at.checked))

    def clear_run(self) -> None:
        """The run at its end is not going to grow: it is cleared as it is."""
        self._clear_to(self._at.checked)

    def release(self, piece: "Piece") -> str:
        """The next piece leaves: its text with the masks put on."""
        self._at.release(piece.end)
        if self.unreadable:
            return ""
        start = piece.end - len(piece.raw)
        leaving = self.masked(piece.raw, start)
        self.labels_released += sum(start <= mask.start < piece.end for mask in self.masks)
        self.masks = [mask for mask in self.masks if mask.end > piece.end]
        return leaving

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

    def _join_arrived(self) -> None:
        self.fresh += "".join(self.arrived)
        self.arrived.clear()

    def _masks_from(self, spans: Sequence[Span]) -> list[Mask]:
        """The masks after a check: of the old ones what lies before `cleared`, behind it only what this check says. So
        a number that has grown is named anew."""
        cleared = self._at.cleared
        shift = cleared - len(self.context)
        label = self.rules.label
        new = [Mask(shift + self._raw(s.start), shift + self._raw(s.end), label(s.label)) for s in spans]
        new = [Mask(max(m.start, cleared), m.end, m.label) for m in new if m.end > cleared]
        kept = [Mask(m.start, min(m.end, cleared), m.label) for m in self.masks if m.start < cleared]
        return kept + merged(new)

    def _safe_cut(self, position: int) -> int:
        """The last place up to `position` where text may be cut: before a run that may go on over it, and before a mask
        that lies across that place. A name is never cut."""
        if self.kind is Kind.NAME:
            return position
        cut = self._at.cleared + run_start(self.fresh, position - self._at.cleared)
        return min((mask.start for mask in self.masks if cut - MAX_RUN < mask.start < cut < mask.end), default=cut)

    def _clear_to(self, position: int) -> None:
        cleared = self._at.cleared
        if self.unreadable or position <= cleared:
            return
        count = position - cleared
        known = self.context + self.masked(self.fresh[:count], cleared)
        self.context = self.rules.reread(known, self.rules.overlap)
        self.context_weight = weigh(self.context)
        self.before += known[: len(known) - len(self.context)]
        if len(self.before) > MAX_BEFORE:
            self.before = ""
        self.fresh = self.fresh[count:]
        self._at.clear(position)

    def _raw(self, position: int) -> int:
        return position if self._offsets is None else self._offsets[position]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event added to one channel, up to position `end`."""

    text: ChannelText
    raw: str
    end: int


def has_surrogate(text: str) -> bool:
    """Whether there is half a character in it, which no guard can read and nothing can be written with."""
    return _SURROGATE.search(text) is not None


def from_last_sentence(text: str, tokens: int) -> str:
    """What a later check reads again of a text: from the start of its last sentence on, at least a third of `tokens`
    and at most all of them."""
    longest = last_part(text, tokens)
    shortest = last_part(longest, -(-tokens // 3))
    sentence_start = max((end.end() for end in _SENTENCE_END.finditer(longest)), default=0)
    return longest[min(sentence_start, len(longest) - len(shortest)) :]


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
            label = max(last, mask, key=lambda candidate: candidate.end - candidate.start).label
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
        out.append(_unescaped_character(match))
        offsets.append(match.start())
        at = match.end()
    out.append(text[at:])
    offsets.extend(range(at, len(text) + 1))
    return "".join(out), offsets


def _unescaped_character(match: re.Match[str]) -> str:
    high, low, single, short = match.groups()
    if high:
        return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
    if single:
        return _SURROGATE.sub("\ufffd", chr(int(single, 16)))
    return _SHORT.get(short, short)
