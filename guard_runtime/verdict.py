"""What a guard saw, and what it did not look at. Never what to do about it: see gateway.policy."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from guard_runtime.conversation import Path
from guard_runtime.errors import InvalidVerdict


class Category(StrEnum):
    """The seven harm scenarios of Libra-Test, and attacks on the model itself."""

    ILLEGAL_ACTIVITIES_AND_CRIME = "illegal_activities_and_crime"
    BIAS_AND_DISCRIMINATION = "bias_and_discrimination"
    PRIVACY_AND_PROPERTY = "privacy_and_property"
    RUMORS_AND_MISINFORMATION = "rumors_and_misinformation"
    HATE_SPEECH_AND_ABUSE = "hate_speech_and_abuse"
    ETHICS_AND_MORALITY = "ethics_and_morality"
    PHYSICAL_AND_MENTAL_HEALTH = "physical_and_mental_health"
    PROMPT_ATTACK = "prompt_attack"


CATEGORIES: tuple[Category, ...] = tuple(Category)


@dataclass(frozen=True, slots=True)
class Span:
    """Where in a part something was found: characters [start, end) of the part at `path`. `label` names what it is
    ("cn_resident_id", "email"), never what it says."""

    path: Path
    start: int
    end: int
    category: Category
    label: str


class UnreadReason(StrEnum):
    """Why a guard did not read a piece. MEDIA is any part without text: a picture, or a field that no dialect knows."""

    MEDIA = "media"
    TOO_LONG = "too_long"
    UNKNOWN_TOKENS = "unknown_tokens"


@dataclass(frozen=True, slots=True)
class Unread:
    """A piece that was not read, and why."""

    path: Path
    reason: UnreadReason
    characters: int = 0


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much a guard read: parts, characters, windows, tokens; how many verdicts the cache gave; what was left."""

    parts: int = 0
    characters: int = 0
    windows: int = 0
    tokens: int = 0
    cached: int = 0
    unread: tuple[Unread, ...] = ()

    def __add__(self, other: "Coverage") -> "Coverage":
        return Coverage(
            self.parts + other.parts,
            self.characters + other.characters,
            self.windows + other.windows,
            self.tokens + other.tokens,
            self.cached + other.cached,
            (*self.unread, *other.unread),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Calibrated risk per category, 0 (harmless) to 1 (harmful), from one guard.

    Raises `InvalidVerdict` unless there is a finite score in [0, 1] for every category: `nan >= threshold` is False, so
    a verdict that is not complete would read as "harmless".
    """

    guard: str
    scores: Mapping[Category, float]
    spans: tuple[Span, ...] = ()
    coverage: Coverage = field(default_factory=Coverage)

    def __post_init__(self) -> None:
        missing = [category for category in CATEGORIES if category not in self.scores]
        if missing:
            raise InvalidVerdict(f"guard {self.guard}: no score for {', '.join(missing)}")
        for category, score in self.scores.items():
            if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
                raise InvalidVerdict(f"guard {self.guard}: the score for {category} is not a finite number")
            if not 0 <= score <= 1:
                raise InvalidVerdict(f"guard {self.guard}: the score for {category} is outside 0..1")

    @property
    def risk(self) -> float:
        """The highest score."""
        return max(self.scores.values())


def worst(guard: str, verdicts: Iterable[Verdict]) -> Verdict:
    """One verdict for several readings of the same conversation: the highest score of each category, all spans, the
    coverage of all. No readings means nothing was found to read: every score is 0."""
    readings = tuple(verdicts)
    coverage = Coverage()
    for reading in readings:
        coverage += reading.coverage
    scores = {c: max((reading.scores[c] for reading in readings), default=0.0) for c in CATEGORIES}
    return Verdict(guard, scores, tuple(span for reading in readings for span in reading.spans), coverage)
