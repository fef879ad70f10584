"""Labelled rows: read strictly, all mistakes reported at once with file, line and field."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guard_runtime.conversation import Source
from guard_runtime.verdict import Category

CATEGORIES: tuple[str, ...] = tuple(category.value for category in Category)
CHOICES = {
    "lang": ("zh", "en"),
    "direction": ("prompt", "response"),
    "label": ("safe", "unsafe"),
    "quality": ("gold", "silver", "weak"),
}
TEXT_FIELDS = ("id", "source", "licence", "lang", "direction", "prompt", "response", "label", "subcategory", "quality")
CODE = "code"
MISTAKES_SHOWN = 20


class BadInput(Exception):
    """What was given cannot be trained on; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled text. `response` is empty for a prompt; `weight` scales its loss (1 by default). `kind` says what
    the text is. `span` is the characters of an order hidden in a prompt: what does not hold them is harmless.
    `held_out` rows are for measuring and never for training."""

    id: str
    source: str
    licence: str
    lang: str
    direction: str
    prompt: str
    response: str
    unsafe: bool
    categories: tuple[str, ...]
    subcategory: str
    quality: str
    weight: float
    kind: Source = Source.USER
    span: tuple[int, int] | None = None
    held_out: bool = False

    @property
    def spoken(self) -> str:
        """The text that the label is about."""
        return self.prompt if self.direction == "prompt" else self.response


def read_rows(path: Path) -> list[Row]:
    """Every row of a JSONL file. Raises BadInput naming file, line and field of each mistake (the first twenty)."""
    rows: list[Row] = []
    mistakes: list[str] = []
    seen: dict[str, int] = {}
    for number, line in _lines(path):
        try:
            row = _row(json.loads(line))
        except json.JSONDecodeError as exc:
            mistakes.append(f"{path}:{number}: not JSON ({exc.msg} at column {exc.colno})")
            continue
        except BadInput as exc:
            mistakes.append(f"{path}:{number}: {exc}")
            continue
        if row.id in seen:
            mistakes.append(f"{path}:{number}: id: {row.id!r} is already used in line {seen[row.id]}")
        seen.setdefault(row.id, number)
        rows.append(row)
    if mistakes:
        more = len(mistakes) - MISTAKES_SHOWN
        shown = mistakes[:MISTAKES_SHOWN] + ([f"... and {more} more"] if more > 0 else [])
        raise BadInput("\n".join(shown))
    if not rows:
        raise BadInput(f"{path}: no rows")
    return rows


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as `read_rows` reads them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as out:
        for row in rows:
            data = dataclasses.asdict(row)
            data["label"] = "unsafe" if data.pop("unsafe") else "safe"
            data |= {"split": "dev"} if data.pop("held_out") else {}
            out.write(json.dumps(data, ensure_ascii=False) + "\n")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise BadInput(f"{path}: {exc.strerror}") from exc
    for number, raw in enumerate(data.split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            yield number, raw.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise BadInput(f"{path}:{number}: not UTF-8 at byte {exc.start} of the line") from exc


def _row(data: Any) -> Row:
    if not isinstance(data, dict):
        raise BadInput(f"a row is an object, not {type(data).__name__}")
    for field in TEXT_FIELDS:
        if field not in data:
            raise BadInput(f"{field}: missing")
        if not isinstance(data[field], str):
            raise BadInput(f"{field}: must be a string, not {type(data[field]).__name__}")
    for field, allowed in CHOICES.items():
        if data[field] not in allowed:
            raise BadInput(f"{field}: {data[field]!r} is none of {', '.join(allowed)}")
    spoken = "prompt" if data["direction"] == "prompt" else "response"
    if not data[spoken].strip():
        raise BadInput(f"{spoken}: empty, in a row of direction {data['direction']}")
    return Row(
        id=data["id"],
        source=data["source"],
        licence=data["licence"],
        lang=data["lang"],
        direction=data["direction"],
        prompt=data["prompt"],
        response=data["response"] if data["direction"] == "response" else "",
        unsafe=data["label"] == "unsafe",
        categories=_categories(data),
        subcategory=data["subcategory"],
        quality=data["quality"],
        weight=_weight(data),
        kind=_kind(data),
        span=_span(data),
        held_out=data.get("split") == "dev",
    )


def _categories(data: Mapping[str, Any]) -> tuple[str, ...]:
    categories = data.get("categories")
    if not isinstance(categories, list):
        raise BadInput("categories: must be a list")
    for category in categories:
        if category not in CATEGORIES:
            raise BadInput(f"categories: {category!r} is none of {', '.join(CATEGORIES)}")
    return tuple(categories)


def _kind(data: Mapping[str, Any]) -> Source:
    """What nothing is said of is a user's prompt or an assistant's answer; code is a document."""
    if data["direction"] == "response" and data.get("kind", Source.USER) == Source.USER:
        return Source.ASSISTANT
    kind = data.get("kind", Source.USER)
    if kind == CODE:
        return Source.DOCUMENT
    if kind not in tuple(Source):
        raise BadInput(f"kind: {kind!r} is none of {', '.join((*Source, CODE))}")
    return Source(kind)


def _span(data: Mapping[str, Any]) -> tuple[int, int] | None:
    span = data.get("span")
    if span is None:
        return None
    whole = isinstance(span, list) and len(span) == 2 and all(type(place) is int for place in span)
    if not whole or not 0 <= span[0] < span[1] <= len(data["prompt"]):
        raise BadInput(f"span: {span!r} is not the start and the end of characters of the prompt")
    return span[0], span[1]


def _weight(data: Mapping[str, Any]) -> float:
    weight = data.get("weight", 1.0)
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 <= weight <= 100:
        raise BadInput(f"weight: {weight!r} is not a number from 0 to 100")
    return float(weight)
