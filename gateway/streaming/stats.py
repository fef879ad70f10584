"""Counts a streamed answer while it runs, and merges what its checks say."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gateway.dialects.dialect import Channel, Json
from gateway.dialects.fields import added, dotted
from gateway.judging.judge import Judgement
from gateway.judging.prompt import seen_as
from gateway.policy.policy import Decision, worst_of
from gateway.records.record import Read
from gateway.records.stream_stats import StreamStats
from gateway.streaming.gate import Gate
from guard_runtime.conversation import Direction, Part
from guard_runtime.verdict import Coverage, Unread, Verdict, worst

_MOST_UNREAD = 64
_MOST_FAILURES = 16


@dataclass(slots=True)
class JudgementMerger:
    """Merges any number of checks into one judgement: every decision once, at its worst; one verdict per guard."""

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
class StreamStatsBuilder:
    """Counts while a stream runs; bounded however long that is (`record_text` aside)."""

    record_text: bool = False
    attempts: int = 0
    read: dict[tuple[Channel, bool], Read] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    usage: dict[str, object] = field(default_factory=dict)
    withheld: tuple[Part, ...] = ()
    dropped: dict[str, None] = field(default_factory=dict)
    _released: int = 0
    _attempts: StreamStats = field(default_factory=StreamStats)
    _usage_now: Mapping[str, object] = field(default_factory=dict)
    _all: JudgementMerger = field(default_factory=JudgementMerger)
    _choices: dict[int, JudgementMerger] = field(default_factory=dict)
    _text: dict[Channel, list[str]] = field(default_factory=dict)

    def add(self, judgement: Judgement, choice: int) -> None:
        """A check of one choice is over."""
        self._all.add(judgement)
        self._choices.setdefault(choice, JudgementMerger()).add(judgement)
        self.seconds["guard"] = self._all.seconds

    def saw(self, usage: Json, after: float) -> None:
        """An event from the upstream, `after` seconds after it was asked. The last usage that events give is what the
        answer cost."""
        self.seconds.setdefault("first_event", after)
        self._usage_now = {**self._usage_now, **usage}

    def sent(self, characters: int, texts: Mapping[Channel, str]) -> None:
        """Text has left for the caller."""
        self._released += characters
        for channel, text in texts.items() if self.record_text else ():
            self._text.setdefault(channel, []).append(text)

    def absorb(self, gate: Gate) -> None:
        """One attempt is over."""
        self.attempts += 1
        self._attempts += StreamStats(
            cleared=gate.cleared, unguarded=gate.unguarded, masked=gate.masked, judged=gate.judged
        )
        for channel in gate.coverage:
            key = (channel.channel, channel.unreadable)
            before = self.read[key].characters if key in self.read else 0
            seen = seen_as(None if channel.unreadable else "", channel.kind)
            characters = before + channel.characters
            self.read[key] = Read(Direction.RESPONSE, dotted(channel.channel), str(channel.kind), characters, seen)
        self.seconds["hold"] = max(self.seconds.get("hold", 0.0), gate.longest_hold)
        self.usage = added(self.usage, self._usage_now)
        self._usage_now = {}

    @property
    def stats(self) -> StreamStats:
        """All attempts that are over."""
        return replace(self._attempts, released=self._released, checks=self._all.checks)

    @property
    def judgement(self) -> Judgement | None:
        return self._all.judgement

    def of_choice(self, choice: int) -> Judgement | None:
        return self._choices.get(choice, JudgementMerger()).judgement

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
