"""What a streamed answer came to, in numbers."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class StreamStats:
    """Characters of the model's text, all attempts together, unless said otherwise. In hold mode `unguarded` is 0.

    A new counter is a field here and the line that counts it in `gateway/streaming/stats.py` (with a test in
    tests/gateway/streaming/test_stats.py). Outcome, record, receipt and log line have it by its name.
    """

    released: int = 0
    """left for the caller"""
    cleared: int = 0
    """let through by a check"""
    unguarded: int = 0
    """left without or before their check"""
    masked: int = 0
    """spans masked"""
    judged: int = 0
    """read by guards, the overlap of windows twice"""
    checks: int = 0
    """checks made"""

    def __add__(self, other: "StreamStats") -> "StreamStats":
        return StreamStats(*(getattr(self, name) + getattr(other, name) for name in _NAMES))

    def line(self) -> dict[str, int]:
        """By name, for the record."""
        return {name: getattr(self, name) for name in _NAMES}


_NAMES = tuple(field.name for field in fields(StreamStats))
