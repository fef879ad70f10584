"""An event loop without a world: its clock jumps to the next timer, and whatever waits for nothing is found at once."""

import asyncio
import heapq
from collections.abc import Callable
from typing import Any

MOST_STEPS = 20_000


class Stuck(Exception):
    """Nothing is ready and no timer is set: somebody waits for what will never come. Or the steps never end."""


class SimLoop(asyncio.BaseEventLoop):
    """asyncio's own loop, but for the clock. The order of callbacks stays first in, first out, as asyncio promises it.
    `steps` counts callbacks; `at_step` calls something before the n-th."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.tasks: list[asyncio.Task[Any]] = []
        self._now = 0.0
        self._at: tuple[int, Callable[[], None]] | None = None

    def time(self) -> float:
        return self._now

    def create_task(self, *args: Any, **kwargs: Any) -> "asyncio.Task[Any]":
        self.tasks.append(super().create_task(*args, **kwargs))
        return self.tasks[-1]

    @property
    def unfinished(self) -> int:
        return sum(not task.done() for task in self.tasks)

    def at_step(self, step: int, action: Callable[[], None]) -> None:
        self._at = (step, action)

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _run_once(self) -> None:
        scheduled: list[Any] = self._scheduled  # type: ignore[attr-defined]
        ready: Any = self._ready  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not ready:
            if not scheduled:
                raise Stuck(f"after {self.steps} steps, at {self._now:g} s")
            self._now = max(self._now, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self._now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            self.steps += 1
            if self.steps > MOST_STEPS:
                raise Stuck(f"still busy after {self.steps} steps, at {self._now:g} s")
            if self._at is not None and self.steps == self._at[0]:
                self._at[1]()
            handle._run()


def simulate(main: Callable[[SimLoop], Any]) -> Any:
    """Runs `main(loop)` to its end on a fresh loop."""
    loop = SimLoop()
    asyncio.set_event_loop(None)
    try:
        return loop.run_until_complete(main(loop))
    finally:
        _drop(loop)


def _drop(loop: SimLoop) -> None:
    for task in loop.tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
