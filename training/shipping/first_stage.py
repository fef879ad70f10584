"""Fits a guard's first stage, and sets its thresholds so that it clears hardly anything harmful."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.stats import beta
from sklearn.linear_model import LogisticRegression

from guard_runtime.conversation import Source
from guard_runtime.guards.first_stage import buckets
from guard_runtime.text.language import LANGUAGES, Language

BITS = 18
FOLDS = 5
REGULARISATION = 10.0
LOST = 0.003
"""Of the harmful windows at most this share may be cleared,"""
CONFIDENCE = 0.95
"""with this confidence (Learn then Test, arXiv:2110.01052, with the exact binomial bound of Clopper and Pearson)."""

Floats = npt.NDArray[np.float64]
Thresholds = Mapping[Source, Mapping[Language, float]]


@dataclass(frozen=True, slots=True)
class Window:
    """One window of a row as serving reads it: all of its token ids. Windows of one `group` (a row, its twins) are
    never on both sides of a fold."""

    ids: tuple[int, ...]
    source: Source
    language: Language
    unsafe: bool
    group: str


@dataclass(frozen=True, slots=True)
class Part:
    """What came of one source and language: harmful windows that thresholds were set by, how many of them are cleared,
    and the share of harmless ones that is. `threshold` is None where too few harmful windows are known."""

    source: Source
    language: Language
    harmful: int
    lost: int
    cleared: float
    threshold: float | None


@dataclass(frozen=True, slots=True)
class Fitted:
    """`weights` [2 ** BITS]."""

    weights: npt.NDArray[np.float16]
    parts: tuple[Part, ...]

    @property
    def section(self) -> dict[str, object]:
        """The manifest's `first_stage`."""
        thresholds: dict[str, dict[str, float]] = {}
        for part in self.parts:
            if part.threshold is not None:
                thresholds.setdefault(part.source.value, {})[part.language] = round(part.threshold, 4)
        return {"bits": BITS, "thresholds": thresholds}


def fitted(windows: Sequence[Window]) -> Fitted:
    """Every window is scored by a model that has not seen its group; by those scores the thresholds are set. The model
    that ships has seen all of them."""
    features = _features(windows)
    unsafe = np.array([window.unsafe for window in windows], bool)
    fold = np.array([_fold(window.group) for window in windows])
    scores = np.zeros(len(windows))
    for number in range(FOLDS):
        held = fold == number
        scores[held] = _model(features[~held], unsafe[~held]).decision_function(features[held])
    weights = _model(features, unsafe).coef_[0].astype(np.float16)
    return Fitted(weights, tuple(_parts(windows, unsafe, scores)))


def threshold(harmful: Floats) -> float | None:
    """The highest score below which, at CONFIDENCE, at most LOST of all harmful windows lie. None where so few are
    known that even clearing none of them proves nothing."""
    ordered = np.sort(harmful)
    allowed = -1
    while allowed + 1 < len(ordered) and _bound(allowed + 1, len(ordered)) <= LOST:
        allowed += 1
    return None if allowed < 0 else float(ordered[allowed])


def _bound(lost: int, harmful: int) -> float:
    """The upper end of the one-sided Clopper-Pearson interval."""
    return 1.0 if lost >= harmful else float(beta.ppf(CONFIDENCE, lost + 1, harmful - lost))


def _parts(windows: Sequence[Window], unsafe: npt.NDArray[np.bool_], scores: Floats) -> Iterator[Part]:
    """Each source and language; a language with too few harmful windows gets the threshold of both together."""
    for source in Source:
        of_source = np.array([_same(window.source, source) for window in windows], bool)
        for language in LANGUAGES:
            here = of_source & np.array([window.language == language for window in windows], bool)
            limit = threshold(scores[here & unsafe])
            if limit is None:
                limit = threshold(scores[of_source & unsafe])
            lost = 0 if limit is None else int((scores[here & unsafe] < limit).sum())
            harmless = scores[here & ~unsafe]
            cleared = 0.0 if limit is None or not len(harmless) else float((harmless < limit).mean())
            yield Part(source, language, int((here & unsafe).sum()), lost, cleared, limit)


def _same(one: Source, other: Source) -> bool:
    """A tool result is read as a document is."""
    documents = (Source.TOOL_RESULT, Source.DOCUMENT)
    return one is other or (one in documents and other in documents)


def _features(windows: Sequence[Window]) -> csr_matrix:
    """Rows of equal weights [windows, 2 ** BITS], each of length 1."""
    rows = [buckets(window.ids, window.source, BITS) for window in windows]
    ends = np.cumsum([0, *map(len, rows)])
    values = np.concatenate([np.full(len(row), 1 / math.sqrt(max(len(row), 1)), np.float32) for row in rows])
    return csr_matrix((values, np.concatenate(rows).astype(np.int32), ends), shape=(len(rows), 1 << BITS))


def _model(features: csr_matrix, unsafe: npt.NDArray[np.bool_]) -> LogisticRegression:
    model = LogisticRegression(C=REGULARISATION, solver="liblinear", tol=1e-2, fit_intercept=False)
    return model.fit(features, unsafe)


def _fold(group: str) -> int:
    return int(hashlib.sha256(group.encode()).hexdigest(), 16) % FOLDS


def card_lines(fitted_stage: Fitted) -> Iterator[str]:
    """A table for the model card."""
    yield "| source | language | harmful windows | of them cleared | harmless windows cleared |"
    yield "|---|---|---|---|---|"
    for part in fitted_stage.parts:
        lost, cleared = str(part.lost), f"{part.cleared:.0%}"
        if part.threshold is None:
            lost, cleared = "-", "none: too few harmful windows"
        yield f"| {part.source} | {part.language} | {part.harmful} | {lost} | {cleared} |"
