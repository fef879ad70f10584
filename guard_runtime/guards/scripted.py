"""A guard that says what it is told. For tests, demos and load runs without a model."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from guard_runtime.conversation import Conversation
from guard_runtime.guard import OperatingPoints
from guard_runtime.verdict import CATEGORIES, Category, Coverage, Verdict

Script = Callable[[str], Mapping[Category, float]]
"""What a part's text scores; categories it leaves out score 0. It may raise `GuardError`."""


class ScriptedGuard:
    """Reads each judged part, and all of them joined, as a model would; remembers what it saw."""

    def __init__(self, script: Script, *, name: str = "scripted") -> None:
        self.name = name
        self.version = "1"
        self.operating_points: OperatingPoints = {}
        self.ready = True
        self.queued = 0
        self.seen: list[str] = []
        self._script = script

    async def check(self, conversation: Conversation) -> Verdict:
        texts = [part.text for part in conversation.judged if part.text]
        self.seen.extend(texts)
        readings = [self._script(text) for text in (*texts, "".join(texts))]
        scores = {c: max((reading.get(c, 0.0) for reading in readings), default=0.0) for c in CATEGORIES}
        return Verdict(self.name, scores, (), Coverage(len(texts), sum(map(len, texts)), len(texts)))

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ScriptedGuard"]:
        yield self


def words(categories: Mapping[str, Category], score: float = 0.99) -> Script:
    """A script that scores `score` for the category of every word it finds."""
    return lambda text: {category: score for word, category in categories.items() if word in text}
