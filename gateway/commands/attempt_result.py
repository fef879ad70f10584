"""What `libragate try` found: each score beside its rule and threshold, where it was read, what a stream would do."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.commands.terminal import Exit
from gateway.judging.judge import Judge, Judgement
from gateway.judging.prompt import Seen
from gateway.judging.remedy import Mask, Pass, remedy
from gateway.policy.policy import Action, Decision, Reading, Reason, Rule, readings
from gateway.policy.sources import Treatment
from gateway.records.record import Read
from gateway.streaming.replay import Replay, StreamCheck
from gateway.tenants.tenants import Tenant
from guard_runtime.conversation import Conversation, Source
from guard_runtime.guard import Guard
from guard_runtime.verdict import CATEGORIES, Category, Place

MOST_HIGHEST = 2


@dataclass(frozen=True, slots=True)
class Line:
    """One guard's score for one category in the text of one source, beside the rule that fired, or that would have
    fired first, at the threshold for that source. `source` is None where a guard does not tell them apart."""

    guard: str
    category: Category
    score: float
    threshold: float
    rule: Rule
    source: Source | None = None
    place: Place | None = None

    @property
    def fired(self) -> bool:
        return self.score >= self.threshold

    @property
    def margin(self) -> float:
        return self.score - self.threshold

    @property
    def does(self) -> str:
        return f"rewrite ({self.rule.rewrite})" if self.rule.action is Action.REWRITE else self.rule.action.name.lower()


@dataclass(frozen=True, slots=True)
class SourceLine:
    """What one guard read of one source: what for, in how many windows, and its highest scores."""

    guard: str
    source: Source
    treatment: Treatment
    windows: int
    highest: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """A judgement, of what, and under whose policy."""

    tenant: Tenant
    judge: Judge
    judgement: Judgement
    conversation: Conversation = field(repr=False)

    @property
    def decision(self) -> Decision:
        return self.judgement.decision

    @property
    def lines(self) -> tuple[Line, ...]:
        guards = {guard.name: guard for guard in self.judge.guards}
        return tuple(
            line
            for verdict in self.judgement.verdicts
            for reading in readings(verdict, self.tenant.policy.sources, self.conversation.direction)
            for line in self._of_reading(guards[verdict.guard], reading)
        )

    @property
    def sources(self) -> Iterator[SourceLine]:
        lines = self.lines
        for verdict in self.judgement.verdicts:
            if not verdict.sources:
                continue
            read = readings(verdict, self.tenant.policy.sources, self.conversation.direction)
            for scores, reading in zip(verdict.sources, read, strict=True):
                own = [line for line in lines if (line.guard, line.source) == (verdict.guard, scores.source)]
                highest = sorted((line for line in own if line.score > 0), key=lambda line: -line.score)[:MOST_HIGHEST]
                yield SourceLine(verdict.guard, scores.source, reading.treatment, scores.windows, tuple(highest))

    @property
    def nearest(self) -> Line | None:
        """The score that was highest over its threshold, or came nearest to it."""
        lines = self.lines
        return max([line for line in lines if line.score > 0] or lines, key=lambda line: line.margin, default=None)

    def window_text(self, place: Place) -> str | None:
        """What the guard read there; None where it read several parts joined."""
        shown = self.judge.as_read(self.conversation, self.judgement)
        texts = (part.text for part in shown.judged if part.path == place.path and part.text)
        return next((text[place.start : place.end] for text in texts), None)

    def _of_reading(self, guard: Guard, reading: Reading) -> Iterator[Line]:
        for category in CATEGORIES:
            rules = self.tenant.policy.toward(self.conversation.direction).rules.get(category, ())
            thresholds = [(reading.threshold(rule, guard.operating_points, category), rule) for rule in rules]
            placed = [(threshold, rule) for threshold, rule in thresholds if threshold is not None]
            if placed:
                score = reading.scores[category]
                threshold, rule = _that_matters(placed, score)
                place = reading.windows.get(category)
                yield Line(guard.name, category, score, threshold, rule, reading.source, place)


def _that_matters(placed: list[tuple[float, Rule]], score: float) -> tuple[float, Rule]:
    fired = [(threshold, rule) for threshold, rule in placed if score >= threshold]
    if fired:
        return max(fired, key=lambda pair: pair[1].action)
    return min(placed, key=lambda pair: pair[0])


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer replayed as a stream, in pieces of `chunk` characters, beside the same answer judged whole."""

    chunk: int
    replay: Replay
    whole: Judged

    @property
    def checks(self) -> Iterator[tuple[StreamCheck, Judged]]:
        for check in self.replay.checks:
            yield check, Judged(self.whole.tenant, self.whole.judge, check.judgement, check.conversation)

    @property
    def agrees(self) -> bool:
        """Whether both stop the answer, or neither does."""
        return (self.replay.stopped is not None) == stops(self.whole)


def stops(judged: Judged) -> bool:
    """Whether an answer that is judged so does not go out as it is, or masked."""
    return not isinstance(remedy(judged.judgement, judged.conversation.judged), Pass | Mask)


@dataclass(frozen=True, slots=True)
class Result:
    """`read`: what became of each part of a request; `request`: whether a whole one was given."""

    judged: Judged
    request: bool = False
    read: tuple[Read, ...] = ()
    streamed: Streamed | None = None

    @property
    def left_out(self) -> tuple[Read, ...]:
        return tuple(read for read in self.read if read.seen is not Seen.SCANNED)

    @property
    def exit(self) -> Exit:
        """The worse of the stream and the whole answer."""
        checks = self.streamed.replay.checks if self.streamed is not None else ()
        codes = {_exit(judgement) for judgement in (self.judged.judgement, *(check.judgement for check in checks))}
        return next(code for code in (Exit.FOUND, Exit.COULD_NOT_LOOK, Exit.FINE) if code in codes)


def _exit(judgement: Judgement) -> Exit:
    """A guard's failure counts unless another guard found something all the same."""
    decision = judgement.decision
    if decision.reason is Reason.GUARD_FAILURE or (judgement.failures and decision.action < Action.REWRITE):
        return Exit.COULD_NOT_LOOK
    return Exit.FOUND if decision.action >= Action.REWRITE else Exit.FINE
