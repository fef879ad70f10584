"""From margins to probabilities and thresholds: temperature and bias per direction and language, operating points."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from guard_runtime.guard import BALANCED, STRICT
from guard_runtime.text.language import LANGUAGES, language_of
from training.data.rows import CATEGORIES, Row

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Calibration = Mapping[str, Mapping[str, Mapping[str, float]]]
OperatingPoint = Mapping[str, Mapping[str, float]]

DIRECTIONS = ("prompt", "response")
STEADY = 1.0
BINS = 15
STEPS = 26
TIE = 1e-6
ANCHOR = "anchor"
EMPHASIS = {"syn_chat": 4.0, "beginning": 0.15, ANCHOR: 300.0}
"""Requests written by hand, in forms and situations training never saw, are the nearest to what users send; beginnings
are many, and of texts that count already (at 1 they cost a fifth of the recall of English answers on dev, for 0.05
fewer of them flagged); anchors are the few plain cases that nobody would forgive."""

MARGIN = 0.05
"""How far an anchor's score is to be from its threshold."""


@dataclass(frozen=True, slots=True)
class Goal:
    """An operating point: thresholds no lower than `floor`, no more than `alarms` of the benign text flagged."""

    floor: float
    alarms: float


GOALS = {BALANCED: Goal(floor=0.5, alarms=0.01), STRICT: Goal(floor=0.25, alarms=0.03)}


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
    balanced, strict = (operating_point(rows, scores, benign, GOALS[name]) for name in (BALANCED, STRICT))
    lower = {d: {c: min(t, balanced[d][c]) for c, t in found.items()} for d, found in strict.items()}
    return {BALANCED: balanced, STRICT: lower}


def operating_point(rows: Sequence[Row], scores: Floats, benign: Sequence[bool], goal: Goal) -> OperatingPoint:
    """Thresholds of each direction: those that catch most harm and flag fewest safe rows of mixed sources, while no
    more than `goal.alarms` of the benign rows are flagged; alarms that answers leave unused go to prompts. Sources
    count evenly, or the largest, which holds one kind of harm, would have every other kind given up."""
    point: dict[str, dict[str, float]] = {}
    truth, calm = np.array([row.unsafe for row in rows], bool), np.array(benign, bool)
    weights = even_weights(rows) * np.array([EMPHASIS.get(row.source, 1.0) for row in rows])
    anchored = np.array([row.source == ANCHOR for row in rows])[:, None]
    wary = scores + np.where(anchored, np.where(truth, -MARGIN, MARGIN)[:, None], 0.0)
    used = 0
    for direction in reversed(DIRECTIONS):
        here = np.array([row.direction == direction for row in rows])
        harmful, mixed = here & truth, here & ~truth & ~calm
        allowed = int(goal.alarms * (calm if direction == DIRECTIONS[0] else here & calm).sum()) - used
        search = Search(
            Weighted(wary[here & calm], np.ones((here & calm).sum())),
            Weighted(wary[harmful], weights[harmful]),
            Weighted(wary[mixed], weights[mixed]),
            goal.floor,
            allowed,
        )
        thresholds = search.best()
        used += int(search.calm.flagged(thresholds))
        point[direction] = {c: round(float(t), 4) for c, t in zip(CATEGORIES, thresholds, strict=True)}
    return point


@dataclass(frozen=True, slots=True)
class Weighted:
    """Rows of one kind: scores [rows, 8], and how much each counts, [rows]."""

    scores: Floats
    weights: Floats

    def flagged(self, thresholds: Floats) -> float:
        """The weight of the rows that these thresholds flag."""
        return float(self.weights[(self.scores >= thresholds).any(axis=1)].sum())

    def flagged_by(self, pair: tuple[int, int], grids: tuple[Floats, Floats], thresholds: Floats) -> Floats:
        """The weight flagged when `pair` of the categories has every threshold of its grids, [grid, grid]."""
        others = [c for c in range(len(CATEGORIES)) if c not in pair]
        free = ~(self.scores[:, others] >= thresholds[others]).any(axis=1)
        shape = (len(grids[0]) + 1, len(grids[1]) + 1)
        passed = [
            np.searchsorted(grid, self.scores[free, c], side="right") for grid, c in zip(grids, pair, strict=True)
        ]
        table = np.zeros(shape)
        np.add.at(table, tuple(passed), self.weights[free])
        missed = table.cumsum(axis=0).cumsum(axis=1)[:-1, :-1]
        flagged: Floats = self.weights.sum() - missed
        return flagged


@dataclass(frozen=True, slots=True)
class Search:
    """The search for one direction's thresholds: two at a time over all their values, from several beginnings."""

    calm: Weighted
    harmful: Weighted
    safe: Weighted
    floor: float
    allowed: int

    def best(self) -> Floats:
        """Thresholds [8]. From all shut, and from each category alone as far open as the benign rows allow."""
        shut = np.ones(len(CATEGORIES))
        starts = [shut]
        for category in range(len(CATEGORIES)):
            start = shut.copy()
            allowed = [t for t in self._grid(category) if self._alarms(_with(shut, category, t)) <= self.allowed]
            start[category] = min(allowed, default=1.0)
            starts.append(start)
        return max((self._climbed(start) for start in starts), key=self._worth)

    def _alarms(self, thresholds: Floats) -> float:
        return self.calm.flagged(thresholds)

    def _worth(self, thresholds: Floats) -> float:
        return self.harmful.flagged(thresholds) - self.safe.flagged(thresholds) - TIE * self._alarms(thresholds)

    def _grid(self, category: int) -> Floats:
        """Even steps, and just above each benign score."""
        above = self.calm.scores[:, category] + 1e-3
        steps = np.concatenate([np.linspace(self.floor, 1.0, STEPS), above])
        return np.unique(np.clip(steps, self.floor, 1.0))

    def _climbed(self, thresholds: Floats) -> Floats:
        grids = [self._grid(category) for category in range(len(CATEGORIES))]
        worth, before = self._worth(thresholds), -np.inf
        while worth > before + TIE:
            before = worth
            for pair in itertools.combinations(range(len(CATEGORIES)), 2):
                chosen = (grids[pair[0]], grids[pair[1]])
                alarms = self.calm.flagged_by(pair, chosen, thresholds)
                gains = self.harmful.flagged_by(pair, chosen, thresholds)
                values = gains - self.safe.flagged_by(pair, chosen, thresholds) - TIE * alarms
                values[alarms > self.allowed] = -np.inf
                one, other = np.unravel_index(int(values.argmax()), values.shape)
                if values[one, other] > worth + TIE:
                    thresholds = _with(_with(thresholds, pair[0], chosen[0][one]), pair[1], chosen[1][other])
                    worth = self._worth(thresholds)
        return thresholds


def _with(thresholds: Floats, category: int, threshold: float) -> Floats:
    changed = thresholds.copy()
    changed[category] = threshold
    return changed


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
