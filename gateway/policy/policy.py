"""From what a guard saw to what the gateway does. Pure: no I/O, no clock."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from guard_runtime.conversation import Direction
from guard_runtime.guard import OperatingPoints
from guard_runtime.verdict import Category, Verdict


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


@dataclass(frozen=True, slots=True)
class Rule:
    """`at` is a score in [0, 1], or the name of a guard's own operating point ("balanced", "strict").
    `place` is where it was written: policies/shop.yaml:14."""

    at: float | str
    action: Action
    rewrite: Rewrite = Rewrite.SAFE_MESSAGE
    place: str = ""

    def threshold(self, points: OperatingPoints, direction: Direction, category: Category) -> float:
        """The score this rule fires at. A guard without the named point is measured at 0.5."""
        if isinstance(self.at, str):
            return points.get(self.at, {}).get(direction, {}).get(category, 0.5)
        return self.at


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


class Trusted(StrEnum):
    """What the tenant itself wrote, and a policy may let pass unread: its system prompt, its tools and schemas."""

    SYSTEM = "system"
    TOOLS = "tools"


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
    trust: frozenset[Trusted] = frozenset()
    stream: StreamSettings = field(default_factory=StreamSettings)

    def toward(self, direction: Direction) -> DirectionPolicy:
        return self.prompt if direction is Direction.PROMPT else self.response


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gateway does and why. `reason` alone may reach a caller; the rest is for the record."""

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
    policy: DirectionPolicy, verdict: Verdict, points: OperatingPoints, direction: Direction
) -> tuple[Decision, ...]:
    """What one guard's verdict means under one policy: for each category the most severe rule that fires."""
    return tuple(
        decision
        for category, rules in policy.rules.items()
        if (decision := _fired(rules, category, verdict, (points, direction))) is not None
    )


def _fired(
    rules: tuple[Rule, ...], category: Category, verdict: Verdict, where: tuple[OperatingPoints, Direction]
) -> Decision | None:
    points, direction = where
    score = verdict.scores[category]
    best: Decision | None = None
    for rule in rules:
        threshold = rule.threshold(points, direction, category)
        if score < threshold or (best is not None and best.action >= rule.action):
            continue
        best = Decision(
            action=rule.action,
            reason=Reason.RULE,
            direction=direction,
            category=category,
            score=score,
            threshold=threshold,
            rewrite=rule.rewrite if rule.action is Action.REWRITE else None,
            guard=verdict.guard,
            place=rule.place,
        )
    return best
