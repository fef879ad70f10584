"""Personal data and secrets, found by their form and checked by their check digits, with their places."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType

import anyio
import anyio.to_thread

from guard_runtime.conversation import Conversation, Direction, Kind, Part, Path
from guard_runtime.guard import BALANCED, STRICT, OperatingPoints
from guard_runtime.guards.patterns import PATTERNS, as_bytes, may_hold
from guard_runtime.text.normalise import VERSION, normalise
from guard_runtime.verdict import CATEGORIES, Category, Coverage, Span, Verdict

THRESHOLDS = {BALANCED: 0.7, STRICT: 0.4}

OFF_THE_LOOP = 4_000
"""Characters above which a conversation is read on a thread."""

LONG_AT_ONCE = 2
"""Long conversations read at the same time: they hold the interpreter, so more would only slow everybody."""

MAX_CHECKED = 1_000
"""Different numbers of a kind that are checked in one text. Of more than these the form alone decides."""

_BEFORE_VERSION = ("version", "ver", "v", "版本", "版本号", "release", "build", "固件")


@dataclass(frozen=True, slots=True)
class Find:
    """Characters [start, end) of a text, what they are, and how sure that is (0 to 1)."""

    start: int
    end: int
    label: str
    score: float


class PersonalData:
    """A `Guard` for ID numbers, bank cards, phone numbers, e-mail and public IP addresses, keys and secrets.

    It reads the text as a reader sees it: full-width digits and digits with unseen characters between them are found
    too, and the spans it gives are those of the text as it came. A number split over text parts of one turn is found.
    What it finds scores in `privacy_and_property`: 1 where a check digit or an issuer's mark says so, less otherwise.
    """

    def __init__(self, name: str = "rules") -> None:
        self.name = name
        self.version = f"1.n{VERSION}"
        self.ready = True
        self.queued = 0
        self.finds_spans = True
        self._threads = anyio.CapacityLimiter(LONG_AT_ONCE)
        self.operating_points: OperatingPoints = MappingProxyType(
            {
                point: {direction: {Category.PRIVACY_AND_PROPERTY: threshold} for direction in Direction}
                for point, threshold in THRESHOLDS.items()
            }
        )

    async def check(self, conversation: Conversation) -> Verdict:
        """Never fails; there is no model."""
        parts = [part for part in conversation.judged if part.text]
        last = [part for turn in conversation.turns[-1:] for part in turn.parts if part.text and part.kind is Kind.TEXT]
        size = sum(len(part.text or "") for part in parts)
        if size <= OFF_THE_LOOP:
            return self._verdict(parts, last)
        return await anyio.to_thread.run_sync(self._verdict, parts, last, limiter=self._threads, abandon_on_cancel=True)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["PersonalData"]:
        yield self

    def _verdict(self, parts: Sequence[Part], last: Sequence[Part]) -> Verdict:
        placed = [(part.path, find) for part in parts for find in finds(part.text or "")]
        placed += _across(last)
        score = max((find.score for _, find in placed), default=0.0)
        scores = dict.fromkeys(CATEGORIES, 0.0) | {Category.PRIVACY_AND_PROPERTY: score}
        coverage = Coverage(len(parts), sum(len(part.text or "") for part in parts))
        return Verdict(self.name, scores, tuple(_span(path, find) for path, find in placed), coverage)


def finds(text: str) -> tuple[Find, ...]:
    """Everything found, in order; no two overlap. Linear in the text."""
    normal = normalise(text)
    seen: list[Find] = []
    for find in sorted(_candidates(normal.text), key=lambda find: (find.start, -find.score, -find.end)):
        if not seen or find.start >= seen[-1].end:
            seen.append(find)
        elif find.score > seen[-1].score:
            seen[-1] = find
    return tuple(Find(*normal.span(find.start, find.end), find.label, find.score) for find in seen)


def _candidates(text: str) -> Iterator[Find]:
    if not may_hold(text):
        return
    content = as_bytes(text)
    for pattern, expression in PATTERNS:
        known: dict[str, float] = {}
        for match in expression.finditer(content):
            start, end = match.span(pattern.group)
            if start == end or (pattern.alone and not _stands_alone(text, start, end)):
                continue
            number = text[start:end]
            if number not in known:
                known[number] = pattern.check(number) if len(known) < MAX_CHECKED else THRESHOLDS[BALANCED]
            if known[number] and not (pattern.label == "ip_address" and _is_version(text, start)):
                yield Find(start, end, pattern.label, known[number])


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Not a piece of a longer number: no digit next to it, and no decimal point or dash with a digit behind."""
    before, after = text[max(start - 2, 0) : start], text[end : end + 2]
    if before[-1:].isalnum() and before[-1:].isascii():
        return False
    if before[-1:] in tuple(".-/") and before[:1].isdigit() and len(before) == 2:
        return False
    return not (after[:1] in tuple(".-/") and after[1:].isdigit())


def _is_version(text: str, start: int) -> bool:
    before = text[max(start - 12, 0) : start].lower().rstrip(" :：=")
    return before.endswith(_BEFORE_VERSION)


def _across(parts: Sequence[Part]) -> Iterator[tuple[Path, Find]]:
    """What stands in no single part, but in neighbours read as one: a find for each part it touches."""
    if len(parts) < 2:
        return
    joined = "".join(part.text or "" for part in parts)
    places = list(_places(parts))
    for find in finds(joined):
        touched = [(part, start, end) for part, start, end in places if start < find.end and end > find.start]
        for part, start, end in touched if len(touched) > 1 else ():
            piece = Find(max(find.start, start) - start, min(find.end, end) - start, find.label, find.score)
            yield part.path, piece


def _places(parts: Iterable[Part]) -> Iterator[tuple[Part, int, int]]:
    at = 0
    for part in parts:
        yield part, at, at + len(part.text or "")
        at += len(part.text or "")


def _span(path: Path, find: Find) -> Span:
    return Span(path, find.start, find.end, Category.PRIVACY_AND_PROPERTY, find.label)
