"""Verdicts already given, so that the turns of a long conversation are not read again. Policies are applied after."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator

from guard_runtime.guard import Passage
from guard_runtime.verdict import Verdict

ENTRY_BYTES = 1_536
UNREAD_BYTES = 256
"""What an entry, and each unread piece in it, costs at most in CPython 3.11."""


class VerdictCache:
    """The verdicts used last, within `max_bytes`. With 0 nothing is kept. For one thread.

    Holds no text, only a hash of it, keyed with a secret of this process so that nobody can aim at an entry.
    """

    def __init__(self, max_bytes: int, key: bytes) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self._key = key
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()

    def __len__(self) -> int:
        return len(self._verdicts)

    def get(self, guard: str, passage: Passage) -> Verdict | None:
        """The verdict this guard gave for this text, in this direction and context, from this source. `guard` names its
        version too."""
        key = self._hash(guard, passage)
        verdict = self._verdicts.get(key)
        if verdict is None:
            self.misses += 1
            return None
        self._verdicts.move_to_end(key)
        self.hits += 1
        return verdict

    def put(self, guard: str, passage: Passage, verdict: Verdict) -> None:
        """Keep a verdict. Failures are exceptions, so they cannot come here."""
        key, size = self._hash(guard, passage), _size(verdict)
        if key in self._verdicts or size > self.max_bytes:
            return
        self._verdicts[key] = verdict
        self.bytes += size
        while self.bytes > self.max_bytes:
            _, oldest = self._verdicts.popitem(last=False)
            self.bytes -= _size(oldest)

    def _hash(self, guard: str, passage: Passage) -> bytes:
        digest = hashlib.blake2b(key=self._key, digest_size=24)
        for field in _fields(guard, passage):  # lengths go first, so that no two passages can spell the same bytes
            digest.update(len(field).to_bytes(8, "big"))
            digest.update(field)
        return digest.digest()


def _fields(guard: str, passage: Passage) -> Iterator[bytes]:
    """What makes a passage another one. A missing context is not an empty one."""
    yield guard.encode()
    yield passage.direction.encode()
    yield passage.source.encode()
    yield b"" if passage.context is None else b"+" + passage.context.encode("utf-8", "surrogatepass")
    yield passage.text.encode("utf-8", "surrogatepass")


def _size(verdict: Verdict) -> int:
    return ENTRY_BYTES + UNREAD_BYTES * (len(verdict.coverage.unread) + len(verdict.spans))
