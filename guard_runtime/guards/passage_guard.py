"""From a conversation to one verdict: which passages are scored, in which context, and which the cache knows."""

from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import anyio

from guard_runtime.conversation import Conversation, Direction, Part, Role, Source, source_of
from guard_runtime.errors import GuardError
from guard_runtime.guard import NO_PENALTIES, Counting, ExplainingGuard, OperatingPoints, Passage, Penalised
from guard_runtime.serving.batcher import Priority
from guard_runtime.serving.verdict_cache import VerdictCache
from guard_runtime.text.scripts import is_han
from guard_runtime.text.windows import Windows, windows
from guard_runtime.verdict import (
    CATEGORIES,
    Coverage,
    Place,
    SourceScores,
    Unread,
    UnreadReason,
    Verdict,
    corrected,
    worst,
)


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
    and last `ends`. So are the user's last `shorts` texts of at most `short` characters, however many turns lie between
    them: a request can be split over the whole of a conversation. `at_once` passages of one conversation are in the
    queue. A streamed answer is read with up to `before` characters of what came before it by a model that caches what
    it has read. For other models it is 0."""

    section: int = 5_000
    overlap: int = 400
    sections: int = 14
    ends: int = 400
    turns: int = 4
    short: int = 120
    shorts: int = 8
    at_once: int = 8
    before: int = 0


_NEVER_SPLIT = frozenset({Source.SYSTEM, Source.TOOL_DEFINITION})
"""Over these no caller can split a request: the leading system prompt and the tool definitions are the tenant's own."""


@dataclass(slots=True)
class _Check:
    """One check under way: passages still to be scored, and the verdicts on the others."""

    priority: Priority
    scope: str
    todo: deque[Passage]
    verdicts: list[Verdict] = field(default_factory=list)
    cached: int = 0
    failure: GuardError | None = None


class PassageGuard:
    """A `Guard` that scores a conversation passage by passage.

    A prompt: every part of every turn alone, the parts of the last turn joined, and the last turn with up to three
    before it; of what is joined, only short texts and the ends of long ones, and none of the leading system prompt and
    the tool definitions. An answer: every part in the context of the question, and the parts joined. A passage that the
    same guard has scored before, in the same direction and context, comes from the cache.

    Scores of a model with `window_penalties` are corrected for the number of windows of each source (see `corrected`).
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
        self._penalties = model.window_penalties if isinstance(model, Penalised) else NO_PENALTIES

    async def check(self, conversation: Conversation) -> Verdict:
        """Raises `GuardError` when one of its passages has no verdict: an incomplete reading is no verdict."""
        check = _Check(
            _priority(conversation), conversation.scope, deque(_different(_passages(conversation, self._limits)))
        )
        self._recall(check)
        await self._score_all(check)
        parts = [part for part in conversation.judged if part.text]
        verdict = worst(self.name, check.verdicts)
        sources = tuple(corrected(read, self._penalties.get(read.source, 0.0)) for read in verdict.sources)
        scores = {c: max((read.scores[c] for read in sources), default=0.0) for c in CATEGORIES}
        coverage = replace(
            verdict.coverage,
            parts=len(parts),
            characters=sum(len(part.text or "") for part in parts),
            cached=check.cached,
            unread=(*verdict.coverage.unread, *_left_out(parts, self._limits)),
        )
        return Verdict(self.name, scores, verdict.spans, coverage, sources)

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

    def _cache_name(self, scope: str) -> str:
        """What verdicts are kept under. Nobody is to learn from one whether somebody else has sent the same text."""
        return f"{self.name}@{self.version} {scope}"

    def _recall(self, check: _Check) -> None:
        """Moves what the cache knows from `todo` to `verdicts`. It costs no windows or tokens now."""
        unknown: deque[Passage] = deque()
        for passage in check.todo:
            known = self._cache.get(self._cache_name(check.scope), passage)
            if known is None:
                unknown.append(passage)
                continue
            check.cached += 1
            unread = tuple(replace(item, path=passage.path) for item in known.coverage.unread)
            check.verdicts.append(_placed(replace(known, coverage=Coverage(unread=unread)), passage))
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
                check.verdicts.append(_placed(verdict, passage))
                self._cache.put(self._cache_name(check.scope), passage, verdict)
        except GuardError as exc:
            check.failure = exc
            if scope is not None:
                scope.cancel()


def _placed(verdict: Verdict, passage: Passage) -> Verdict:
    """The verdict with its places where this passage stands: the same text may have been scored elsewhere before. A
    model that does not say which window decided has read the passage in one piece."""
    if verdict.sources:
        return replace(verdict, sources=tuple(_moved(read, passage) for read in verdict.sources))
    end = passage.start + len(passage.text)
    places = {c: Place(passage.path, passage.start, end, verdict.scores[c]) for c in CATEGORIES}
    return replace(verdict, sources=(SourceScores(passage.source, verdict.scores, places),))


def _moved(read: SourceScores, passage: Passage) -> SourceScores:
    offset = passage.start
    places = {
        category: replace(place, path=passage.path, start=offset + place.start, end=offset + place.end)
        for category, place in read.places.items()
    }
    return replace(read, places=places)


def _priority(conversation: Conversation) -> Priority:
    return Priority.STREAM if conversation.direction is Direction.RESPONSE else Priority.PROMPT


def _passages(conversation: Conversation, limits: ReadLimits) -> Iterator[Passage]:
    """Everything that is read of a conversation."""
    direction = conversation.direction
    context = conversation.question if direction is Direction.RESPONSE else None
    parts = tuple(_judged(conversation))
    for _, part, source in parts:
        text = _grown(part, limits)
        for start, end in _sections(text, limits).slices:
            yield Passage(direction, text[start:end], context, part.path, source, start)
    for texts in _joinable(conversation, parts, limits):
        sources = {source for _, source in texts}
        source = next(iter(sources)) if len(sources) == 1 else Source.USER
        joined = _joined([text for text, _ in texts], limits) if len(texts) > 1 else ""
        for start, end in _sections(joined, limits).slices:
            yield Passage(direction, joined[start:end], context, source=source, start=start)


def _joinable(
    conversation: Conversation, parts: Sequence[tuple[int, Part, Source]], limits: ReadLimits
) -> Iterator[Sequence[tuple[str, Source]]]:
    """The texts over which a request may be split: the last turn's; in a prompt the last turns', and what the user said
    shortly before them too."""
    texts = [(turn, part.text, source) for turn, part, source in parts if part.text and source not in _NEVER_SPLIT]
    last = len(conversation.turns) - 1
    yield [(text, source) for turn, text, source in texts if turn == last]
    if conversation.direction is Direction.PROMPT:
        yield [(text, source) for turn, text, source in texts if turn > last - limits.turns]
        short = [(text, source) for _, text, source in texts if source is Source.USER and len(text) <= limits.short]
        if last >= limits.turns:
            yield short[-limits.shorts :]


def _judged(conversation: Conversation) -> Iterator[tuple[int, Part, Source]]:
    """Every part that is judged, with the number of its turn and what its text is. A system turn after the first other
    turn may come from anybody, so it is read as what the user says."""
    last = len(conversation.turns) - 1
    leading = True
    for number, turn in enumerate(conversation.turns):
        leading = leading and turn.role is Role.SYSTEM
        if conversation.direction is Direction.RESPONSE and number < last:
            continue
        for part in turn.parts:
            source = source_of(turn.role, part.kind)
            yield number, part, Source.USER if source is Source.SYSTEM and not leading else source


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
