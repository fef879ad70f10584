"""Scores a guard gives to labelled rows, one JSON line each; an interrupted run goes on where it stopped."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from evaluation.datasets import ALONE, Broken, Sample, Share, samples
from gateway.policy.policy import Action, Rule
from guard_runtime.artefacts.artefact import Artefact
from guard_runtime.artefacts.shipped import MODELS
from guard_runtime.conversation import Direction
from guard_runtime.errors import GuardFailed
from guard_runtime.guard import BALANCED, OperatingPoints, Passage
from guard_runtime.guards.classifier import Classifier
from guard_runtime.loading.generative import generative_model
from guard_runtime.onnx.devices import ON_CPU, Placement
from guard_runtime.verdict import Verdict

POINT = BALANCED


class GuardModel(Protocol):
    """What is measured: a blocking model and the points it was calibrated to work at."""

    @property
    def name(self) -> str: ...

    @property
    def operating_points(self) -> OperatingPoints: ...

    def predict(self, batch: Sequence[Passage]) -> Sequence[Verdict]: ...


@dataclass(frozen=True, slots=True)
class Score:
    """One line of a score file. `p_unsafe` is the worst category's score, `ms` this row's share of its batch's time."""

    id: str
    p_unsafe: float
    flagged: bool
    categories: Mapping[str, float]
    ms: float

    def line(self) -> str:
        return json.dumps(
            {
                "id": self.id,
                "p_unsafe": round(self.p_unsafe, 6),
                "flagged": self.flagged,
                "categories": {name: round(score, 6) for name, score in self.categories.items()},
                "ms": round(self.ms, 3),
            },
            ensure_ascii=False,
        )


@dataclass(slots=True)
class Tally:
    """How a score run went. `broken` rows could not be read, on `failed` ones the guard gave no verdict."""

    scored: int = 0
    resumed: int = 0
    broken: int = 0
    failed: int = 0


class Bar(Protocol):
    """A progress bar, as tqdm makes them."""

    def update(self, n: int) -> object: ...


@dataclass(frozen=True, slots=True)
class Watch:
    """Who sees how a run goes: `progress(total)` gives a bar, `complain` hears of every row that gets no score."""

    progress: Callable[[int], AbstractContextManager[Bar]]
    complain: Callable[[str], None]


def load_guard(name: str, place: Placement = ON_CPU) -> GuardModel:
    """A guard that ships, by its name, or any artefact's folder. Raises `ArtefactRefused`."""
    shipped = MODELS / name
    artefact = Artefact.load(shipped if shipped.is_dir() else Path(name))
    if artefact.manifest.generative is None:
        return Classifier(artefact, place=place)
    return generative_model(artefact, place=place)


def passage(sample: Sample) -> Passage:
    """What the guard reads of a row: the prompt alone, or the answer after its prompt."""
    if sample.direction == "prompt":
        return Passage(Direction.PROMPT, sample.prompt)
    return Passage.answer(sample.response, sample.prompt)


def score_of(sample: Sample, verdict: Verdict, points: OperatingPoints, ms: float) -> Score:
    """A row's score. It is flagged when any category reaches its `balanced` threshold, as a policy's rule would."""
    rule, direction = Rule(POINT, Action.BLOCK), Direction(sample.direction)
    fired = any(score >= rule.threshold(points, direction, category) for category, score in verdict.scores.items())
    return Score(sample.id, max(verdict.scores.values()), fired, {str(c): p for c, p in verdict.scores.items()}, ms)


def scores(guard: GuardModel, rows: Sequence[Sample], batch: int) -> Iterator[Score | Broken]:
    """A score for every row, in order; where the guard gives no verdict, a `Broken` that says why."""
    for start in range(0, len(rows), batch):
        group = rows[start : start + batch]
        started = time.perf_counter()
        try:
            verdicts = guard.predict([passage(sample) for sample in group])
        except GuardFailed as exc:
            yield from [Broken(group[0].id, str(exc))] if len(group) == 1 else scores(guard, group, 1)
            continue
        ms = (time.perf_counter() - started) * 1000 / len(group)
        for sample, verdict in zip(group, verdicts, strict=True):
            yield score_of(sample, verdict, guard.operating_points, ms)


Engine = Callable[[Sequence[Sample]], Iterator[Score | Broken]]
"""Gives exactly one answer to every row it gets, in any order."""


@dataclass(frozen=True, slots=True)
class Local:
    """An engine: this process, `batch` rows at a time."""

    guard: GuardModel
    batch: int

    def __call__(self, rows: Sequence[Sample]) -> Iterator[Score | Broken]:
        return scores(self.guard, rows, self.batch)


def run(engine: Engine, data: Path, out: Path, *, watch: Watch, share: Share = ALONE) -> Tally:
    """Scores the rows of this machine's share of `data` that its output does not hold yet (see `part`).

    Raises BadData when the data file cannot be read at all.
    """
    tally, out = Tally(), part(out, share)
    kept = _finished(out)
    every = list(samples(data))
    rows: list[Sample] = []
    for sample in every[share.of(len(every))]:
        if isinstance(sample, Broken):
            tally.broken += 1
            watch.complain(str(sample))
        elif sample.id in kept:
            tally.resumed += 1
        else:
            rows.append(sample)
    with out.open("a", encoding="utf-8") as file, watch.progress(len(rows)) as bar:
        for score in engine(rows) if rows else ():
            bar.update(1)
            if isinstance(score, Broken):
                tally.failed += 1
                watch.complain(str(score))
                continue
            file.write(score.line() + "\n")
            file.flush()
            tally.scored += 1
    return tally


def part(out: Path, share: Share) -> Path:
    """The file a machine writes: `out` itself, or where several share the rows, `out` with `.{rank}-of-{num}`."""
    return out if share == ALONE else out.with_name(f"{out.stem}.{share.rank}-of-{share.machines}{out.suffix}")


def _finished(out: Path) -> set[str]:
    """Ids already scored. A line that a crash cut off is removed from the file, and its row scored again."""
    if not out.exists():
        return set()
    lines = out.read_bytes().split(b"\n")
    if lines[-1]:
        out.write_bytes(b"\n".join([*lines[:-1], b""]))
    return {json.loads(line)["id"] for line in lines[:-1] if line}
