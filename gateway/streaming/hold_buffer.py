"""What of a streamed answer may leave: its events in their order, held until the text in them is cleared."""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.dialects.dialect import Channel, Delta, Event
from gateway.errors import UpstreamError
from gateway.policy.policy import StreamMode, StreamSettings
from gateway.streaming.channel import ChannelRules, ChannelText, Piece, has_surrogate
from gateway.streaming.schedule import CheckSchedule

MAX_CHANNELS = 1024
REPLACEMENT = "\ufffd"
"""Stands for a field that cannot be read, so that it is counted."""

ChannelKey = tuple[Channel, bool]
"""A channel, and whether these are its unreadable pieces."""


@dataclass(frozen=True, slots=True)
class Free:
    """An event that may leave, and the texts it is to leave with; `edited` says whether they are not its own.
    `characters` counts the upstream's text in it."""

    event: Event
    texts: Mapping[Channel, str]
    edited: bool
    characters: int


@dataclass(frozen=True, slots=True)
class _Held:
    event: Event
    pieces: tuple[Piece, ...]
    since: float
    size: int


class HoldBuffer:
    """Holds events back. It reads from `schedule` how far the checks have come, and changes nothing there."""

    def __init__(self, settings: StreamSettings, rules: ChannelRules, schedule: CheckSchedule) -> None:
        self.longest_hold = 0.0
        self._settings = settings
        self._rules = rules
        self._schedule = schedule
        self._texts: dict[ChannelKey, ChannelText] = {}
        self._newest: frozenset[ChannelKey] = frozenset()
        self._held: deque[_Held] = deque()
        self._size = 0
        self._incomplete = False

    @property
    def texts(self) -> Iterable[ChannelText]:
        """Every channel so far."""
        return self._texts.values()

    @property
    def full(self) -> bool:
        """Whether nothing more should be added before something was cleared."""
        return self._size >= self._settings.max_held or self._schedule.overfull

    def add(self, event: Event, deltas: Sequence[Delta], now: float, size: int) -> list[str]:
        """Takes an event in. Returns its texts to check, an empty one for each channel that cannot be read. Raises
        `UpstreamError` for an answer with more channels than any answer has."""
        added: dict[ChannelKey, str] = {}
        for delta in deltas:
            if delta.text is None or has_surrogate(delta.text):
                added[self._key(delta, unreadable=True)] = REPLACEMENT
            if delta.text:
                key = self._key(delta, unreadable=False)
                added[key] = added.get(key, "") + delta.text
        pieces = tuple(self._texts[key].grow(raw, now) for key, raw in added.items())
        if added:
            self._newest = frozenset(added)
        self._held.append(_Held(event, pieces, now, size))
        self._size += size
        return ["" if unreadable else raw for (_, unreadable), raw in added.items()]

    def end_input(self, *, complete: bool) -> None:
        """Nothing more will be added. `complete`: the answer is whole."""
        self._incomplete = not complete

    def release(self, now: float) -> list[Free]:
        """The events that may leave, oldest first."""
        free = self._leaving(now)
        for key, text in self._texts.items():
            if self._blocks(key, text) and (self._stuck or now >= self._run_deadline(text)):
                text.clear_run()
        return free + self._leaving(now)

    @property
    def deadline(self) -> float:
        """When a run that other text waits for may leave; infinite where there is none."""
        times = (self._run_deadline(text) for key, text in self._texts.items() if self._blocks(key, text))
        return min(times, default=math.inf)

    def _key(self, delta: Delta, *, unreadable: bool) -> ChannelKey:
        """The key of a delta's channel, which is made where it is new."""
        key = (delta.channel, unreadable)
        if key not in self._texts:
            if len(self._texts) >= MAX_CHANNELS:
                raise UpstreamError(f"the answer has more than {MAX_CHANNELS} channels")
            self._texts[key] = ChannelText(delta.channel, delta.kind, unreadable, self._rules)
        return key

    @property
    def _stuck(self) -> bool:
        """Deadlock check: no more input can arrive, or there is no room for it, so held text must be released. Not that
        of an incomplete answer: a run at its end may be half a number."""
        return (self._schedule.input_ended or self.full) and self._schedule.settled and not self._incomplete

    def _blocks(self, key: ChannelKey, text: ChannelText) -> bool:
        """Whether all of a channel is checked and only its run is held back, with another channel's text behind it. One
        that stands alone keeps its run for as long as it takes: it may always go on."""
        return text.only_run_left and (self._stuck or key not in self._newest)

    def _run_deadline(self, text: ChannelText) -> float:
        """When a run that others wait for is let go."""
        return text.grown_at + 2 * self._settings.release_after

    def _leaving(self, now: float) -> list[Free]:
        free = []
        while self._held and self._may_leave(self._held[0]):
            free.append(self._leave(self._held.popleft(), now))
        return free

    def _may_leave(self, held: _Held) -> bool:
        if self._settings.mode is StreamMode.ASYNC:
            return bool(held.pieces) or self._schedule.settled
        if not (self._schedule.first_check_passed or self._stuck):
            return False
        return all(piece.end <= piece.text.cleared for piece in held.pieces)

    def _leave(self, held: _Held, now: float) -> Free:
        self._size -= held.size
        self.longest_hold = max(self.longest_hold, now - held.since)
        texts = {}
        edited = False
        characters = 0
        for piece in held.pieces:
            leaving = piece.text.release(piece)
            if piece.text.unreadable:
                continue
            characters += len(piece.raw)
            texts[piece.text.channel] = leaving
            edited = edited or leaving != piece.raw
        return Free(held.event, texts, edited, characters)
