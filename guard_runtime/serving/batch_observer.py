"""What a batcher reports of every batch, and the observer it reports to."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BatchStats:
    """One batch: the passages in it, the longest time one of them had waited, and how long the model took (seconds)."""

    passages: int
    wait: float
    run: float
    failed: bool


class BatchObserver(Protocol):
    """Told of every batch that was run; the metrics are one."""

    def batch_finished(self, guard: str, batch: BatchStats) -> None:
        """Called on the event loop, so it must return at once."""
