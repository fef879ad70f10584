"""The gate a streamed answer passes through: it joins when a check is due with what may leave. No I/O, no clock."""

from collections.abc import Callable, Iterable, Sequence

from gateway.dialects.dialect import Delta, Event
from gateway.policy.policy import StreamSettings
from gateway.streaming.channel import ChannelCoverage, ChannelRules, ChannelText, Reread, from_last_sentence
from gateway.streaming.hold_buffer import Free, HoldBuffer
from gateway.streaming.schedule import CheckSchedule
from gateway.streaming.token_weight import weight_of
from guard_runtime.conversation import Part
from guard_runtime.verdict import Span

MAX_CHECK = 1024
"""Estimated tokens that one check reads at most, so that a burst costs many checks and no missed deadline."""


class Gate:
    """Holds events back until the text in them has been cleared.

    `push` what the upstream sends; when `due`, `take` what must be checked and `clear` it if the check allows;
    `release` gives the events that may leave, in their order. `now` is in seconds, on any clock that never goes back.
    In async mode text leaves at once and the counters tell how far the checks are behind; what adds no text (a finish
    reason, the end) waits for them, so that the answer can still be blocked. `reread` says which end of the cleared
    text a later check reads again.
    """

    def __init__(
        self,
        settings: StreamSettings,
        label: Callable[[str], str] = "[redacted:{}]".format,
        *,
        question: str = "",
        reread: Reread = from_last_sentence,
    ) -> None:
        self.judged = 0
        self._schedule = CheckSchedule(settings, question)
        self._buffer = HoldBuffer(settings, ChannelRules(label, settings.overlap, reread), self._schedule)

    def push(self, event: Event, deltas: Sequence[Delta], now: float, size: int = 0) -> None:
        """Takes an event in. `size` is its length in bytes, for `full`. Raises `UpstreamError` for an answer with more
        channels than any answer has."""
        for text in self._buffer.add(event, deltas, now, size):
            self._schedule.add(text, now)

    @property
    def full(self) -> bool:
        """Whether nothing more should be pushed before something was cleared."""
        return self._buffer.full

    @property
    def unchecked(self) -> bool:
        """Whether there is text that no check reads or has read."""
        return self._schedule.waiting

    @property
    def settled(self) -> bool:
        """Whether all that came in has been checked."""
        return self._schedule.settled

    @property
    def windows(self) -> int:
        """Checks that were started."""
        return self._schedule.checks

    @property
    def coverage(self) -> tuple[ChannelCoverage, ...]:
        """How much of every channel guards have read."""
        return tuple(text.coverage() for text in self._texts)

    @property
    def released(self) -> int:
        """Characters of the upstream's text that have left."""
        return sum(text.released for text in self._texts if not text.unreadable)

    @property
    def cleared(self) -> int:
        """Characters that a check has cleared."""
        return sum(text.cleared for text in self._texts if not text.unreadable)

    @property
    def unguarded(self) -> int:
        """Characters that have left uncleared: always 0 in hold mode."""
        return sum(max(0, text.released - text.cleared) for text in self._texts)

    @property
    def masked(self) -> int:
        """Masks whose label has left."""
        return sum(text.labels_released for text in self._texts)

    @property
    def longest_hold(self) -> float:
        """Seconds: the longest that any event was held."""
        return self._buffer.longest_hold

    def due(self, now: float) -> bool:
        """Whether a check should start now."""
        return self._schedule.due(now, self._reread_weight, full=self._buffer.full)

    @property
    def deadline(self) -> float:
        """When to look again at the latest, if nothing comes in until then; infinite where nothing waits."""
        return min(self._schedule.deadline(self._reread_weight), self._buffer.deadline)

    def take(self) -> tuple[Part, ...]:
        """What a check must read: for every channel with unchecked text, the tail of what was cleared and the new
        text. A part's path is its channel. To be followed by `clear`, or by nothing ever again."""
        most = weight_of(MAX_CHECK)
        weight = 0
        parts = []
        for text in self._texts:
            if text.unchecked and weight < most:
                part, new_weight = text.read(most - weight)
                weight += new_weight
                self.judged += len(part.text or "")
                parts.append(part)
        self._schedule.start(weight, all_taken=all(text.all_taken for text in self._texts))
        return tuple(parts)

    def clear(self, spans: Sequence[Span] = (), *, risk: float = 0.0) -> None:
        """The check has allowed what `take` gave it, but for `spans`, which are to be masked.

        A trailing run of characters that a number, an address or a key is spelt with is not cleared yet: it may be
        the first part of one, and a mask must cover all of it.
        """
        for text in self._texts:
            if text.being_checked:
                text.settle([span for span in spans if span.path == text.channel])
        self._schedule.passed(risk)

    def end(self, *, complete: bool) -> None:
        """Nothing more will be pushed: no run can grow any longer. A run at the end of an answer that is not complete
        may be half a number, and never leaves."""
        self._schedule.end_input()
        self._buffer.end_input(complete=complete)

    def release(self, now: float) -> list[Free]:
        """The events that may leave, oldest first. What adds no text waits for the first check with the rest, so that
        until then everything can still be answered differently."""
        return self._buffer.release(now)

    @property
    def _texts(self) -> Iterable[ChannelText]:
        return self._buffer.texts

    @property
    def _reread_weight(self) -> int:
        """What the next check would read again of cleared text."""
        return sum(text.context_weight for text in self._texts if text.unchecked)


__all__ = ["MAX_CHECK", "Free", "Gate"]
