"""A guard model that scores what a script says, and rows to give it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evaluation.scoring import Watch
from guard_runtime.conversation import Direction
from guard_runtime.errors import GuardFailed
from guard_runtime.guard import OperatingPoints, Passage
from guard_runtime.verdict import CATEGORIES, Category, Verdict

POINTS: OperatingPoints = {"balanced": {direction: dict.fromkeys(CATEGORIES, 0.6) for direction in Direction}}


class ScriptedModel:
    """Scores a text by `script`, as one category; fails on every batch that holds the word "boom"."""

    name = "scripted"

    def __init__(
        self,
        script: Callable[[str], float] = lambda text: 0.9 if "坏" in text or "evil" in text else 0.1,
        category: Category = Category.HATE_SPEECH_AND_ABUSE,
        operating_points: OperatingPoints = POINTS,
    ) -> None:
        self.operating_points = operating_points
        self.seen: list[Passage] = []
        self._script = script
        self._category = category

    def predict(self, batch: Sequence[Passage]) -> Sequence[Verdict]:
        self.seen += batch
        if any("boom" in passage.text for passage in batch):
            raise GuardFailed("the model fell over")
        return [self._verdict(passage.text) for passage in batch]

    def _verdict(self, text: str) -> Verdict:
        return Verdict(self.name, {**dict.fromkeys(CATEGORIES, 0.0), self._category: self._script(text)})


class Listener:
    """Hears every complaint, and how many rows each bar was told of."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.totals: list[int] = []

    @property
    def watch(self) -> Watch:
        return Watch(self._bar, self.complaints.append)

    @contextmanager
    def _bar(self, total: int) -> Iterator["Listener"]:
        self.totals.append(total)
        yield self

    def update(self, n: int) -> None:
        pass


def row(name: str, text: str, label: str = "safe", **changes: Any) -> Mapping[str, Any]:
    """One prompt row in the data's shape."""
    return {
        "id": name,
        "source": "tests",
        "licence": "none",
        "lang": "zh",
        "direction": "prompt",
        "prompt": text,
        "response": "",
        "label": label,
        "categories": ["hate_speech_and_abuse"] if label == "unsafe" else [],
        "subcategory": "",
        "quality": "gold",
        **changes,
    }


def write(path: Path, rows: Sequence[object]) -> Path:
    """Rows as JSONL; a string goes in as the line it is."""
    lines = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
