"""Two guards: the small one reads everything, the large one only what the small one is unsure of."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from guard_runtime.conversation import Conversation
from guard_runtime.guard import Counting, Explainable, ExplainingGuard, Guard, OperatingPoints
from guard_runtime.verdict import CATEGORIES, Category, Verdict

BORDERS = 2_000
ABOVE = 1.01


@dataclass(frozen=True, slots=True)
class Band:
    """Risks in [low, high) go to the large guard. A `high` above 1 takes in a risk of exactly 1."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high:
            raise ValueError(f"a band cannot go from {self.low} to {self.high}")

    def holds(self, risk: float) -> bool:
        return self.low <= risk < self.high


class Cascade:
    """Outside the band the small guard's verdict stands; inside it the large guard's does.

    A large guard that names no kind of harm gets the small guard's: its risk, in the small one's proportions. Where the
    large guard fails, so does the cascade: what it was unsure of is not decided by the guard that was unsure.
    """

    def __init__(self, small: Guard, large: Guard, band: Band, *, name: str = "") -> None:
        self.name = name or f"{small.name}+{large.name}"
        versions = "+".join(f"{guard.name}@{guard.version}" for guard in (small, large))
        self.version = f"{versions}[{band.low:g},{band.high:g})"
        self.operating_points: OperatingPoints = large.operating_points or small.operating_points
        self.checks = 0
        self.escalated = 0
        self.small = small
        self.large = large
        self._band = band

    @property
    def ready(self) -> bool:
        return self.small.ready and self.large.ready

    @property
    def queued(self) -> int:
        return self.small.queued + self.large.queued

    @property
    def explainers(self) -> Sequence[ExplainingGuard]:
        """Those of both guards."""
        inner = (guard for guard in (self.small, self.large) if isinstance(guard, Explainable))
        return tuple(explainer for guard in inner for explainer in guard.explainers)

    def counts(self) -> Mapping[str, int]:
        """Its own checks and how many went to the large guard, and what both guards count."""
        work = {"checks": self.checks, "escalated": self.escalated}
        for place, guard in (("small", self.small), ("large", self.large)):
            if isinstance(guard, Counting):
                work |= {f"{place}_{what}": count for what, count in guard.counts().items()}
        return work

    async def check(self, conversation: Conversation) -> Verdict:
        """Raises `GuardError` where either guard that is needed does."""
        first = await self.small.check(conversation)
        self.checks += 1
        if not self._band.holds(first.risk):
            return replace(first, guard=self.name)
        self.escalated += 1
        second = await self.large.check(conversation)
        spans, coverage = (*first.spans, *second.spans), first.coverage + second.coverage
        if _discerning(second.scores):
            return Verdict(self.name, second.scores, spans, coverage, second.sources)
        return Verdict(self.name, _proportioned(second.risk, first.scores), spans, coverage)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Cascade"]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.small.running())
            await stack.enter_async_context(self.large.running())
            yield self


def _discerning(scores: Mapping[Category, float]) -> bool:
    """Whether a guard told one harm from another: all scores that are not 0 alike mean it did not."""
    return len({score for score in scores.values() if score > 0}) > 1


def _proportioned(risk: float, shape: Mapping[Category, float]) -> dict[Category, float]:
    highest = max(shape.values())
    if highest <= 0:
        return dict.fromkeys(CATEGORIES, risk)
    return {category: risk * shape[category] / highest for category in CATEGORIES}


@dataclass(frozen=True, slots=True)
class Tuned:
    """A band, and what it does on the rows it was chosen on: the share escalated, the mistakes (share of rows) of the
    small guard alone, of the large alone and of the cascade; `saved`: the share of the large guard's work spared."""

    band: Band
    rows: int
    escalated: float
    small: float
    large: float
    cascade: float

    @property
    def saved(self) -> float:
        return 1.0 - self.escalated

    @property
    def loss(self) -> float:
        """Mistakes above those of the large guard alone, in shares of all rows."""
        return self.cascade - self.large


@dataclass(frozen=True, slots=True)
class Scored:
    """One row: both guards' risks, and what is true."""

    small: float
    large: float
    unsafe: bool


def tune(rows: Sequence[Scored], max_loss: float, threshold: float = 0.5) -> Tuned:
    """The narrowest band (fewest rows escalated) whose cascade makes at most `max_loss` more mistakes, in shares of all
    rows, than the large guard on everything. A verdict is "unsafe" from `threshold` on.

    Bands begin and end at the rows' scores, at up to `BORDERS` of them. The figures are those of the rows the band was
    chosen on: measure it again on others. Raises `ValueError` without rows.
    """
    if not rows:
        raise ValueError("no rows to choose a band on")
    ordered = sorted(rows, key=lambda row: row.small)
    small_wrong = np.array([(row.small >= threshold) != row.unsafe for row in ordered])
    large_wrong = np.array([(row.large >= threshold) != row.unsafe for row in ordered])
    scores = np.array([row.small for row in ordered])
    cost = small_wrong.astype(np.int64) - large_wrong
    start, end = _narrowest(_borders(scores), cost, max_loss * len(ordered) + 1e-9)
    inside = np.zeros(len(ordered), bool)
    inside[start:end] = True
    low = float(scores[start]) if start < end else threshold
    high = threshold if start >= end else float(scores[end]) if end < len(ordered) else ABOVE
    return Tuned(
        band=Band(low, high),
        rows=len(ordered),
        escalated=float(inside.mean()),
        small=float(small_wrong.mean()),
        large=float(large_wrong.mean()),
        cascade=float(np.where(inside, large_wrong, small_wrong).mean()),
    )


def _borders(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Places between rows that score differently, both ends among them: rows that score alike go the same way."""
    inner = np.flatnonzero(np.diff(scores)) + 1
    if len(inner) > BORDERS:
        inner = inner[np.linspace(0, len(inner) - 1, BORDERS).astype(np.int64)]
    return np.concatenate(([0], inner, [len(scores)]))


def _narrowest(borders: npt.NDArray[np.int64], cost: npt.NDArray[np.int64], budget: float) -> tuple[int, int]:
    """The fewest rows [start, end) to escalate such that the small guard's extra mistakes on all others stay within
    budget; rows escalated nowhere where even that is within it."""
    before = np.concatenate(([0], np.cumsum(cost)))[borders]
    outside_after = before[-1] - before
    best = (0, int(borders[-1]))
    for place, start in enumerate(borders):
        fits = np.flatnonzero(before[place] + outside_after[place:] <= budget)
        if len(fits) and borders[place + fits[0]] - start < best[1] - best[0]:
            best = (int(start), int(borders[place + fits[0]]))
    return best
