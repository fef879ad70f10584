"""`libragate guard tune-cascade`."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from gateway.commands.terminal import Exit, json_option, print_json, stop
from guard_runtime.guards.cascade import Scored, Tuned, tune

COMMAND = "guard tune-cascade"
LABELS = {"safe": False, "unsafe": True}

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a file: what a guard scored, how long it took (milliseconds), and what is true, where it says so."""

    risk: float | None
    ms: float | None
    unsafe: bool | None


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds a row: the large guard on everything, and the cascade."""

    large: float
    cascade: float

    @property
    def saved(self) -> float:
        return 1.0 - self.cascade / self.large


class Unreadable(ValueError):
    pass


@click.group("guard")
def command() -> None:
    """护栏 Guards."""


@command.command("tune-cascade")
@click.option(
    "--scores",
    "files",
    type=_FILE,
    multiple=True,
    required=True,
    help="两次：先小护栏的，再大护栏的得分文件 twice: the small guard's score file, then the large one's",
)
@click.option(
    "--data", type=_FILE, help="标注在别处时：有 id 和 label 的行 labelled rows, where the scores have no label"
)
@click.option(
    "--max-loss",
    type=click.FloatRange(0, 1),
    default=0.005,
    show_default=True,
    help="比大护栏独自判多错的份额上限 most mistakes more than the large guard alone makes, as a share of rows",
)
@click.option(
    "--threshold", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="从多少起算不安全 unsafe from here"
)
@json_option
def tune_cascade(files: tuple[Path, ...], data: Path | None, max_loss: float, threshold: float, as_json: bool) -> None:
    """级联取多宽 The narrowest band that a small guard may leave to a large one, for a stated loss."""
    if len(files) != 2:
        problem = f"--scores is given {len(files)} times -- give it twice: the small guard's file, then the large one's"
        stop(COMMAND, Exit.WRONG_INPUT, [problem], as_json=as_json)
    try:
        small, large = (_rows(path) for path in files)
        labels = _rows(data) if data is not None else {}
        ids = _common(small, large, files)
        scored = [_scored(_Triple(name, small[name], large[name], labels.get(name)), data) for name in ids]
    except Unreadable as exc:
        stop(COMMAND, Exit.WRONG_INPUT, [str(exc)], as_json=as_json)
    tuned = tune(scored, max_loss, threshold)
    cost = _cost([small[name] for name in ids], [large[name] for name in ids], tuned)
    left = len(small) + len(large) - 2 * len(ids)
    saved = cost.saved if cost else tuned.saved
    code = Exit.FINE if saved > 0 else Exit.FOUND
    if as_json:
        print_json(COMMAND, code, **_json(tuned, cost), problems=[], max_loss=max_loss, threshold=threshold, left=left)
    else:
        for line in _text(tuned, cost, left):
            click.echo(line)
    click.get_current_context().exit(code)


def _rows(path: Path) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise Unreadable(f"{path}: cannot be read as UTF-8 -- {type(exc).__name__}") from exc
    for number, line in enumerate(lines, 1):
        place = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as exc:
            raise Unreadable(f"{place}: is not JSON -- write one object a line") from exc
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise Unreadable(f"{place}: has no id -- score it with python -m evaluation")
        if row["id"] in rows:
            raise Unreadable(f"{place}: a second row has the id {row['id']} -- remove one")
        rows[row["id"]] = Row(_share(row, place), _number(row, "ms", place), _label(row, place))
    return rows


def _share(row: Mapping[str, Any], place: str) -> float | None:
    risk = _number(row, "p_unsafe", place)
    if risk is not None and not 0 <= risk <= 1:
        raise Unreadable(f"{place}: p_unsafe is outside 0..1")
    return risk


def _number(row: Mapping[str, Any], key: str, place: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Unreadable(f"{place}: {key} is no finite number")
    return float(value)


def _label(row: Mapping[str, Any], place: str) -> bool | None:
    label = row.get("label")
    if label is not None and (not isinstance(label, str) or label not in LABELS):
        raise Unreadable(f"{place}: the label is not one of {', '.join(LABELS)}")
    return None if label is None else LABELS[label]


def _common(small: Mapping[str, Row], large: Mapping[str, Row], files: Sequence[Path]) -> list[str]:
    ids = [name for name in small if name in large]
    if not ids:
        raise Unreadable(f"{files[0]} and {files[1]} have no row in common -- score the same data with both guards")
    return ids


@dataclass(frozen=True, slots=True)
class _Triple:
    """One row as both guards scored it, and as it is labelled where that stands in a file of its own."""

    name: str
    small: Row
    large: Row
    labelled: Row | None


def _scored(triple: _Triple, data: Path | None) -> Scored:
    name, small, large = triple.name, triple.small, triple.large
    truths = {row.unsafe for row in (small, large, triple.labelled) if row is not None and row.unsafe is not None}
    if small.risk is None or large.risk is None:
        raise Unreadable(f"row {name} has no p_unsafe -- score it with python -m evaluation")
    if not truths:
        advice = f"add it to {data}" if data else "name the labelled file with --data"
        raise Unreadable(f"row {name} has no label -- {advice}")
    if len(truths) > 1:
        raise Unreadable(f"row {name} is safe in one file and unsafe in another -- settle it")
    return Scored(small.risk, large.risk, truths.pop())


def _cost(small: Sequence[Row], large: Sequence[Row], tuned: Tuned) -> Cost | None:
    """None unless every row says how long it took."""
    first = [row.ms for row in small if row.ms is not None]
    second = [row.ms for row in large if row.ms is not None]
    if len(first) < len(small) or len(second) < len(large) or sum(second) <= 0:
        return None
    mean = sum(second) / len(second)
    return Cost(mean, sum(first) / len(first) + tuned.escalated * mean)


def _json(tuned: Tuned, cost: Cost | None) -> dict[str, object]:
    return {
        "band": [tuned.band.low, tuned.band.high],
        "rows": tuned.rows,
        "escalated": tuned.escalated,
        "mistakes": {"small": tuned.small, "large": tuned.large, "cascade": tuned.cascade},
        "loss": tuned.loss,
        "ms": None if cost is None else {"large": cost.large, "cascade": cost.cascade},
        "saved": tuned.saved if cost is None else cost.saved,
    }


def _text(tuned: Tuned, cost: Cost | None, left: int) -> Iterator[str]:
    yield f"band: [{tuned.band.low:g}, {tuned.band.high:g}]"
    yield f"rows {tuned.rows}, escalated {tuned.escalated:.1%}" + (f", {left} in one file only" if left else "")
    yield f"mistakes: small {tuned.small:.2%}, large {tuned.large:.2%}, cascade {tuned.cascade:.2%} ({tuned.loss:+.2%})"
    if cost is None:
        yield f"saved: {tuned.saved:.1%} of the large guard's calls"
    else:
        yield f"saved: {cost.saved:.1%} of the time ({cost.cascade:.1f} ms a row instead of {cost.large:.1f})"
    yield "measured on the rows the band was chosen on: score other rows before you rely on it"
