"""What every guard is, and what every model behind one is."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from guard_runtime.conversation import Conversation, Direction, Path, Source
from guard_runtime.verdict import Category, Verdict

OperatingPoints = Mapping[str, Mapping[Direction, Mapping[Category, float]]]
"""Named thresholds a guard was measured at: {"balanced": {direction: {category: score}}}."""

STRICT, BALANCED, PERMISSIVE = "strict", "balanced", "permissive"
POINTS = (STRICT, BALANCED, PERMISSIVE)
"""The names of the operating points, from the lowest threshold to the highest: `strict` stops most. A guard has the
first two; `permissive`, for text that is judged for grave harm only, it may have."""


NO_PENALTIES: Mapping[Source, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Passage:
    """One text to score. `context` is the question an answer replies to; None where there is none.
    `path` says which part the text is, () where it is several parts joined, and `start` at which of its characters the
    text begins. `source` says what the text is."""

    direction: Direction
    text: str
    context: str | None = None
    path: Path = ()
    source: Source = Source.USER
    start: int = 0

    @classmethod
    def answer(cls, text: str, question: str) -> "Passage":
        """What an assistant says to a question."""
        return cls(Direction.RESPONSE, text, question, source=Source.ASSISTANT)


class Guard(Protocol):
    """The one thing the gateway knows about guards."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str:
        """Changes whenever the same text could get another score: it is part of every cache key and record."""

    @property
    def operating_points(self) -> OperatingPoints: ...

    @property
    def ready(self) -> bool:
        """Whether a check can be answered now: what runs it is up, and does not hang."""

    @property
    def queued(self) -> int:
        """Checks that wait."""

    async def check(self, conversation: Conversation) -> Verdict:
        """Raises `GuardError` when there is no verdict."""

    def running(self) -> AbstractAsyncContextManager[object]:
        """Holds what the guard needs while it serves (threads, connections)."""


@runtime_checkable
class Counting(Protocol):
    """A guard that counts its own work, for the metrics."""

    def counts(self) -> Mapping[str, int]:
        """Totals since the start, by what is counted."""


@runtime_checkable
class Penalised(Protocol):
    """A model whose scores are corrected for the number of windows that were read."""

    @property
    def window_penalties(self) -> Mapping[Source, float]:
        """For each source how much is taken off a score's logit, times the logarithm of the number of windows."""


@runtime_checkable
class SpanFinder(Protocol):
    """A guard that marks the very characters it means. It is asked first: what a policy masks is masked before the
    other guards read it."""

    finds_spans: bool


class ExplainingGuard(Protocol):
    """Explains a guard's verdicts in words: for the audit log, never while a caller waits."""

    @property
    def name(self) -> str: ...

    async def explain(self, conversation: Conversation) -> str:
        """ "" where it has no explanation. Raises `GuardError`."""


@runtime_checkable
class Explainable(Protocol):
    """A guard whose verdicts can be explained."""

    @property
    def explainers(self) -> Sequence[ExplainingGuard]:
        """Its own explainer, or those of the guards inside it; () where it was not asked to explain."""


class Model(Protocol):
    """A guard model, as the batcher sees it: blocking, batched, run on one thread."""

    def predict(self, batch: Sequence[Passage]) -> Sequence[Verdict]: ...
