"""How label logits become scores: margin, calibrated probability, and each category's share of it."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from guard_runtime.errors import GuardFailed
from guard_runtime.generative.prompt import Branch, Label, Probe
from guard_runtime.verdict import CATEGORIES, Category

Logits = Mapping[int, float]
"""The pruned head's output for one row: token id -> logit."""


def margin(probe: Probe, logits: Logits) -> float:
    """log P(risky labels) - log P(the others): for two labels the difference of their logits."""
    risky = [logits[label.token] for label in probe.labels if label.name in probe.risky]
    safe = [logits[label.token] for label in probe.labels if label.name not in probe.risky]
    difference = _log_sum(risky) - _log_sum(safe)
    if not math.isfinite(difference):
        raise GuardFailed(f"probe {probe.name}: the label logits are not finite numbers")
    return difference


def probability(margin: float, temperature: float, bias: float) -> float:
    """sigmoid((margin - bias) / temperature), exact at both ends."""
    scaled = (margin - bias) / temperature
    if scaled >= 0:
        return 1.0 / (1.0 + math.exp(-min(scaled, 700.0)))
    odds = math.exp(max(scaled, -700.0))
    return odds / (1.0 + odds)


def shares(branch: Branch, logits: Logits) -> dict[Category, float]:
    """Each category's part of the kinds of harm, the largest being 1. A kind that is none of ours ("None") has no say;
    {} where no kind has."""
    total = _log_sum([logits[label.token] for label in branch.labels])
    parts: dict[Category, float] = {}
    for label in branch.labels:
        part = math.exp(logits[label.token] - total)
        for category in branch.categories.get(label.name, ()):
            parts[category] = max(parts.get(category, 0.0), part)
    highest = max(parts.values(), default=0.0)
    if not math.isfinite(highest):
        raise GuardFailed("the category logits are not finite numbers")
    return {category: part / highest for category, part in parts.items()} if highest > 0 else {}


def spread(risk: float, categories: Iterable[Category], parts: Mapping[Category, float]) -> dict[Category, float]:
    """One question's scores: the worst category gets the whole risk, the others their share of it. Without shares
    every category the question is about gets the whole: the guard did not say which, and none may read as harmless."""
    about = tuple(categories)
    if not any(category in parts for category in about):
        return dict.fromkeys(about, risk)
    return {category: risk * parts.get(category, 0.0) for category in about}


def together(all_scores: Sequence[Mapping[Category, float]]) -> dict[Category, float]:
    """All questions' scores: the highest of each category, 0 for one that no question is about."""
    return {category: max((scores.get(category, 0.0) for scores in all_scores), default=0.0) for category in CATEGORIES}


def label_mass(labels: Sequence[Label], logits: NDArray[np.floating]) -> float:
    """P(one of the labels comes next), from the whole vocabulary's logits: the guard's format health."""
    whole = np.asarray(logits, np.float64)
    if not np.isfinite(whole).all():
        raise GuardFailed("the head's logits are not finite numbers")
    exponents = np.exp(whole - whole.max())
    return float(exponents[[label.token for label in labels]].sum() / exponents.sum())


def written(text: str, labels: Sequence[Label]) -> Label | None:
    """Which label an answer in words gives: the one that stands first, the longer of two that start together
    (`不安全` over `安全`); None where there is none."""
    matches = [label for label in labels if label.word.strip() in text]
    return min(matches, key=lambda label: (text.find(label.word.strip()), -len(label.word)), default=None)


def _log_sum(values: Sequence[float]) -> float:
    highest = max(values)
    if not math.isfinite(highest):
        return math.nan
    return highest + math.log(sum(math.exp(value - highest) for value in values))
