"""From a conversation to one verdict: which passages are scored, in which context, and which the cache knows."""

from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import anyio

from guard_runtime.conversation import Conversation, Direction, Part, Source, Turn, source_of
from guard_runtime.errors import GuardError
from guard_runtime.guard import Counting, ExplainingGuard, OperatingPoints, Passage
from guard_runtime.serving.batcher import Priority
from guard_runtime.serving.verdict_cache import VerdictCache
from guard_runtime.text.scripts import is_han
from guard_runtime.text.windows import Windows, windows
from guard_runtime.verdict import Coverage, Unread, UnreadReason, Verdict, worst


class DescribedModel(Protocol):
    """What the guard takes over from its model."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def operating_points(self) -> OperatingPoints: ...


class Scorer(Protocol):
    """Scores one passage: a batcher with a model behind it, or a server elsewhere."""

    @property
    def ready(self) -> bool: ...

    @property
    def queued(self) -> int: ...

    async def check(self, passage: Passage, priority: Priority = Priority.PROMPT) -> Verdict: ...

    def running(self) -> AbstractAsyncContextManager[object]: ...


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How much is read, in characters. A part longer than `section` is read in sections, so that one long text does not
    keep other requests waiting; of more than `sections` the middle ones are left out and reported as unread. The parts
    of the last turn, and those of the last `turns`, are also read joined: each part whole, or if it is long its first
    and last `ends`. `at_once` passages of one conversation are in the queue. A streamed answer is read with up to
    `before` characters of what came before it by a model that caches what it has read. For other models it is 0."""

    section: int = 5_000
    overlap: int = 400
    sections: int = 14
    ends: int = 400
    turns: int = 4
    at_once: int = 8
    before: int = 0


@dataclass(slots=True)
class _Check:
    """One check under way: passages still to be scored, and the verdicts on the others."""

    priority: Priority
    todo: deque[Passage]
    verdicts: list[Verdict] = field(default_factory=list)
    cached: int = 0
    failure: GuardError | None = None


class PassageGuard:
    """A `Guard` that scores a conversation passage by passage.

    A prompt: every part of every turn alone, the parts of the last turn joined, and the last turn with up to three
    before it. An answer: every part in the context of the question, and the parts joined. A passage that the same guard
    has scored before, in the same direction and context, comes from the cache.
    """

    def __init__(
        self,
        model: DescribedModel,
        scorer: Scorer,
        cache: VerdictCache,
        *,
        limits: ReadLimits = ReadLimits(),
        explainer: ExplainingGuard | None = None,
    ) -> None:
        self.name = model.name
        self.version = model.version
        self.operating_points = model.operating_points
        self.explainers = () if explainer is None else (explainer,)
        self._scorer = scorer
        self._cache = cache
        self._limits = limits

    async def check(self, conversation: Conversation) -> Verdict:
        """Raises `GuardError` when one of its passages has no verdict: an incomplete reading is no verdict."""
        check = _Check(_priority(conversation), deque(_different(_passages(conversation, self._limits))))
        self._recall(check)
        await self._score_all(check)
        parts = [part for part in conversation.judged if part.text]
        verdict = worst(self.name, check.verdicts)
        coverage = replace(
            verdict.coverage,
            parts=len(parts),
            characters=sum(len(part.text or "") for part in parts),
            cached=check.cached,
            unread=(*verdict.coverage.unread, *_left_out(parts, self._limits)),
        )
        return Verdict(self.name, verdict.scores, verdict.spans, coverage)

    @property
    def ready(self) -> bool:
        return self._scorer.ready

    @property
    def queued(self) -> int:
        return self._scorer.queued

    def counts(self) -> Mapping[str, int]:
        """Passages that the cache knew and did not know, and what the model counts."""
        model = self._scorer.counts() if isinstance(self._scorer, Counting) else {}
        return {"cache_hits": self._cache.hits, "cache_misses": self._cache.misses, **model}

    @asynccontextmanager
    async def running(self) -> AsyncIterator["PassageGuard"]:
        async with self._scorer.running():
            yield self

    @property
    def _versioned_name(self) -> str:
        return f"{self.name}@{self.version}"

    def _recall(self, check: _Check) -> None:
        """Moves what the cache knows from `todo` to `verdicts`. It costs no windows or tokens now."""
        unknown: deque[Passage] = deque()
        for passage in check.todo:
            known = self._cache.get(self._versioned_name, passage)
            if known is None:
                unknown.append(passage)
                continue
            check.cached += 1
            unread = tuple(replace(item, path=passage.path) for item in known.coverage.unread)
            check.verdicts.append(replace(known, coverage=Coverage(unread=unread)))
        check.todo = unknown

    async def _score_all(self, check: _Check) -> None:
        if len(check.todo) <= 1:
            await self._score_rest(check)
        else:
            async with anyio.create_task_group() as tasks:
                for _ in range(min(self._limits.at_once, len(check.todo))):
                    tasks.start_soon(self._score_rest, check, tasks.cancel_scope)
        if check.failure is not None:
            raise check.failure

    async def _score_rest(self, check: _Check, scope: anyio.CancelScope | None = None) -> None:
        """Scores one passage after the other until none is left, or one fails."""
        try:
            while check.todo:
                passage = check.todo.popleft()
                verdict = await self._scorer.check(passage, check.priority)
                check.verdicts.append(verdict)
                self._cache.put(self._versioned_name, passage, verdict)
        except GuardError as exc:
            check.failure = exc
            if scope is not None:
                scope.cancel()


def _priority(conversation: Conversation) -> Priority:
    return Priority.STREAM if conversation.direction is Direction.RESPONSE else Priority.PROMPT


def _passages(conversation: Conversation, limits: ReadLimits) -> Iterator[Passage]:
    """Everything that is read of a conversation."""
    direction = conversation.direction
    context = conversation.question if direction is Direction.RESPONSE else None
    judged = conversation.turns if direction is Direction.PROMPT else conversation.turns[-1:]
    for turn in judged:
        for part in turn.parts:
            text = _grown(part, limits)
            for start, end in _sections(text, limits).slices:
                yield Passage(direction, text[start:end], context, part.path, source_of(turn.role, part.kind))
    turns = conversation.turns[-limits.turns :] if direction is Direction.PROMPT else ()
    for group in (conversation.turns[-1:], turns):
        texts = [part.text for turn in group for part in turn.parts if part.text]
        joined = _joined(texts, limits) if len(texts) > 1 else ""
        for start, end in _sections(joined, limits).slices:
            yield Passage(direction, joined[start:end], context, source=_common_source(group))


def _common_source(turns: Sequence[Turn]) -> Source:
    """Where all parts have one. Otherwise the user's, whose words are judged for everything."""
    sources = {source_of(turn.role, part.kind) for turn in turns for part in turn.parts if part.text}
    return sources.pop() if len(sources) == 1 else Source.USER


def _grown(part: Part, limits: ReadLimits) -> str:
    """The text with what came before it, from a place that stays where it is while the text grows."""
    text = part.text or ""
    if not limits.before or not text.strip():
        return text
    return part.before[len(part.before) // limits.before * limits.before :] + text


def _sections(text: str, limits: ReadLimits) -> Windows:
    length = len(text) if text.strip() else 0
    return windows(length, size=limits.section, overlap=limits.overlap, limit=limits.sections)


def _left_out(parts: Sequence[Part], limits: ReadLimits) -> Iterator[Unread]:
    for part in parts:
        gap = _sections(part.text or "", limits).unread
        if gap is not None:
            yield Unread(part.path, UnreadReason.TOO_LONG, gap[1] - gap[0])


def _joined(texts: Sequence[str], limits: ReadLimits) -> str:
    """The texts one after the other, long ones by their ends: the whole of each is read alone."""
    joined = ""
    for text in texts:
        if len(text) > 2 * limits.ends:
            text = f"{text[: limits.ends]}\n{text[-limits.ends :]}"
        joined += _between(joined, text) + text
    return joined


def _between(before: str, after: str) -> str:
    """Nothing between two Han characters, where a word may have been cut; a line end otherwise."""
    return "" if before and is_han(before[-1]) and is_han(after[0]) else "\n" if before else ""


def _different(passages: Iterator[Passage]) -> Iterator[Passage]:
    """Each text once for each context and source, wherever it stands."""
    seen: set[tuple[str, str | None, Source]] = set()
    for passage in passages:
        read = (passage.text, passage.context, passage.source)
        if read not in seen:
            seen.add(read)
            yield passage
