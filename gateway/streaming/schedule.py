"""When a check of a streamed answer is due: by the text that waits, by sentence ends, by time. No I/O, no clock."""

import math

from gateway.policy.policy import StreamSettings
from gateway.streaming.token_weight import weigh, weight_of, weight_of_end

SENTENCE_ENDS = frozenset("。！？；!?\n")
LOW_RISK = 0.3
"""A check below this risk lets the window grow; at or above it the window shrinks."""
MAX_WAIT_FACTOR = 4
"""An under-full window waits `release_after`, and up to this many times that while re-reading would dominate: else a
slow answer would be read over and over, word by word."""
WORTH_READING = 1.25
"""New text is worth a check at once when it weighs this many times what would be read again with it."""
MAX_QUESTION = 96
"""Estimated tokens of the question that a guard reads again with every window, at most."""


class CheckSchedule:
    """Decides when the next check starts. `now` is in seconds, on any clock that never goes back. `reread` is what the
    cleared text weighs that the next check would read again."""

    def __init__(self, settings: StreamSettings, question: str) -> None:
        self.checks = 0
        self.first_check_passed = False
        self.input_ended = False
        self._settings = settings
        self._question_weight = weight_of_end(question, MAX_QUESTION)
        self._window = settings.first_window
        self._waiting_weight = 0
        self._waiting_since: float | None = None
        self._sentence_ended = False
        self._checking = False

    def add(self, text: str, now: float) -> None:
        """Text to check has come in; it is empty for a field that nobody can read."""
        self._waiting_weight += weigh(text)
        self._sentence_ended = self._sentence_ended or not SENTENCE_ENDS.isdisjoint(text)
        self._waiting_since = now if self._waiting_since is None else self._waiting_since

    def start(self, weight: int, *, all_taken: bool) -> None:
        """A check starts on new text of this weight; `all_taken` says whether that is all that waited."""
        self._waiting_weight -= weight
        if all_taken:
            self._waiting_since = None
        self._sentence_ended = False
        self._checking = True
        self.checks += 1

    def passed(self, risk: float) -> None:
        """The running check has let its text through."""
        self._checking = False
        self.first_check_passed = True
        self._window = self._next_window(risk)

    def end_input(self) -> None:
        """No more text will come in."""
        self.input_ended = True

    @property
    def waiting(self) -> bool:
        """Whether there is text that no check reads or has read."""
        return self._waiting_since is not None

    @property
    def settled(self) -> bool:
        """Whether all that came in has been checked."""
        return self._waiting_since is None and not self._checking

    @property
    def overfull(self) -> bool:
        """Whether more text waits for a check than may be held."""
        return self._waiting_weight >= weight_of(self._settings.max_held)

    def due(self, now: float, reread: int, *, full: bool) -> bool:
        """Whether a check should start now. `full`: no more text can come in before something was cleared."""
        if self._waiting_since is None or self._checking:
            return False
        return (
            self.input_ended
            or full
            or self._waiting_weight >= weight_of(self._window)
            or (self._sentence_ended and not self.first_check_passed)
            or now >= self._waiting_since + self._longest_wait(reread)
        )

    def deadline(self, reread: int) -> float:
        """When a check is due if nothing more comes in; infinite where none will be."""
        if self._waiting_since is None or self._checking:
            return math.inf
        return self._waiting_since + self._longest_wait(reread)

    def _longest_wait(self, reread: int) -> float:
        """Seconds that text waits for its window to fill."""
        repeated = self._question_weight + reread
        mostly_repeated = self.first_check_passed and self._waiting_weight < WORTH_READING * repeated
        return self._settings.release_after * (MAX_WAIT_FACTOR if mostly_repeated else 1)

    def _next_window(self, risk: float) -> int:
        settings = self._settings
        if self.checks == 1:
            return settings.window
        if risk >= LOW_RISK:
            return max(self._window // 2, settings.window)
        return min(self._window * 2, settings.max_window)
