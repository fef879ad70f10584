"""A circuit breaker: after enough failures in a row no call is made for a while, then one call tries again."""

from collections.abc import Callable
from dataclasses import dataclass, field

import anyio

from guard_runtime.errors import GuardFailed


@dataclass(slots=True)
class Breaker:
    """Opens after `failures` in a row, for `seconds`; then lets one call through, and closes when that one succeeds."""

    failures: int = 5
    seconds: float = 10.0
    clock: Callable[[], float] = anyio.current_time
    _failed: int = field(default=0, init=False)
    _until: float = field(default=0.0, init=False)
    _trying: bool = field(default=False, init=False)

    @property
    def closed(self) -> bool:
        return self._failed < self.failures

    @property
    def ready(self) -> bool:
        """Whether the next call is let through."""
        return self.closed or (not self._trying and self.clock() >= self._until)

    def enter(self) -> None:
        """Raises `GuardFailed` while the breaker is open."""
        if self.closed:
            return
        if not self.ready:
            left = self._until - self.clock()
            raise GuardFailed(f"failed {self._failed} times in a row: not asked again for {max(left, 0):.1f} s")
        self._trying = True

    def succeeded(self) -> None:
        self._failed = 0
        self._trying = False

    def failed(self) -> None:
        self._failed += 1
        self._until = self.clock() + self.seconds
        self._trying = False

    def left(self) -> None:
        """The caller went away: that says nothing about the server."""
        self._trying = False
