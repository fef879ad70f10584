"""A score file against its labels: figures with intervals, as text, JSON and CSV (as a page: page.py)."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.datasets import BadData, Broken, Sample, records, samples
from evaluation.metrics import Figure, Floats, Scored, figures, recalls

HEADINGS = ("accuracy", "f1_safe", "f1_unsafe", "macro_f1", "auroc", "fpr", "recall", "precision", "ece")


@dataclass(frozen=True, slots=True)
class Group:
    """The figures of some of the rows."""

    name: str
    safe: int
    unsafe: int
    figures: Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a report shows. `broken` rows could not be read, `missing` ones have no score."""

    data: str
    scores: str
    rows: int
    broken: int
    missing: int
    groups: Sequence[Group]
    """All rows first, then each direction and language, then each source."""

    recalls: Mapping[str, Figure]
    ms: Mapping[str, float]
    """Milliseconds a row, p50 and p95, as the score run had them."""

    scored: Scored


def made(data: Path, scores: Sequence[Path], seed: int = 0) -> Report:
    """The report of a run's score files. Raises BadData when either file cannot be read, or no row has a score."""
    said = {name: line for file in scores for name, line in _said(file).items()}
    readable: list[Sample] = []
    broken = 0
    for sample in samples(data):
        if isinstance(sample, Broken):
            broken += 1
        else:
            readable.append(sample)
    kept = [sample for sample in readable if sample.id in said]
    if not kept:
        raise BadData(f"{scores[0]}: no row of {data} has a score here")
    scored = _columns(kept, said)
    ms = np.array([float(said[sample.id]["ms"]) for sample in kept])
    return Report(
        data=data.name,
        scores=", ".join(file.name for file in scores),
        rows=len(kept),
        broken=broken,
        missing=len(readable) - len(kept),
        groups=_groups(kept, scored, seed),
        recalls=recalls(scored, seed),
        ms={"p50": float(np.percentile(ms, 50)), "p95": float(np.percentile(ms, 95))},
        scored=scored,
    )


def _said(scores: Path) -> Mapping[str, Mapping[str, Any]]:
    """Score lines by id. Raises BadData for a line that is not one, or whose probability is none."""
    said = {}
    for record in records(scores):
        if isinstance(record, Broken):
            raise BadData(str(record))
        line = record.content
        p = line.get("p_unsafe")
        if not isinstance(p, int | float) or isinstance(p, bool) or not 0 <= p <= 1:
            raise BadData(f"{record.place}: p_unsafe: {p!r} is no probability")
        if not isinstance(line.get("id"), str) or not isinstance(line.get("flagged"), bool):
            raise BadData(f"{record.place}: id must be a string and flagged true or false")
        if not isinstance(line.get("categories"), dict) or not isinstance(line.get("ms"), int | float):
            raise BadData(f"{record.place}: categories must be an object and ms a number")
        said[line["id"]] = line
    return said


def _columns(kept: Sequence[Sample], said: Mapping[str, Mapping[str, Any]]) -> Scored:
    p: Floats = np.array([float(said[sample.id]["p_unsafe"]) for sample in kept])
    return Scored(
        unsafe=np.array([sample.unsafe for sample in kept]),
        flagged=np.array([said[sample.id]["flagged"] for sample in kept]),
        p=p,
        categories=[frozenset(sample.categories) for sample in kept],
    )


def _groups(kept: Sequence[Sample], scored: Scored, seed: int) -> list[Group]:
    groups = [_group("all", np.ones(len(kept), dtype=bool), scored, seed)]
    kinds = [f"{sample.direction}/{sample.lang}" for sample in kept]
    sources = [sample.source for sample in kept]
    for names in (kinds, sources):
        column = np.array(names)
        groups += [_group(name, column == name, scored, seed) for name in sorted(set(names))]
    return groups


def _group(name: str, rows: Any, scored: Scored, seed: int) -> Group:
    part = scored.where(rows)
    unsafe = int(part.unsafe.sum())
    return Group(name, len(part.unsafe) - unsafe, unsafe, figures(part, seed))


def text(report: Report) -> str:
    """The report for a terminal."""
    lines = [f"{report.rows} rows scored, {report.missing} without a score, {report.broken} broken"]
    for name in HEADINGS:
        lines.append(f"  {name:<10} {report.groups[0].figures[name]}")
    lines.append("recall by category")
    lines += [f"  {name:<30} {figure}" for name, figure in report.recalls.items()]
    lines.append(f"{'group':<24}{'safe':>7}{'unsafe':>8}" + "".join(f"{name:>10}" for name in HEADINGS))
    for group in report.groups:
        values = "".join(f"{_short(group.figures[name]):>10}" for name in HEADINGS)
        lines.append(f"{group.name:<24}{group.safe:>7}{group.unsafe:>8}{values}")
    return "\n".join(lines)


def _short(figure: Figure) -> str:
    return "-" if figure.value is None else f"{figure.value:.3f}"


def save(report: Report, folder: Path) -> Sequence[Path]:
    """Writes report.json and report.csv into `folder` and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"report.{kind}" for kind in ("json", "csv")]
    paths[0].write_text(json.dumps(_plain(report), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    with paths[1].open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["group", "safe", "unsafe", "figure", "value", "low", "high"])
        for group in report.groups:
            for name in HEADINGS:
                figure = group.figures[name]
                row = (figure.value, figure.low, figure.high)
                writer.writerow([_cell(group.name), group.safe, group.unsafe, name, *row])
    return paths


def _cell(value: str) -> str:
    """A name from the data, so that a spreadsheet does not read it as a formula."""
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _plain(report: Report) -> Mapping[str, Any]:
    return {
        "data": report.data,
        "scores": report.scores,
        "rows": report.rows,
        "broken": report.broken,
        "missing": report.missing,
        "ms": report.ms,
        "groups": [
            {"name": group.name, "safe": group.safe, "unsafe": group.unsafe}
            | {name: asdict(figure) for name, figure in group.figures.items()}
            for group in report.groups
        ],
        "recall_by_category": {name: asdict(figure) for name, figure in report.recalls.items()},
    }
