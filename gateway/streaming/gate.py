"""The gate a streamed answer passes through: what is held, what must be checked, what may leave. No I/O, no clock."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.dialects.dialect import Channel, Delta, Event
from gateway.errors import UpstreamError
from gateway.policy.policy import StreamMode, StreamSettings
from gateway.streaming.channel import ChannelText, Piece, has_surrogate, weigh
from guard_runtime.conversation import Part
from guard_runtime.verdict import Span

SENTENCE_ENDS = frozenset("。！？；!?\n")
SLICE = 1024
"""Estimated tokens that one check reads at most, so that a burst costs many checks and no missed deadline."""
CALM = 0.3
"""A check below this risk lets the window grow; at or above it shrinks."""
MAX_CHANNELS = 1024
LONGEST = 4
"""A window that is not full waits for `release_after`; and while little more is new in it than would be read again with
it, for as many times that. So no answer is read over and over, word by word."""
QUESTION = 96
"""Estimated tokens of the question that a guard reads again with every window, at most."""


@dataclass(frozen=True, slots=True)
class Free:
    """An event that may leave, and the texts it is to leave with; `edited` says whether they are not its own.
    `characters` counts the upstream's text in it."""

    event: Event
    texts: Mapping[Channel, str]
    edited: bool
    characters: int


class Gate:
    """Holds events back until the text in them has been cleared.

    `push` what the upstream sends; when `due`, `take` what must be checked and `clear` it if the check allows;
    `release` gives the events that may leave, in their order. `now` is in seconds, on any clock that never goes back.
    In async mode text leaves at once and the counters tell how far the checks are behind; what adds no text (a finish
    reason, the end) waits for them, so that a block can still be said.
    """

    def __init__(
        self, settings: StreamSettings, label: Callable[[str], str] = "[redacted:{}]".format, *, question: str = ""
    ) -> None:
        self.windows = 0
        self.judged = 0
        self.masked = 0
        self.longest_hold = 0.0
        self._settings = settings
        self._label = label
        self._question = min(weigh(question[-4 * QUESTION :]), 4 * QUESTION)
        self._texts: dict[tuple[Channel, bool], ChannelText] = {}
        self._held: deque[_Held] = deque()
        self._size = 0
        self._window = settings.first_window
        self._weight = 0
        self._since: float | None = None
        self._sentence = False
        self._newest: Sequence[ChannelText] = ()
        self._reading = False
        self._opened = False
        self._ended = False
        self._torn = False

    def push(self, event: Event, deltas: Sequence[Delta], now: float, size: int = 0) -> None:
        """Takes an event in. `size` is what it weighs in bytes, for `full`. Raises `UpstreamError` for an answer that
        scatters over more channels than any answer has."""
        added: dict[ChannelText, str] = {}
        for delta in deltas:
            if delta.text is None or has_surrogate(delta.text):
                added[self._text(delta, unreadable=True)] = "\ufffd"
            if delta.text:
                text = self._text(delta, unreadable=False)
                added[text] = added.get(text, "") + delta.text
        pieces = tuple(text.grow(raw, now) for text, raw in added.items())
        for text, raw in added.items():
            self._weight += 0 if text.unreadable else weigh(raw)
            self._sentence = self._sentence or not (text.unreadable or SENTENCE_ENDS.isdisjoint(raw))
        if added:
            self._newest = tuple(added)
            self._since = now if self._since is None else self._since
        self._held.append(_Held(event, pieces, now, size))
        self._size += size

    @property
    def full(self) -> bool:
        """Whether nothing more should be pushed before something was cleared."""
        return self._size >= self._settings.max_held or self._weight >= 4 * self._settings.max_held

    @property
    def unchecked(self) -> bool:
        """Whether there is text that no check reads or has read."""
        return self._since is not None

    @property
    def settled(self) -> bool:
        """Whether all that came in has been checked."""
        return self._since is None and not self._reading

    @property
    def released(self) -> int:
        """Characters of the upstream's text that have left."""
        return sum(text.released for text in self._texts.values() if not text.unreadable)

    @property
    def texts(self) -> Iterable[ChannelText]:
        """Every channel so far."""
        return self._texts.values()

    @property
    def cleared(self) -> int:
        """Characters that a check has cleared."""
        return sum(text.cleared for text in self._texts.values() if not text.unreadable)

    @property
    def unguarded(self) -> int:
        """Characters that have left uncleared: always 0 in hold mode."""
        return sum(max(0, text.released - text.cleared) for text in self._texts.values())

    def due(self, now: float) -> bool:
        """Whether a check should start now."""
        if self._since is None or self._reading:
            return False
        return (
            self._ended
            or self.full
            or self._weight >= 4 * self._window
            or (self._sentence and not self._opened)
            or now >= self._since + self._wait
        )

    @property
    def deadline(self) -> float:
        """When to look again at the latest, if nothing comes in until then; infinite where nothing waits."""
        times = [self._patience(text) for text in self._texts.values() if self._blocks(text)]
        if self._since is not None and not self._reading:
            times.append(self._since + self._wait)
        return min(times, default=math.inf)

    def take(self) -> tuple[Part, ...]:
        """What a check must read: for every channel with unchecked text, the tail of what was cleared and the new
        text. A part's path is its channel. To be followed by `clear`, or by nothing ever again."""
        budget = 4 * SLICE
        parts = []
        for text in self._texts.values():
            if text.length > text.checked and budget > 0:
                part, weight = text.read(budget)
                self._weight -= weight
                budget -= weight
                self.judged += len(part.text or "")
                parts.append(part)
        if all(text.length == text.taken for text in self._texts.values()):
            self._since = None
        self._sentence = False
        self._reading = True
        self.windows += 1
        return tuple(parts)

    def clear(self, spans: Sequence[Span] = (), *, risk: float = 0.0) -> None:
        """The check has allowed what `take` gave it, but for `spans`, which are to be masked.

        A trailing run of characters that a number, an address or a key is spelt with is not cleared yet: it may be
        the first part of one, and a mask must find it whole.
        """
        for text in self._texts.values():
            if text.taken > text.checked:
                text.settle([span for span in spans if span.path == text.channel], self._settings.overlap)
        self._reading = False
        self._opened = True
        self._window = self._next_window(risk)

    def end(self, *, torn: bool) -> None:
        """Nothing more will be pushed: no run can grow any longer. `torn`: the answer is not complete, so a run at its
        end may be half a number, and never leaves."""
        self._ended = True
        self._torn = torn

    def release(self, now: float) -> list[Free]:
        """The events that may leave, oldest first. What adds no text waits for the first check with the rest, so that
        until then everything can still be answered differently."""
        free = self._leaving(now)
        for text in self._texts.values():
            if self._blocks(text) and (self._stuck or now >= self._patience(text)):
                text.clear_to(text.checked, self._settings.overlap)
        return free + self._leaving(now)

    def _leaving(self, now: float) -> list[Free]:
        free = []
        while self._held and self._may_leave(self._held[0]):
            free.append(self._leave(self._held.popleft(), now))
        return free

    def _text(self, delta: Delta, *, unreadable: bool) -> ChannelText:
        key = (delta.channel, unreadable)
        if key not in self._texts:
            if len(self._texts) >= MAX_CHANNELS:
                raise UpstreamError(f"the answer has more than {MAX_CHANNELS} channels")
            self._texts[key] = ChannelText(delta.channel, delta.kind, unreadable, self._label)
        return self._texts[key]

    @property
    def _wait(self) -> float:
        """Seconds that text waits for its window to fill."""
        again = self._question + sum(weigh(t.context) for t in self._texts.values() if t.length > t.checked)
        little = self._opened and 4 * self._weight < 5 * again
        return self._settings.release_after * (LONGEST if little else 1)

    @property
    def _stuck(self) -> bool:
        """Whether nothing but letting go can move anything: there is no more to come, or no room for it."""
        return (self._ended or self.full) and self.settled and not self._torn

    def _blocks(self, text: ChannelText) -> bool:
        """Whether all of a channel is checked and only its run is held back, with another channel's text behind it. One
        that stands alone keeps its run for as long as it takes: it may always go on."""
        return text.cleared < text.checked == text.length and (self._stuck or text not in self._newest)

    def _patience(self, text: ChannelText) -> float:
        """When a run that others wait for is let go."""
        return text.grown + 2 * self._settings.release_after

    def _next_window(self, risk: float) -> int:
        settings = self._settings
        if self.windows == 1:
            return settings.window
        if risk >= CALM:
            return max(self._window // 2, settings.window)
        return min(self._window * 2, settings.max_window)

    def _may_leave(self, held: "_Held") -> bool:
        if self._settings.mode is StreamMode.ASYNC:
            return bool(held.pieces) or self.settled
        if not (self._opened or self._stuck):
            return False
        return all(piece.end <= piece.text.cleared for piece in held.pieces)

    def _leave(self, held: "_Held", now: float) -> Free:
        self._size -= held.size
        self.longest_hold = max(self.longest_hold, now - held.since)
        texts = {}
        edited = False
        characters = 0
        for piece in held.pieces:
            text, start = piece.text, piece.end - len(piece.raw)
            text.released = piece.end
            if text.unreadable:
                continue
            characters += len(piece.raw)
            texts[text.channel] = text.masked(piece.raw, start)
            edited = edited or texts[text.channel] != piece.raw
            self.masked += sum(start <= mask.start < piece.end for mask in text.masks)
            text.masks = [mask for mask in text.masks if mask.end > piece.end]
        return Free(held.event, texts, edited, characters)


@dataclass(frozen=True, slots=True)
class _Held:
    event: Event
    pieces: tuple[Piece, ...]
    since: float
    size: int
