"""From margins to probabilities and thresholds: temperature and bias per direction and language, operating points."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from guard_runtime.language import LANGUAGES, language_of
from training.rows import CATEGORIES, Row

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Calibration = Mapping[str, Mapping[str, Mapping[str, float]]]
OperatingPoint = Mapping[str, Mapping[str, float]]

DIRECTIONS = ("prompt", "response")
STEADY = 1.0
BINS = 15
STEPS = 26


@dataclass(frozen=True, slots=True)
class Goal:
    """An operating point: thresholds no lower than `floor`, no more than `alarms` of the benign text flagged."""

    floor: float
    alarms: float


GOALS = {"balanced": Goal(floor=0.5, alarms=0.01), "strict": Goal(floor=0.25, alarms=0.03)}


def margins(scores: Floats) -> Floats:
    """Scores [rows, 8] of a guard that is not calibrated yet -> its margins of `unsafe`, [rows]."""
    chance = np.clip(scores.max(axis=1), 1e-9, 1 - 1e-9)
    found: Floats = np.log(chance) - np.log1p(-chance)
    return found


def calibrated(rows: Sequence[Row], margin: Floats) -> Calibration:
    """Temperature and bias that make sigmoid((margin - bias) / temperature) a probability, sources weighing evenly."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    weights = even_weights(rows)
    for direction in DIRECTIONS:
        for lang in LANGUAGES:
            places = [i for i, row in enumerate(rows) if (row.direction, _language(row)) == (direction, lang)]
            truth = np.array([rows[i].unsafe for i in places], bool)
            found.setdefault(direction, {})[lang] = _fit(margin[places], truth, weights[places])
    return found


def _language(row: Row) -> str:
    """The language serving takes the judged text to be in, which need not be the row's."""
    return language_of(row.prompt if row.direction == "prompt" else row.response)


def _fit(margins: Floats, truth: Flags, weights: Floats) -> dict[str, float]:
    if truth.all() or not truth.any():
        return {"temperature": 1.0, "bias": 0.0}
    model = LogisticRegression(C=STEADY * len(truth)).fit(margins[:, None], truth, sample_weight=weights)
    slope = max(float(model.coef_[0, 0]), 0.05)
    bias = -float(model.intercept_[0]) / slope
    return {"temperature": round(1 / slope, 4), "bias": round(bias, 4)}


def even_weights(rows: Sequence[Row]) -> Floats:
    """One weight a row, mean 1, so that a source counts by the square root of its size, not by its size."""
    counts: dict[tuple[str, str, str], int] = {}
    keys = [(row.source, row.lang, row.direction) for row in rows]
    for key in keys:
        counts[key] = counts.get(key, 0) + 1
    weights = np.array([counts[key] ** -0.5 for key in keys])
    even: Floats = weights / weights.mean()
    return even


def operating_points(rows: Sequence[Row], scores: Floats, benign: Sequence[bool]) -> Mapping[str, OperatingPoint]:
    """Every goal's thresholds; no threshold of `strict` is above that of `balanced`."""
    balanced, strict = (operating_point(rows, scores, benign, GOALS[name]) for name in ("balanced", "strict"))
    lower = {d: {c: min(t, balanced[d][c]) for c, t in found.items()} for d, found in strict.items()}
    return {"balanced": balanced, "strict": lower}


def operating_point(rows: Sequence[Row], scores: Floats, benign: Sequence[bool], goal: Goal) -> OperatingPoint:
    """Thresholds of each direction: all at the floor, then the category that costs least detection is raised until
    no more than `goal.alarms` of the benign rows are flagged; then pairs of categories trade. Sources count evenly, or
    the largest, which holds one kind of harm, would have every other kind given up."""
    point: dict[str, dict[str, float]] = {}
    weights = even_weights(rows)
    for direction in DIRECTIONS:
        places = [i for i, row in enumerate(rows) if row.direction == direction]
        truth = np.array([rows[i].unsafe for i in places], bool)
        calm = np.array([benign[i] for i in places], bool)
        harmful = Harmful(scores[places][truth], weights[places][truth])
        thresholds = _traded(scores[places][calm], harmful, goal, _raised(scores[places][calm], harmful, goal))
        point[direction] = {c: round(float(t), 4) for c, t in zip(CATEGORIES, thresholds, strict=True)}
    return point


@dataclass(frozen=True, slots=True)
class Harmful:
    """Harmful rows: scores [rows, 8], and how much each counts, [rows]."""

    scores: Floats
    weights: Floats

    def caught(self, thresholds: Floats) -> float:
        """The weight of the rows that these thresholds flag."""
        return float(self.weights[(self.scores >= thresholds).any(axis=1)].sum())


def _raised(calm: Floats, harmful: Harmful, goal: Goal) -> Floats:
    thresholds = np.full(len(CATEGORIES), goal.floor)
    allowed = int(goal.alarms * len(calm))
    while len(alarming := calm[(calm >= thresholds).any(axis=1)]) > allowed:
        choices = [_raise(c, thresholds, alarming, harmful) for c in range(len(CATEGORIES))]
        possible = [choice for choice in choices if choice is not None]
        if not possible:
            break
        _, category, threshold = min(possible)
        thresholds[category] = threshold
    return thresholds


def _raise(category: int, thresholds: Floats, flagged: Floats, harmful: Harmful) -> tuple[float, int, float] | None:
    """What it costs (harmful rows lost per alarm silenced) to raise one category above its lowest alarm."""
    alarms = flagged[:, category][flagged[:, category] >= thresholds[category]]
    if not len(alarms) or thresholds[category] >= 1:
        return None
    raised = thresholds.copy()
    raised[category] = min(alarms.min() + 1e-3, 1.0)
    silenced = len(flagged) - int((flagged >= raised).any(axis=1).sum())
    lost = harmful.caught(thresholds) - harmful.caught(raised)
    return (lost + 0.5) / (silenced + 0.1), category, float(raised[category])


def _traded(calm: Floats, harmful: Harmful, goal: Goal, thresholds: Floats) -> Floats:
    """One category's threshold up and another's down, for as long as that catches more with no alarm too many."""
    allowed = int(goal.alarms * len(calm))
    steps = np.linspace(goal.floor, 1.0, STEPS)
    best, caught = thresholds, harmful.caught(thresholds)
    for up, down in itertools.permutations(range(len(CATEGORIES)), 2):
        for high, low in itertools.product(steps[steps > best[up]], steps[steps < best[down]]):
            tried = best.copy()
            tried[up], tried[down] = high, low
            alarms = int((calm >= tried).any(axis=1).sum())
            if alarms <= allowed and (found := harmful.caught(tried)) > caught:
                best, caught = tried, found
    return best


def flagged(rows: Sequence[Row], scores: Floats, point: OperatingPoint) -> Flags:
    """Which rows an operating point flags."""
    limits = np.array([[point[row.direction][category] for category in CATEGORIES] for row in rows])
    found: Flags = np.asarray((scores >= limits).any(axis=1))
    return found


def calibration_error(probability: Floats, truth: Sequence[bool]) -> float:
    """Expected calibration error: mean gap between probability and share of unsafe rows, in equally wide bins."""
    unsafe = np.array(truth, float)
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    gaps = [abs(probability[bins == b].mean() - unsafe[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return float(sum(gaps))


def benign_rows(rows: Sequence[Row]) -> list[bool]:
    """Benign text: rows of a source that holds no unsafe row in that direction. Mixed ones carry label noise."""
    mixed = {(row.source, row.direction) for row in rows if row.unsafe}
    return [(row.source, row.direction) not in mixed for row in rows]
