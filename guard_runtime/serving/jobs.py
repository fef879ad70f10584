"""What a batcher runs: passages to score, and background work done in steps while no passage waits."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import anyio

from guard_runtime.errors import GuardFailed
from guard_runtime.guard import Passage
from guard_runtime.verdict import Verdict


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """Work that a caller waits for until `done` is set: by a result or by an error."""

    done: anyio.Event = field(default_factory=anyio.Event)
    error: GuardFailed | None = None

    def fail(self, message: str, cause: Exception | None = None) -> None:
        self.error = GuardFailed(message)
        self.error.__cause__ = cause
        self.done.set()


@dataclass(slots=True, eq=False)
class PassageJob(Job):
    """One passage and, in the end, its verdict. `since` is when it joined the queue."""

    passage: Passage
    since: float
    verdict: Verdict | None = None

    def succeed(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.done.set()


@dataclass(slots=True, eq=False)
class BackgroundJob(Job):
    """Work in steps, and what the last step returned."""

    steps: Iterator[str]
    result: str = ""

    def advance(self) -> str | None:
        """Takes one step, on the model's thread. None when there are no more."""
        return next(self.steps, None)

    def record(self, step: str | None) -> None:
        """Keeps what a step returned; None ends the job."""
        if step is None:
            self.done.set()
        else:
            self.result = step


class BackgroundQueue:
    """Background jobs in the order they came. One whose caller left is not continued."""

    def __init__(self) -> None:
        self._jobs: deque[BackgroundJob] = deque()

    def add(self, steps: Iterator[str]) -> BackgroundJob:
        job = BackgroundJob(steps)
        self._jobs.append(job)
        return job

    async def result(self, job: BackgroundJob) -> str:
        """What the job's last step returned. Raises `GuardFailed` when a step failed."""
        try:
            await job.done.wait()
        finally:
            if job in self._jobs:
                self._jobs.remove(job)
        if job.error is not None:
            raise job.error
        return job.result

    def first(self) -> BackgroundJob | None:
        """The job whose next step is due."""
        while self._jobs and self._jobs[0].done.is_set():
            self._jobs.popleft()
        return self._jobs[0] if self._jobs else None

    def fail_all(self, message: str) -> None:
        for job in self._jobs:
            if not job.done.is_set():
                job.fail(message)
        self._jobs.clear()
