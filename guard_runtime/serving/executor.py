"""Where a model runs, one piece of work at a time."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")


class Executor(Protocol):
    """Runs blocking work without blocking the event loop."""

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises. Cancelling the call leaves the work running."""

    async def wait_until_free(self) -> None:
        """Returns when work that was left running has ended."""


class ThreadExecutor:
    """A thread of its own. ONNX Runtime frees the GIL while it computes."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(1)

    async def run(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._limiter, abandon_on_cancel=True)

    async def wait_until_free(self) -> None:
        async with self._limiter:
            pass
