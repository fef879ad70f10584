"""A model that serves while a faster one is still being built, and then gives way to it."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from guard_runtime.errors import GuardError
from guard_runtime.guard import Counting, Model, Passage
from guard_runtime.verdict import Verdict

M = TypeVar("M", bound=Model)


class WarmSwap(Generic[M]):
    """A `Model`: `now` answers until `later` is there, self-tested and warm; then that answers. Where `later` cannot be
    made, `now` goes on and `failure` says why. Building starts with `start`, in a thread of its own."""

    def __init__(self, now: M, later: Callable[[], M]) -> None:
        self.current = now
        self.failure = ""
        self._later = later
        self._thread = threading.Thread(target=self._build, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait(self) -> None:
        """Until the building has ended, one way or the other."""
        self._thread.join()

    def predict(self, batch: Sequence[Passage]) -> Sequence[Verdict]:
        return self.current.predict(batch)

    def counts(self) -> Mapping[str, int]:
        """Of the model that answers now: one that has taken over counts from 0."""
        return self.current.counts() if isinstance(self.current, Counting) else {}

    def _build(self) -> None:
        try:
            self.current = self._later()
        except GuardError as exc:
            self.failure = str(exc)
