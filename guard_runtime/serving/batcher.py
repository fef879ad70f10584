"""Scores passages of many callers with one model on one thread. While one batch runs, the next one gathers."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import TypeVar

import anyio

from guard_runtime.errors import GuardError, GuardFailed, GuardOverloaded, GuardTimeout
from guard_runtime.guard import Counting, Model, Passage
from guard_runtime.serving.batch_observer import BatchObserver, BatchStats
from guard_runtime.serving.executor import Executor, ThreadExecutor
from guard_runtime.serving.jobs import BackgroundJob, BackgroundQueue, Job, PassageJob
from guard_runtime.verdict import Verdict

T = TypeVar("T")


class Priority(IntEnum):
    """Which passages are scored first: those of live streams, then those of requests that wait for an answer."""

    STREAM = 0
    PROMPT = 1


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """`queue`: passages that may wait before callers are turned away. `batch`: passages the model gets at once.
    `hang_after`: seconds after which a batch that has not returned counts as hung."""

    queue: int = 512
    batch: int = 1
    hang_after: float = 20.0


class Batcher:
    """Verdicts for passages: by priority, and in order of arrival within a priority.

    An idle model takes a lone passage at once; a busy one takes up to `limits.batch` of those that came in meanwhile.
    Passages whose caller left are not scored. No caller waits for ever: an exception, a hung thread or a shutdown
    reaches every waiting caller as `GuardFailed`.
    """

    def __init__(
        self,
        model: Model,
        *,
        name: str,
        limits: QueueLimits = QueueLimits(),
        executor: Executor | None = None,
        observer: BatchObserver | None = None,
    ) -> None:
        self.name = name
        self.limits = limits
        self._model = model
        self._executor = executor or ThreadExecutor()
        self._observer = observer
        self._queues: tuple[deque[PassageJob], ...] = tuple(deque() for _ in Priority)
        self._background = BackgroundQueue()
        self._running: Sequence[Job] = ()
        self._wake = anyio.Event()
        self._closed: str | None = "is not running"

    @property
    def queued(self) -> int:
        """Passages that wait."""
        return sum(map(len, self._queues))

    @property
    def ready(self) -> bool:
        """Whether a check can be answered now: running, and not hung."""
        return self._closed is None

    def counts(self) -> Mapping[str, int]:
        """What its model counts."""
        return self._model.counts() if isinstance(self._model, Counting) else {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Batcher"]:
        """Serves while it is open. When it closes, every caller that still waits gets `GuardFailed`."""
        if self.ready:
            raise GuardFailed(f"{self.name}: runs already")
        async with anyio.create_task_group() as tasks:
            self._closed = None
            tasks.start_soon(self._serve)
            yield self
            tasks.cancel_scope.cancel()

    async def check(self, passage: Passage, priority: Priority = Priority.PROMPT) -> Verdict:
        """Raises `GuardOverloaded` at once when the queue is full, `GuardFailed` when the model gives no verdict."""
        self._require_ready()
        if self.queued >= self.limits.queue:
            raise GuardOverloaded(f"{self.name}: {self.queued} passages wait already")
        job = PassageJob(passage, anyio.current_time())
        queue = self._queues[priority]
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

    async def run_when_idle(self, steps: Iterator[str]) -> str:
        """What the last of `steps` returns. A step runs on the model's thread and only while no passage waits, so a
        check waits for one step at most. Raises `GuardFailed` when a step fails."""
        self._require_ready()
        job = self._background.add(steps)
        self._wake.set()
        return await self._background.result(job)

    def _require_ready(self) -> None:
        if self._closed is not None:
            raise GuardFailed(f"{self.name}: {self._closed}")

    async def _serve(self) -> None:
        try:
            while True:
                self._running = ()
                if self._closed is not None:
                    await self._reopen_when_free()
                elif jobs := self._take():
                    await self._score(jobs)
                elif job := self._background.first():
                    await self._advance(job)
                else:
                    self._wake = anyio.Event()
                    await self._wake.wait()
        finally:
            self._close("is shut down")

    def _take(self) -> tuple[PassageJob, ...]:
        jobs: list[PassageJob] = []
        for queue in self._queues:
            while queue and len(jobs) < self.limits.batch:
                jobs.append(queue.popleft())
        return tuple(jobs)

    async def _score(self, jobs: Sequence[PassageJob]) -> None:
        started = anyio.current_time()
        passages = [job.passage for job in jobs]
        verdicts = await self._run(jobs, partial(self._verdicts, passages))
        for job, verdict in zip(jobs, verdicts, strict=True) if verdicts is not None else ():
            job.succeed(verdict)
        if self._observer is not None:
            wait = max(started - job.since for job in jobs)
            stats = BatchStats(len(jobs), wait, anyio.current_time() - started, failed=verdicts is None)
            self._observer.batch_finished(self.name, stats)

    async def _advance(self, job: BackgroundJob) -> None:
        step = await self._run((job,), job.advance)
        if not job.done.is_set():
            job.record(step)

    async def _run(self, jobs: Sequence[Job], work: Callable[[], T]) -> T | None:
        """What `work` returns. When it fails, all `jobs` fail with its error and the result is None; when it hangs, the
        batcher is closed as well."""
        self._running = jobs
        try:
            with anyio.fail_after(self.limits.hang_after):
                return await self._executor.run(work)
        except TimeoutError as exc:
            problem = f"no result within {self.limits.hang_after:g} s; the model's thread does not answer"
            self._fail(jobs, problem, exc)
            self._close(problem)
        except GuardError as exc:
            self._fail(jobs, str(exc), exc)
        except Exception as exc:  # noqa: BLE001 - every caller that waits for this work must hear of its failure
            self._fail(jobs, type(exc).__name__, exc)  # without its message, which might quote the text
        return None

    def _verdicts(self, passages: Sequence[Passage]) -> Sequence[Verdict]:
        """Runs on the model's thread. A model that raises TimeoutError has not hung, so it becomes a `GuardError`."""
        try:
            verdicts = tuple(self._model.predict(passages))
        except TimeoutError as exc:
            raise GuardTimeout("the model timed out") from exc
        if len(verdicts) != len(passages):
            raise GuardFailed(f"{len(verdicts)} verdicts for {len(passages)} passages")
        if not all(isinstance(verdict, Verdict) for verdict in verdicts):
            raise GuardFailed("the model returned something that is no verdict")
        return verdicts

    async def _reopen_when_free(self) -> None:
        """Refuses every check until the hung thread comes back."""
        await self._executor.wait_until_free()
        self._closed = None

    def _close(self, reason: str) -> None:
        self._closed = reason
        self._fail((*self._running, *(job for queue in self._queues for job in queue)), reason)
        self._background.fail_all(f"{self.name}: {reason}")
        for queue in self._queues:
            queue.clear()

    def _fail(self, jobs: Sequence[Job], problem: str, cause: Exception | None = None) -> None:
        for job in jobs:
            if not job.done.is_set():
                job.fail(f"{self.name}: {problem}", cause)
