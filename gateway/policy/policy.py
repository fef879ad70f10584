"""From what a guard saw to what the gateway does. Pure: no I/O, no clock."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from gateway.policy.sources import BALANCED, Sources, Treatment
from guard_runtime.conversation import Direction, Source
from guard_runtime.guard import BALANCED as BALANCED_POINT
from guard_runtime.guard import PERMISSIVE, OperatingPoints
from guard_runtime.verdict import Category, Place, Verdict

OWN_TEXT = {
    Source.SYSTEM: "the leading system prompt decided: sources.system in the policy says what it is judged for",
    Source.TOOL_DEFINITION: "a tool definition decided: sources.tools in the policy says what they are judged for",
}
"""Text that the tenant wrote itself, and where a policy says what it is judged for."""


class Action(IntEnum):
    """Ordered by severity, so that the worst rule wins by `max`."""

    ALLOW = 0
    LOG = 1
    REWRITE = 2
    BLOCK = 3


class Rewrite(StrEnum):
    """MASK replaces the spans a guard marked; SAFE_MESSAGE answers in the model's place; REGENERATE asks it again."""

    MASK = "mask"
    SAFE_MESSAGE = "safe_message"
    REGENERATE = "regenerate"


class Reason(StrEnum):
    """Why a decision was taken. Safe to show: it says nothing of scores or thresholds."""

    NO_RULE = "no_rule_fired"
    RULE = "rule"
    GUARD_FAILURE = "guard_failure"
    UNREADABLE = "unreadable"
    SEALED = "sealed"


@dataclass(frozen=True, slots=True)
class Rule:
    """`at` is a score in [0, 1], or the name of a guard's own operating point ("permissive", "balanced", "strict").
    `place` is where it was written: policies/shop.yaml:14."""

    at: float | str
    action: Action
    rewrite: Rewrite = Rewrite.SAFE_MESSAGE
    place: str = ""

    def threshold(self, points: OperatingPoints, direction: Direction, category: Category) -> float:
        """The score this rule fires at: a named point is the guard's own."""
        if isinstance(self.at, str):
            return point(points, self.at, direction, category)
        return self.at


def point(points: OperatingPoints, name: str, direction: Direction, category: Category) -> float:
    """A guard's threshold at one of its operating points. Without that point it is 0.5, and for `permissive` halfway
    from its `balanced` threshold to 1."""
    known = points.get(name, {}).get(direction, {}).get(category)
    if known is not None:
        return known
    return (1 + point(points, BALANCED_POINT, direction, category)) / 2 if name == PERMISSIVE else 0.5


class StreamMode(StrEnum):
    HOLD = "hold"
    ASYNC = "async"


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """Window sizes in estimated tokens (a Han character, or four other characters), times in seconds."""

    mode: StreamMode = StreamMode.HOLD
    first_window: int = 20
    window: int = 32
    max_window: int = 128
    overlap: int = 48
    release_after: float = 0.3
    max_held: int = 262_144
    idle_timeout: float = 60.0
    timeout: float = 600.0


@dataclass(frozen=True, slots=True)
class DirectionPolicy:
    rules: Mapping[Category, tuple[Rule, ...]] = field(default_factory=dict)
    on_guard_failure: Action = Action.BLOCK
    on_unreadable: Action = Action.BLOCK
    on_sealed: Action = Action.LOG


class OnBlock(StrEnum):
    """What a caller gets for a blocked prompt: a 400, or a 200 whose message is a refusal."""

    ERROR = "error"
    COMPLETION = "completion"


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    hash: str
    prompt: DirectionPolicy = field(default_factory=DirectionPolicy)
    response: DirectionPolicy = field(default_factory=DirectionPolicy)
    on_block: OnBlock = OnBlock.ERROR
    refusal: Mapping[str, str] = field(default_factory=dict)
    regenerate_instruction: Mapping[str, str] = field(default_factory=dict)
    max_regenerations: int = 1
    record_text: bool = False
    expose_scores: bool = False
    annotations: bool = False
    drop_unknown: bool = True
    passed_fields: frozenset[str] = frozenset()
    sources: Sources = BALANCED
    stream: StreamSettings = field(default_factory=StreamSettings)

    def toward(self, direction: Direction) -> DirectionPolicy:
        return self.prompt if direction is Direction.PROMPT else self.response


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gateway does and why. `reason` alone may reach a caller; the rest is for the record. `place` is where
    the rule was written, `window` where in the text of `source` the score was read, for guards that say so."""

    action: Action
    reason: Reason
    direction: Direction
    category: Category | None = None
    score: float | None = None
    threshold: float | None = None
    rewrite: Rewrite | None = None
    guard: str | None = None
    place: str = ""
    detail: str = ""
    source: Source | None = None
    window: Place | None = None

    @property
    def margin(self) -> float | None:
        """How far the score is over the threshold."""
        if self.score is None or self.threshold is None:
            return None
        return self.score - self.threshold

    @property
    def severity(self) -> tuple[int, float]:
        """The worst action first; the higher score breaks a tie."""
        return self.action, -1.0 if self.score is None else self.score


def allowed(direction: Direction) -> Decision:
    return Decision(Action.ALLOW, Reason.NO_RULE, direction)


def worst_of(decisions: Iterable[Decision], direction: Direction) -> Decision:
    return max(decisions, key=lambda decision: decision.severity, default=allowed(direction))


def decide(
    policy: DirectionPolicy,
    verdict: Verdict,
    points: OperatingPoints,
    direction: Direction,
    sources: Sources = BALANCED,
) -> tuple[Decision, ...]:
    """What one guard's verdict means under one policy: for each category the most severe rule that fires, on the text
    of whichever source. `sources` says what the text of each source is judged for."""
    read = tuple(readings(verdict, sources, direction))
    return tuple(
        worst_of(fired, direction)
        for category, rules in policy.rules.items()
        if (fired := [d for r in read for d in _fired(rules, category, r, points)])
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """The scores of one source's text, and what it is judged for. `source` is None where a guard does not tell the
    sources apart: then all of it is judged as what the user says."""

    verdict: Verdict
    direction: Direction
    scores: Mapping[Category, float]
    treatment: Treatment = Treatment.ALL
    source: Source | None = None
    windows: Mapping[Category, Place] = field(default_factory=dict)

    def threshold(self, rule: Rule, points: OperatingPoints, category: Category) -> float | None:
        """The score at which `rule` fires on this text; None where the category is not judged in it."""
        attack = category is Category.PROMPT_ATTACK
        match self.treatment:
            case Treatment.TRUST:
                return None
            case Treatment.GRAVE if attack:
                return None
            case Treatment.ATTACKS if attack:
                return rule.threshold(points, self.direction, category)
            case Treatment.GRAVE | Treatment.ATTACKS if isinstance(rule.at, str):
                return point(points, PERMISSIVE, self.direction, category)
            case Treatment.ALL | Treatment.GRAVE | Treatment.ATTACKS:
                return rule.threshold(points, self.direction, category)


def readings(verdict: Verdict, sources: Sources, direction: Direction) -> Iterable[Reading]:
    """A verdict as a policy reads it: the text of each source, judged for what the policy says."""
    if not verdict.sources:
        yield Reading(verdict, direction, verdict.scores)
    for read in verdict.sources:
        treatment = Treatment.ALL if direction is Direction.RESPONSE else sources.treatment(read.source)
        yield Reading(verdict, direction, read.scores, treatment, read.source, read.places)


def _fired(
    rules: tuple[Rule, ...], category: Category, reading: Reading, points: OperatingPoints
) -> Iterable[Decision]:
    """The most severe rule that fires on this text, or nothing."""
    score = reading.scores[category]
    best: Decision | None = None
    for rule in rules:
        threshold = reading.threshold(rule, points, category)
        if threshold is None or score < threshold or (best is not None and best.action >= rule.action):
            continue
        best = Decision(
            action=rule.action,
            reason=Reason.RULE,
            direction=reading.direction,
            category=category,
            score=score,
            threshold=threshold,
            rewrite=rule.rewrite if rule.action is Action.REWRITE else None,
            guard=reading.verdict.guard,
            place=rule.place,
            detail=OWN_TEXT.get(reading.source, "") if reading.source is not None else "",
            source=reading.source,
            window=reading.windows.get(category),
        )
    if best is not None:
        yield best
