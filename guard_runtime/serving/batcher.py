"""Many coroutines, one model, one thread. No timer: while one batch is on the model, the next one gathers."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from typing import Protocol, TypeVar

import anyio
import anyio.to_thread

from guard_runtime.errors import GuardError, GuardFailed, GuardOverloaded, GuardTimeout
from guard_runtime.guard import Model, Passage
from guard_runtime.verdict import Verdict

T = TypeVar("T")


class Urgency(IntEnum):
    """Who goes first: somebody is reading a stream, somebody waits for an answer, nobody waits."""

    STREAM = 0
    PROMPT = 1
    OFFLINE = 2


class Lane(Protocol):
    """Where a model runs, one piece of work at a time."""

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises. Cancelling it leaves the work behind."""

    async def free(self) -> None:
        """Returns when work that was left behind has ended."""


class ThreadLane:
    """A thread of its own. ONNX Runtime frees the GIL while it computes."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(1)

    async def run(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._limiter, abandon_on_cancel=True)

    async def free(self) -> None:
        async with self._limiter:
            pass


@dataclass(frozen=True, slots=True)
class BatchSeen:
    """One batch, for metrics: passages in it and still queued behind it; the longest wait and the run in seconds."""

    size: int
    queued: int
    waited: float
    seconds: float
    failed: bool


@dataclass(slots=True, eq=False)
class _Job:
    passage: Passage
    since: float
    done: anyio.Event = field(default_factory=anyio.Event)
    verdict: Verdict | None = None
    error: GuardFailed | None = None

    def answer(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.done.set()

    def fail(self, error: str, cause: Exception | None = None) -> None:
        self.error = GuardFailed(error)
        self.error.__cause__ = cause
        self.done.set()


@dataclass(slots=True, eq=False)
class _Spare:
    """Work that nobody waits for, and what its last step gave."""

    steps: Iterator[str]
    done: anyio.Event = field(default_factory=anyio.Event)
    found: str = ""
    error: GuardFailed | None = None

    def fail(self, error: str, cause: Exception | None = None) -> None:
        self.error = GuardFailed(error)
        self.error.__cause__ = cause
        self.done.set()


@dataclass(frozen=True, slots=True)
class Limits:
    """`queue`: passages that may wait before callers are turned away. `batch`: passages the model gets at once.
    `patience`: seconds after which a batch that has not returned counts as hung."""

    queue: int = 512
    batch: int = 1
    patience: float = 20.0


class Batcher:
    """Verdicts for passages, the most urgent first, and first come first served among equals.

    An idle model takes a lone passage at once; a busy one takes up to `limits.batch` of those that came in meanwhile.
    Callers who left are not read. Nobody waits for ever: whatever ends the lane (an exception, a hung thread, shutdown)
    reaches every waiter as `GuardFailed`.
    """

    def __init__(
        self,
        model: Model,
        *,
        name: str,
        limits: Limits = Limits(),
        lane: Lane | None = None,
    ) -> None:
        self.name = name
        self.limits = limits
        self._model = model
        self._lane = lane or ThreadLane()
        self.observe: Callable[[BatchSeen], None] | None = None
        self._queues: tuple[deque[_Job], ...] = tuple(deque() for _ in Urgency)
        self._running: tuple[_Job, ...] = ()
        self._spare: deque[_Spare] = deque()
        self._wake = anyio.Event()
        self._closed = "is not running"

    @property
    def queued(self) -> int:
        """Passages that wait."""
        return sum(map(len, self._queues))

    @property
    def ready(self) -> bool:
        """Whether a check can be answered now: running, and not hung."""
        return not self._closed

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Batcher"]:
        """Serves while it is open. On the way out, whoever still waits is told."""
        if not self._closed:
            raise GuardFailed(f"{self.name}: runs already")
        async with anyio.create_task_group() as tasks:
            self._closed = ""
            tasks.start_soon(self._serve)
            yield self
            tasks.cancel_scope.cancel()

    async def check(self, passage: Passage, urgency: Urgency = Urgency.PROMPT) -> Verdict:
        """Raises `GuardOverloaded` at once when the queue is full, `GuardFailed` when the model gives no verdict."""
        if self._closed:
            raise GuardFailed(f"{self.name}: {self._closed}")
        if self.queued >= self.limits.queue:
            raise GuardOverloaded(f"{self.name}: {self.queued} passages wait already")
        job = _Job(passage, anyio.current_time())
        queue = self._queues[urgency]
        queue.append(job)
        self._wake.set()
        try:
            await job.done.wait()
        finally:
            if not job.done.is_set() and job in queue:
                queue.remove(job)
        if job.verdict is None:
            raise job.error or GuardFailed(f"{self.name}: no verdict")
        return job.verdict

    async def idly(self, steps: Iterator[str]) -> str:
        """What the last of `steps` gives. Each is taken on the model's thread while nobody waits for a verdict, so that
        a check waits for one step at most. Raises `GuardFailed` where a step does not come off."""
        if self._closed:
            raise GuardFailed(f"{self.name}: {self._closed}")
        spare = _Spare(steps)
        self._spare.append(spare)
        self._wake.set()
        try:
            await spare.done.wait()
        finally:
            if spare in self._spare:
                self._spare.remove(spare)
        if spare.error is not None:
            raise spare.error
        return spare.found

    async def _serve(self) -> None:
        try:
            while True:
                self._running = self._take()
                if self._running:
                    await self._answer(self._running)
                    self._running = ()
                elif self._spare:
                    await self._step(self._spare[0])
                else:
                    self._wake = anyio.Event()
                    await self._wake.wait()
        finally:
            self._close("is shut down")

    def _take(self) -> tuple[_Job, ...]:
        taken: list[_Job] = []
        for queue in self._queues:
            while queue and len(taken) < self.limits.batch:
                taken.append(queue.popleft())
        return tuple(taken)

    async def _answer(self, jobs: Sequence[_Job]) -> None:
        started = anyio.current_time()
        error = ""
        cause: Exception | None = None
        try:
            with anyio.fail_after(self.limits.patience):
                verdicts = await self._lane.run(partial(self._verdicts, [job.passage for job in jobs]))
            for job, verdict in zip(jobs, verdicts, strict=True):
                job.answer(verdict)
        except TimeoutError as exc:
            error, cause = f"no verdict within {self.limits.patience:g} s; its thread hangs", exc
        except GuardError as exc:
            error, cause = str(exc), exc
        except Exception as exc:  # noqa: BLE001 - whatever the model raises belongs to every caller who waits for it
            error, cause = type(exc).__name__, exc  # not its words: they might quote the text
        for job in jobs if error else ():
            job.fail(f"{self.name}: {error}", cause)
        self._tell(jobs, started, failed=bool(error))
        if isinstance(cause, TimeoutError):
            await self._until_free(error)

    async def _step(self, spare: _Spare) -> None:
        try:
            with anyio.fail_after(self.limits.patience):
                found = await self._lane.run(partial(next, spare.steps, None))
        except TimeoutError as exc:
            spare.fail(f"{self.name}: a step took more than {self.limits.patience:g} s; its thread hangs", exc)
            await self._until_free("its thread hangs")
        except Exception as exc:  # noqa: BLE001 - as in `_answer`: it belongs to whoever wanted the work done
            spare.fail(f"{self.name}: {type(exc).__name__}", exc)
        else:
            if found is None:
                spare.done.set()
            else:
                spare.found = found
        if spare.done.is_set() and spare in self._spare:
            self._spare.remove(spare)

    def _tell(self, jobs: Sequence[_Job], started: float, *, failed: bool) -> None:
        if self.observe is not None:
            waited = max(started - job.since for job in jobs)
            self.observe(BatchSeen(len(jobs), self.queued, waited, anyio.current_time() - started, failed))

    def _verdicts(self, passages: Sequence[Passage]) -> Sequence[Verdict]:
        """On the lane. A model that raises TimeoutError has not hung: see `_answer`."""
        try:
            verdicts = tuple(self._model.predict(passages))
        except TimeoutError as exc:
            raise GuardTimeout("the model timed out") from exc
        if len(verdicts) != len(passages):
            raise GuardFailed(f"{len(verdicts)} verdicts for {len(passages)} passages")
        if not all(isinstance(verdict, Verdict) for verdict in verdicts):
            raise GuardFailed("the model returned something that is no verdict")
        return verdicts

    async def _until_free(self, error: str) -> None:
        """Turns everybody away until the hung thread comes back."""
        self._close(error)
        await self._lane.free()
        self._closed = ""

    def _close(self, why: str) -> None:
        self._closed = why
        for job in (*self._running, *(job for queue in self._queues for job in queue)):
            if not job.done.is_set():
                job.fail(f"{self.name}: {why}")
        for spare in self._spare:
            spare.fail(f"{self.name}: {why}")
        for queue in self._queues:
            queue.clear()
        self._spare.clear()
