"""What a caller may know of its own request afterwards: what was read, by whom, under which policy; what was not."""

from collections.abc import Mapping
from typing import Any

from gateway.errors import NotFound
from gateway.records.record import Record, decided_by
from guard_runtime.serving.bounded_lru import BoundedLRU

KEPT = 10_000
"""Receipts one process keeps; the oldest go first."""


class Receipts:
    """A sink. Holds no content and no score."""

    def __init__(self, kept: int = KEPT) -> None:
        self._records: BoundedLRU[str, Record] = BoundedLRU(kept, lambda _: 1)

    def write(self, record: Record) -> None:
        if record.tenant is not None:
            self._records.put(record.id, record)

    def find(self, case: str, tenant: str) -> Mapping[str, Any]:
        """Raises `NotFound`, in the same words for a case that is unknown and for one of another tenant's."""
        record = self._records.get(case)
        if record is None or record.tenant != tenant:
            raise NotFound("There is no receipt of that number here.", param="id")
        return receipt(record)


def receipt(record: Record) -> dict[str, Any]:
    """The record as its caller may see it."""
    line = record.line()
    decision = record.decision
    return {
        "object": "libragate.receipt",
        **{key: line[key] for key in ("id", "outcome", "status", "model", "dialect", "stream", "action")},
        "category": decision.category if decision and decision.action else None,
        **(decided_by(decision, scores=False) if decision and decision.action else {}),
        **{key: line[key] for key in ("policy", "guard", "read", "read_more", "unread", "coverage", "characters")},
    }
