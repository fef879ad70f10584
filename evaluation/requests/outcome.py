"""What became of one request or one reply: what the gateway would have done, why, where, and what the look cost."""

from dataclasses import dataclass, field
from enum import StrEnum

from evaluation.requests.rows import RequestRow


class Effect(StrEnum):
    """What the gateway does. REWRITTEN: something else is said instead. MASKED: it passes with spans hidden.
    COULD_NOT_LOOK: a guard failed, or part of it is nothing a guard can read, whatever the policy does then."""

    BLOCKED = "blocked"
    REWRITTEN = "rewritten"
    MASKED = "masked"
    LOGGED = "logged"
    ALLOWED = "allowed"
    COULD_NOT_LOOK = "could not look"

    @property
    def stops(self) -> bool:
        """Whether the text does not get through."""
        return self in (Effect.BLOCKED, Effect.REWRITTEN)


class Target(StrEnum):
    """What was judged: a request, a reply whole, or a reply as a stream."""

    REQUEST = "request"
    REPLY = "reply"
    STREAM = "stream"


class Third(StrEnum):
    """Where in its part the window stands that decided. JOINED: in several parts read together. UNKNOWN: the guard
    does not say."""

    WHOLE = "whole"
    BEGINNING = "beginning"
    MIDDLE = "middle"
    END = "end"
    JOINED = "joined"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Window:
    """The window that decided: its place, and its text, which is content."""

    third: Third = Third.UNKNOWN
    path: str = ""
    start: int = 0
    end: int = 0
    text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Cost:
    """What looks cost: windows and tokens that models read now, windows a first stage cleared, verdicts that the cache
    gave, seconds."""

    windows: int = 0
    tokens: int = 0
    cleared: int = 0
    cached: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.windows + other.windows,
            self.tokens + other.tokens,
            self.cleared + other.cleared,
            self.cached + other.cached,
            self.seconds + other.seconds,
        )

    @property
    def ms_per_1000_tokens(self) -> float | None:
        return self.seconds * 1_000_000 / self.tokens if self.tokens else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One look at one row. `attack` is the highest score for `prompt_attack`; the fields of the decision are None where
    no rule fired. `detail` says why nobody could look."""

    row: RequestRow
    target: Target
    effect: Effect
    category: str | None = None
    score: float | None = None
    threshold: float | None = None
    guard: str | None = None
    source: str | None = None
    window: Window = Window()
    attack: float = 0.0
    cost: Cost = Cost()
    detail: str = ""


def third_of(start: int, end: int, length: int) -> Third:
    """Where characters [start, end) stand in a text of that length."""
    if end - start >= 0.9 * length:
        return Third.WHOLE
    middle = (start + end) / 2 / length
    return Third.BEGINNING if middle < 1 / 3 else Third.END if middle > 2 / 3 else Third.MIDDLE
