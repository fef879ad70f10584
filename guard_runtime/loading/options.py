"""How a loaded guard is served: its queue, its cache, its explanations and who is told of its batches."""

from dataclasses import dataclass

from guard_runtime.serving.batch_observer import BatchObserver


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """`max_queue`: passages that may wait. `cache_bytes`: room for verdicts. `explain`: whether it is to explain its
    verdicts, if it can. `observer` is told of every batch."""

    max_queue: int = 512
    cache_bytes: int = 16 << 20
    explain: bool = False
    observer: BatchObserver | None = None


DEFAULT_OPTIONS = ServingOptions()
