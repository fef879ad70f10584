"""What a guard saw, and what it did not look at. Never what to do about it: see gateway.policy."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from guard_runtime.conversation import Path, Source
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
    """How much a guard read: parts, characters, windows, tokens; how many verdicts the cache gave; how many windows a
    first stage cleared, which no model read; what was left."""

    parts: int = 0
    characters: int = 0
    windows: int = 0
    tokens: int = 0
    cached: int = 0
    unread: tuple[Unread, ...] = ()
    cleared: int = 0

    def __add__(self, other: "Coverage") -> "Coverage":
        return Coverage(
            self.parts + other.parts,
            self.characters + other.characters,
            self.windows + other.windows,
            self.tokens + other.tokens,
            self.cached + other.cached,
            (*self.unread, *other.unread),
            self.cleared + other.cleared,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """The window that gave a score: characters [start, end) of the part at `path`, () where parts were read joined.
    `raw` is the score of that window alone, `correction` what was taken off its logit because many were read."""

    path: Path
    start: int
    end: int
    raw: float
    correction: float = 0.0


@dataclass(frozen=True, slots=True)
class SourceScores:
    """The scores of the text of one source, the window each of them comes from, and how many windows were read."""

    source: Source
    scores: Mapping[Category, float]
    places: Mapping[Category, Place] = field(default_factory=dict)
    windows: int = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """Calibrated risk per category, 0 (harmless) to 1 (harmful), from one guard. `sources` has the same by source,
    where the guard tells them apart; `scores` is then the worst of them.

    Raises `InvalidVerdict` unless there is a finite score in [0, 1] for every category: `nan >= threshold` is False, so
    a verdict that is not complete would read as "harmless".
    """

    guard: str
    scores: Mapping[Category, float]
    spans: tuple[Span, ...] = ()
    coverage: Coverage = field(default_factory=Coverage)
    sources: tuple[SourceScores, ...] = ()

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


def by_source(verdicts: Iterable[Verdict]) -> tuple[SourceScores, ...]:
    """The readings of each source together: the highest score of each category, where it was read, all windows."""
    merged: dict[Source, SourceScores] = {}
    for read in (read for verdict in verdicts for read in verdict.sources):
        known = merged.get(read.source)
        merged[read.source] = read if known is None else _worse(known, read)
    return tuple(merged.values())


def _worse(one: SourceScores, other: SourceScores) -> SourceScores:
    higher = {c: one if one.scores[c] >= other.scores[c] else other for c in CATEGORIES}
    return SourceScores(
        one.source,
        {category: read.scores[category] for category, read in higher.items()},
        {category: read.places[category] for category, read in higher.items() if category in read.places},
        one.windows + other.windows,
    )


def corrected(read: SourceScores, penalty: float) -> SourceScores:
    """The scores with `penalty` times the logarithm of the number of windows taken off their logits: of many harmless
    windows the worst looks worse, the more there are, and this is by how much."""
    correction = penalty * math.log(read.windows) if read.windows > 1 else 0.0
    if correction == 0:
        return read
    return SourceScores(
        read.source,
        {category: _shifted(score, correction) for category, score in read.scores.items()},
        {category: replace(place, correction=correction) for category, place in read.places.items()},
        read.windows,
    )


def _shifted(score: float, correction: float) -> float:
    """The probability whose logit is `correction` lower. 0 and 1 stay: they are told, not measured."""
    if score <= 0 or score >= 1:
        return score
    odds = score / (1 - score) * math.exp(-correction)
    return odds / (1 + odds)


def worst(guard: str, verdicts: Iterable[Verdict]) -> Verdict:
    """One verdict for several readings of the same conversation: the highest score of each category, all spans, the
    coverage of all. No readings means nothing was found to read: every score is 0."""
    readings = tuple(verdicts)
    coverage = Coverage()
    for reading in readings:
        coverage += reading.coverage
    scores = {c: max((reading.scores[c] for reading in readings), default=0.0) for c in CATEGORIES}
    spans = tuple(span for reading in readings for span in reading.spans)
    return Verdict(guard, scores, spans, coverage, by_source(readings))
