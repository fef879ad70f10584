"""From a conversation to one verdict: what is read, in which context, and what need not be read again."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import anyio

from guard_runtime.conversation import Conversation, Direction, Part
from guard_runtime.errors import GuardError
from guard_runtime.guard import Explaining, OperatingPoints, Passage
from guard_runtime.serving.batcher import Urgency
from guard_runtime.serving.verdict_cache import VerdictCache
from guard_runtime.text.windows import Windows, windows
from guard_runtime.verdict import Coverage, Unread, UnreadReason, Verdict, worst


class Described(Protocol):
    """What a reader says of the model it reads with."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def operating_points(self) -> OperatingPoints: ...


class Scorer(Protocol):
    """Who is asked about one passage: a batcher with a model behind it, or a server far away."""

    @property
    def ready(self) -> bool: ...

    @property
    def queued(self) -> int: ...

    async def check(self, passage: Passage, urgency: Urgency = Urgency.PROMPT) -> Verdict: ...

    def running(self) -> AbstractAsyncContextManager[object]: ...


@dataclass(frozen=True, slots=True)
class Reach:
    """How much is read, in characters. A part longer than `section` is read in sections, so that one long text does not
    keep everybody else waiting; of more than `sections` the middle ones are left out and said to be unread. Across
    parts, and across the last `turns`, each part is read once more joined to its neighbours: whole, or if it is long
    the first and last `ends`. `at_once` passages of one conversation are in the queue. An answer that grows is read
    with up to `before` characters of what came before it: by a model that remembers them. For the others it is 0."""

    section: int = 5_000
    overlap: int = 400
    sections: int = 14
    ends: int = 400
    turns: int = 4
    at_once: int = 8
    before: int = 0


@dataclass(slots=True)
class _Check:
    """One check on its way: passages still to be asked about, and what came of the others."""

    urgency: Urgency
    todo: deque[Passage]
    verdicts: list[Verdict] = field(default_factory=list)
    cached: int = 0
    failure: GuardError | None = None


class Reader:
    """A `Guard`: reads a conversation with a model behind a batcher.

    A prompt: every part of every turn alone, the parts of the last turn joined, and the last turn with up to three
    before it. An answer: every part in the context of the question, and the parts joined. What was read before by the
    same guard, in the same direction and context, comes from the cache.
    """

    def __init__(
        self,
        guard: Described,
        batcher: Scorer,
        cache: VerdictCache,
        *,
        reach: Reach = Reach(),
        urgency: Urgency | None = None,
    ) -> None:
        self.name = guard.name
        self.version = guard.version
        self.operating_points = guard.operating_points
        self.batcher = batcher
        self.cache = cache
        self._reach = reach
        self._urgency = urgency
        self.counts: Callable[[], Mapping[str, int]] = dict
        self.explainer: Explaining | None = None

    async def check(self, conversation: Conversation) -> Verdict:
        """Raises `GuardError` when one passage of it has no verdict: half a reading is none."""
        check = _Check(self._urgency_of(conversation), deque(_different(_passages(conversation, self._reach))))
        self._recall(check)
        await self._ask_all(check)
        parts = [part for part in conversation.judged if part.text]
        found = worst(self.name, check.verdicts)
        coverage = replace(
            found.coverage,
            parts=len(parts),
            characters=sum(len(part.text or "") for part in parts),
            cached=check.cached,
            unread=(*found.coverage.unread, *_left_out(parts, self._reach)),
        )
        return Verdict(self.name, found.scores, found.spans, coverage)

    @property
    def alive(self) -> bool:
        return self.batcher.ready

    @property
    def queued(self) -> int:
        return self.batcher.queued

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Reader"]:
        async with self.batcher.running():
            yield self

    @property
    def _guard(self) -> str:
        return f"{self.name}@{self.version}"

    def _urgency_of(self, conversation: Conversation) -> Urgency:
        if self._urgency is not None:
            return self._urgency
        return Urgency.STREAM if conversation.direction is Direction.RESPONSE else Urgency.PROMPT

    def _recall(self, check: _Check) -> None:
        """Takes from `todo` what the cache knows. Nothing of it is read now, so it costs no windows and no tokens."""
        unknown: deque[Passage] = deque()
        for passage in check.todo:
            known = self.cache.get(self._guard, passage)
            if known is None:
                unknown.append(passage)
                continue
            check.cached += 1
            unread = tuple(replace(item, path=passage.path) for item in known.coverage.unread)
            check.verdicts.append(replace(known, coverage=Coverage(unread=unread)))
        check.todo = unknown

    async def _ask_all(self, check: _Check) -> None:
        if len(check.todo) <= 1:
            await self._ask(check)
        else:
            async with anyio.create_task_group() as tasks:
                for _ in range(min(self._reach.at_once, len(check.todo))):
                    tasks.start_soon(self._ask, check, tasks.cancel_scope)
        if check.failure is not None:
            raise check.failure

    async def _ask(self, check: _Check, scope: anyio.CancelScope | None = None) -> None:
        """Asks about one passage after the other until none is left, or one fails."""
        try:
            while check.todo:
                passage = check.todo.popleft()
                verdict = await self.batcher.check(passage, check.urgency)
                check.verdicts.append(verdict)
                self.cache.put(self._guard, passage, verdict)
        except GuardError as exc:
            check.failure = exc
            if scope is not None:
                scope.cancel()


def _passages(conversation: Conversation, reach: Reach) -> Iterator[Passage]:
    """Everything that is read of a conversation."""
    direction = conversation.direction
    context = conversation.question if direction is Direction.RESPONSE else None
    for part in conversation.judged:
        text = _grown(part, reach)
        for start, end in _sections(text, reach).slices:
            yield Passage(direction, text[start:end], context, part.path)
    turns = conversation.turns[-reach.turns :] if direction is Direction.PROMPT else ()
    for group in (conversation.turns[-1:], turns):
        texts = [part.text for turn in group for part in turn.parts if part.text]
        joined = _joined(texts, reach) if len(texts) > 1 else ""
        for start, end in _sections(joined, reach).slices:
            yield Passage(direction, joined[start:end], context)


def _grown(part: Part, reach: Reach) -> str:
    """The text with what came before it, from a place that stays where it is while the text grows."""
    text = part.text or ""
    if not reach.before or not text.strip():
        return text
    return part.before[len(part.before) // reach.before * reach.before :] + text


def _sections(text: str, reach: Reach) -> Windows:
    length = len(text) if text.strip() else 0
    return windows(length, size=reach.section, overlap=reach.overlap, limit=reach.sections)


def _left_out(parts: Sequence[Part], reach: Reach) -> Iterator[Unread]:
    for part in parts:
        gap = _sections(part.text or "", reach).unread
        if gap is not None:
            yield Unread(part.path, UnreadReason.TOO_LONG, gap[1] - gap[0])


def _joined(texts: Sequence[str], reach: Reach) -> str:
    """The texts one after the other, long ones by their ends: the whole of each is read alone."""
    joined = ""
    for text in texts:
        if len(text) > 2 * reach.ends:
            text = f"{text[: reach.ends]}\n{text[-reach.ends :]}"
        joined += _between(joined, text) + text
    return joined


def _between(before: str, after: str) -> str:
    """Nothing between two Han characters, where a word may have been cut; a line end otherwise."""
    return "" if before and _is_han(before[-1]) and _is_han(after[0]) else "\n" if before else ""


def _is_han(character: str) -> bool:
    return "\u3400" <= character <= "\u9fff" or character >= "\U00020000"


def _different(passages: Iterator[Passage]) -> Iterator[Passage]:
    """Each text once for each context, wherever it stands."""
    seen: set[tuple[str, str | None]] = set()
    for passage in passages:
        if (passage.text, passage.context) not in seen:
            seen.add((passage.text, passage.context))
            yield passage
