"""Verdicts already given, so that the turns of a long conversation are not read again. Policies are applied after."""

from collections.abc import Iterator

from guard_runtime.guard import Passage
from guard_runtime.serving.bounded_lru import BoundedLRU
from guard_runtime.serving.keyed_hash import keyed_hash
from guard_runtime.verdict import Verdict

ENTRY_BYTES = 1_536
UNREAD_BYTES = 256
"""What an entry, and each unread piece in it, costs at most in CPython 3.11."""


class VerdictCache:
    """The verdicts used last, within `max_bytes`. With 0 nothing is kept. For one thread.

    Holds no text, only a keyed hash of it.
    """

    def __init__(self, max_bytes: int, key: bytes) -> None:
        self.hits = 0
        self.misses = 0
        self._key = key
        self._verdicts: BoundedLRU[bytes, Verdict] = BoundedLRU(max_bytes, _size)

    def __len__(self) -> int:
        return len(self._verdicts)

    @property
    def size(self) -> int:
        """In bytes."""
        return self._verdicts.size

    def get(self, guard: str, passage: Passage) -> Verdict | None:
        """The verdict this guard gave for this text, in this direction and context, from this source. `guard` names its
        version too."""
        verdict = self._verdicts.get(self._hash(guard, passage))
        if verdict is None:
            self.misses += 1
        else:
            self.hits += 1
        return verdict

    def put(self, guard: str, passage: Passage, verdict: Verdict) -> None:
        """Keep a verdict. Failures are exceptions, so they cannot come here."""
        self._verdicts.put(self._hash(guard, passage), verdict)

    def _hash(self, guard: str, passage: Passage) -> bytes:
        return keyed_hash(self._key, _fields(guard, passage))


def _fields(guard: str, passage: Passage) -> Iterator[bytes]:
    """What makes a passage another one. A missing context is not an empty one."""
    yield guard.encode()
    yield passage.direction.encode()
    yield passage.source.encode()
    yield b"" if passage.context is None else b"+" + passage.context.encode("utf-8", "surrogatepass")
    yield passage.text.encode("utf-8", "surrogatepass")


def _size(verdict: Verdict) -> int:
    return ENTRY_BYTES + UNREAD_BYTES * (len(verdict.coverage.unread) + len(verdict.spans))
