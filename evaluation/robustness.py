"""How a guard stands disguised text: every perturbation at three strengths, on harmful and on benign rows alike."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from evaluation.datasets import BadData, Broken, Sample, samples
from evaluation.perturbations import PERTURBATIONS, STRENGTHS, perturbed
from evaluation.scoring import GuardModel, Watch, scores

PLAIN = "none"


@dataclass(frozen=True, slots=True)
class Result:
    """What one perturbation at one strength did. Rates are None where there was no such row.

    `changed` is the share of rows whose text it could change at all; the others are in the rates too.
    """

    operator: str
    strength: str
    rows: int
    changed: float
    recall: float | None
    fpr: float | None


@dataclass(frozen=True, slots=True)
class Setting:
    perturbation: str
    strength: str


def chosen(data: Path, most: int, seed: int, watch: Watch) -> list[Sample]:
    """At most `most` rows of each label, drawn by `seed`. Raises BadData when no row can be read."""
    rows: list[Sample] = []
    for sample in samples(data):
        if isinstance(sample, Broken):
            watch.complain(str(sample))
        else:
            rows.append(sample)
    Random(seed).shuffle(rows)
    kept = [sample for unsafe in (True, False) for sample in [row for row in rows if row.unsafe is unsafe][:most]]
    if not kept:
        raise BadData(f"{data}: no row that can be read")
    return kept


def disguised(sample: Sample, perturbation: str, strength: str, seed: int) -> Sample:
    """The row with the text that is judged disguised; the same for the same seed."""
    if sample.direction == "prompt":
        return replace(sample, prompt=perturbed(sample.prompt, perturbation, strength, seed))
    return replace(sample, response=perturbed(sample.response, perturbation, strength, seed))


@dataclass(frozen=True, slots=True)
class Bench:
    """A guard, how many rows it gets at a time, and who sees how it goes."""

    guard: GuardModel
    batch: int
    watch: Watch

    def results(self, rows: Sequence[Sample], seed: int) -> Iterator[Result]:
        """The plain rows first, then every perturbation at every strength."""
        yield self._measured(Setting(PLAIN, PLAIN), rows, rows)
        for perturbation in PERTURBATIONS:
            for strength in STRENGTHS:
                attacked = [disguised(row, perturbation, strength, seed + place) for place, row in enumerate(rows)]
                yield self._measured(Setting(perturbation, strength), rows, attacked)

    def _measured(self, setting: Setting, plain: Sequence[Sample], attacked: Sequence[Sample]) -> Result:
        flagged: dict[bool, list[bool]] = {True: [], False: []}
        with self.watch.progress(len(attacked)) as bar:
            for row, score in zip(attacked, scores(self.guard, attacked, self.batch), strict=True):
                bar.update(1)
                if isinstance(score, Broken):
                    self.watch.complain(str(score))
                else:
                    flagged[row.unsafe].append(score.flagged)
        changed = sum(before != after for before, after in zip(plain, attacked, strict=True)) / len(plain)
        number = sum(map(len, flagged.values()))
        recall, fpr = _share(flagged[True]), _share(flagged[False])
        return Result(setting.perturbation, setting.strength, number, changed, recall, fpr)


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None


def shown(found: Sequence[Result]) -> str:
    """The table for a terminal: points of recall lost and of false alarms added against the plain rows."""
    plain = found[0]
    lines = [f"{'operator':<18}{'strength':<10}{'changed':>9}{'recall':>9}{'lost':>8}{'FPR':>8}{'added':>8}"]
    for result in found:
        lost, added = _points(plain.recall, result.recall), _points(result.fpr, plain.fpr)
        rates = f"{_rate(result.recall):>9}{lost:>8}{_rate(result.fpr):>8}{added:>8}"
        lines.append(f"{result.operator:<18}{result.strength:<10}{result.changed:>9.2f}{rates}")
    for strength in STRENGTHS:
        some = [result for result in found if result.strength == strength]
        recall, fpr = _mean([result.recall for result in some]), _mean([result.fpr for result in some])
        lost, added = _points(plain.recall, recall), _points(fpr, plain.fpr)
        rates = f"{_rate(recall):>9}{lost:>8}{_rate(fpr):>8}{added:>8}"
        lines.append(f"{'all perturbations':<18}{strength:<10}{'':>9}{rates}")
    return "\n".join(lines)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _points(more: float | None, less: float | None) -> str:
    return "-" if more is None or less is None else f"{100 * (more - less):+.1f}"


def save(found: Sequence[Result], path: Path) -> None:
    """Writes the results as one JSON list."""
    rows: list[Mapping[str, object]] = [
        {name: getattr(result, name) for name in type(result).__slots__} for result in found
    ]
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
