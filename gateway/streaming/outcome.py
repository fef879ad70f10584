"""What became of a streamed answer: how it ended, what every check of it said, how much of it left."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.dialects.dialect import Channel, Event
from gateway.dialects.fields import added, dotted
from gateway.errors import GatewayError
from gateway.judging.judge import Judgement
from gateway.policy.policy import Action, Decision, worst_of
from gateway.records.record import Read
from gateway.streaming.gate import Gate
from guard_runtime.conversation import Direction, Part
from guard_runtime.verdict import Coverage, Unread, Verdict, worst

_MOST_UNREAD = 64
_MOST_FAILURES = 16


class Ended(StrEnum):
    """How a stream ended. FAILED is a bug of ours or of an upstream's; SHUT_DOWN, the server was told to stop."""

    COMPLETE = "complete"
    BLOCKED = "blocked"
    REWRITTEN = "rewritten"
    GUARD_UNAVAILABLE = "guard_unavailable"
    CLIENT_LEFT = "client_left"
    UPSTREAM_FAILED = "upstream_failed"
    TIMEOUT = "timeout"
    FAILED = "failed"
    SHUT_DOWN = "shut_down"


@dataclass(frozen=True, slots=True)
class StreamOutcome:
    """`judgement` folds all checks into one: every decision once, at its worst; one verdict per guard. It is None where
    nothing was checked. `error` was told to the caller in place of the rest of the answer, as a whole reply with its
    status unless `started`. `detail` is for the record alone.

    `released` counts the characters of the model's text that left, `cleared` those that a check let through, `judged`
    those that guards read (the overlap of windows twice; `read` says of each channel how many were), `unguarded` left
    without or before their check, 0 in hold mode. Seconds: `guard` all checks together, `hold` the longest any event
    waited, `first_event` until the upstream's first. `text` is what left, per channel, and `withheld` what the last
    check stopped, if the policy records text.
    """

    ended: Ended
    judgement: Judgement | None
    started: bool
    attempts: int
    checks: int
    released: int
    cleared: int
    judged: int
    read: tuple[Read, ...]
    unguarded: int
    masked: int
    seconds: Mapping[str, float]
    usage: Mapping[str, object]
    error: GatewayError | None = None
    detail: str = ""
    text: Mapping[Channel, str] | None = None
    withheld: tuple[Part, ...] = ()

    @property
    def rewritten(self) -> bool:
        """Whether any check changed the answer: masked it, or had the model asked again."""
        return self.judgement is not None and self.judgement.decision.action is Action.REWRITE


@dataclass(slots=True)
class Fold:
    """Any number of checks as one judgement: every decision once, at its worst; one verdict per guard."""

    checks: int = 0
    seconds: float = 0.0
    _decisions: dict[tuple[object, ...], Decision] = field(default_factory=dict)
    _verdicts: dict[str, Verdict] = field(default_factory=dict)
    _failures: dict[str, None] = field(default_factory=dict)

    def add(self, judgement: Judgement) -> None:
        self.checks += 1
        self.seconds += judgement.seconds
        for decision in judgement.decisions:
            key = (decision.action, decision.reason, decision.category, decision.guard, decision.rewrite)
            self._decisions[key] = worst_of((self._decisions.get(key, decision), decision), decision.direction)
        for verdict in judgement.verdicts:
            before = self._verdicts.get(verdict.guard, verdict)
            both = worst(verdict.guard, (before, verdict))
            coverage = verdict.coverage if before is verdict else _together(before.coverage, verdict.coverage)
            self._verdicts[verdict.guard] = Verdict(verdict.guard, both.scores, (), coverage)
        for failure in judgement.failures:
            if len(self._failures) < _MOST_FAILURES:
                self._failures[failure] = None

    @property
    def judgement(self) -> Judgement | None:
        if not self.checks:
            return None
        decisions = tuple(self._decisions.values())
        return Judgement(
            decision=worst_of(decisions, Direction.RESPONSE),
            decisions=decisions,
            verdicts=tuple(self._verdicts.values()),
            failures=tuple(self._failures),
            seconds=self.seconds,
        )


@dataclass(slots=True)
class Tally:
    """Everything counted while a stream runs; bounded however long that is (`record_text` aside)."""

    record_text: bool = False
    attempts: int = 0
    released: int = 0
    cleared: int = 0
    judged: int = 0
    read: dict[tuple[Channel, bool], Read] = field(default_factory=dict)
    unguarded: int = 0
    masked: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    usage: dict[str, object] = field(default_factory=dict)
    withheld: tuple[Part, ...] = ()
    _usage_now: Mapping[str, object] = field(default_factory=dict)
    _all: Fold = field(default_factory=Fold)
    _choices: dict[int, Fold] = field(default_factory=dict)
    _text: dict[Channel, list[str]] = field(default_factory=dict)

    def add(self, judgement: Judgement, choice: int) -> None:
        """One check's answer, about one choice."""
        self._all.add(judgement)
        self._choices.setdefault(choice, Fold()).add(judgement)
        self.seconds["guard"] = self._all.seconds

    def saw(self, event: Event, after: float) -> None:
        """An event from the upstream, so many seconds after it was asked: the last usage it gives is what the answer
        cost."""
        self.seconds.setdefault("first_event", after)
        usage = event.data.get("usage") if event.data else None
        if isinstance(usage, Mapping):
            self._usage_now = usage

    def sent(self, characters: int, texts: Mapping[Channel, str]) -> None:
        """Text has left for the caller."""
        self.released += characters
        for channel, text in texts.items() if self.record_text else ():
            self._text.setdefault(channel, []).append(text)

    def absorb(self, gate: Gate) -> None:
        """One attempt is over."""
        self.attempts += 1
        self.cleared += gate.cleared
        self.judged += gate.judged
        self.unguarded += gate.unguarded
        self.masked += gate.masked
        for text in gate.texts:
            key = (text.channel, text.unreadable)
            before = self.read[key].characters if key in self.read else 0
            how, new = ("unread", 0) if text.unreadable else ("scanned", text.checked)
            self.read[key] = Read(Direction.RESPONSE, dotted(text.channel), str(text.kind), before + new, how)
        self.seconds["hold"] = max(self.seconds.get("hold", 0.0), gate.longest_hold)
        self.usage = added(self.usage, self._usage_now)
        self._usage_now = {}

    @property
    def checks(self) -> int:
        return self._all.checks

    @property
    def judgement(self) -> Judgement | None:
        return self._all.judgement

    def of_choice(self, choice: int) -> Judgement | None:
        return self._choices.get(choice, Fold()).judgement

    @property
    def text(self) -> Mapping[Channel, str] | None:
        if not self.record_text:
            return None
        return {channel: "".join(pieces) for channel, pieces in self._text.items()}


def _together(one: Coverage, other: Coverage) -> Coverage:
    """The sum, with what was left unread named once per place and reason: a stream may have it in every event."""
    unread: dict[tuple[object, str], Unread] = {}
    for item in (*one.unread, *other.unread):
        key = (item.path, item.reason)
        if key in unread or len(unread) < _MOST_UNREAD:
            before = unread[key].characters if key in unread else 0
            unread[key] = Unread(item.path, item.reason, before + item.characters)
    total = one + other
    return Coverage(total.parts, total.characters, total.windows, total.tokens, total.cached, tuple(unread.values()))
