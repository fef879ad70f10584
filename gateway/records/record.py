"""The record of a request, and the sinks that write it: one JSON line each, without any content."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TextIO, runtime_checkable

import orjson
import structlog

from gateway.dialects.fields import dotted
from gateway.judging.judge import Judgement
from gateway.judging.prompt import Seen
from gateway.policy.policy import Decision, Reason
from gateway.records.stream_stats import StreamStats
from guard_runtime.conversation import Direction
from guard_runtime.verdict import Coverage


class Outcome(StrEnum):
    """How a request ended. It is decided where the reply is decided; the record repeats it. BLOCKED was refused by the
    policy, GUARD_UNAVAILABLE could not be checked, UPSTREAM_... is the provider's failure, REFUSED the caller's
    mistake, FAILED a bug, SHUT_DOWN the server was told to stop."""

    ALLOWED = "allowed"
    REWRITTEN = "rewritten"
    BLOCKED = "blocked"
    MODERATED = "moderated"
    REFUSED = "refused"
    GUARD_UNAVAILABLE = "guard_unavailable"
    UPSTREAM_FAILED = "upstream_failed"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    CLIENT_LEFT = "client_left"
    SHUT_DOWN = "shut_down"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Read:
    """One piece of content: where it stood, of what kind, how long. `reader` is the model that put media into words."""

    direction: Direction
    place: str
    kind: str
    characters: int
    seen: Seen
    reader: str = ""

    def line(self) -> list[str | int]:
        seen = f"read by {self.reader}" if self.reader else str(self.seen)
        return [str(self.direction), self.place, self.kind, self.characters, seen]


MOST_READ = 200
"""Pieces that a record lists one by one; the rest are only counted."""


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that is kept about one request. `stats` is there for a streamed answer."""

    id: str
    outcome: Outcome
    status: int
    dialect: str
    tenant: str | None = None
    model: str | None = None
    stream: bool = False
    policy: str | None = None
    guard: str = ""
    judgements: tuple[tuple[Direction, Judgement], ...] = ()
    read: tuple[Read, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    tokens: Mapping[str, int] = field(default_factory=dict)
    stats: StreamStats | None = None
    error: str | None = None
    detail: str = ""
    text: Mapping[str, Any] | None = None
    dropped_fields: tuple[str, ...] = ()

    @property
    def decision(self) -> Decision | None:
        """The worst decision taken on the way."""
        decisions = [judgement.decision for _, judgement in self.judgements]
        return max(decisions, key=lambda decision: decision.severity, default=None)

    def line(self) -> dict[str, Any]:
        """The record as JSON values."""
        decision = self.decision
        return {
            "id": self.id,
            "outcome": str(self.outcome),
            "status": self.status,
            "tenant": self.tenant,
            "model": self.model,
            "dialect": self.dialect,
            "stream": self.stream,
            "action": decision.action.name.lower() if decision else None,
            "policy": self.policy,
            "guard": self.guard,
            "decisions": [_decision_line(d) for _, judgement in self.judgements for d in _fired(judgement)],
            "risk": {str(direction): _risk(self.judgements, direction) for direction in Direction},
            "coverage": {str(direction): _coverage(self.judgements, direction) for direction in Direction},
            "read": [read.line() for read in self.read[:MOST_READ]],
            "read_more": max(0, len(self.read) - MOST_READ),
            "unread": _unread(self.judgements),
            **({"dropped_fields": list(self.dropped_fields)} if self.dropped_fields else {}),
            "failures": [failure for _, judgement in self.judgements for failure in judgement.failures],
            "tokens": dict(self.tokens),
            "characters": self.stats.line() if self.stats is not None else {},
            "seconds": {stage: round(seconds, 6) for stage, seconds in self.seconds.items()},
            **({"error": self.error} if self.error else {}),
            **({"detail": self.detail} if self.detail else {}),
            **({"text": self.text} if self.text is not None else {}),
        }


def _fired(judgement: Judgement) -> tuple[Decision, ...]:
    return tuple(decision for decision in judgement.decisions if decision.action or decision.score is not None)


def decided_by(decision: Decision, *, scores: bool = True) -> dict[str, Any]:
    """Which text decided: what it is, which part of the body, which of its characters; with `scores` also how the
    score was corrected for the number of windows. Nothing for guards that do not say."""
    window = decision.window
    if window is None or decision.source is None:
        return {}
    place = {"source": str(decision.source), "part": dotted(window.path), "characters": [window.start, window.end]}
    corrected = {"raw": round(window.raw, 4), "correction": round(window.correction, 4)} if scores else {}
    return {"decided_by": place | corrected}


def _decision_line(decision: Decision) -> dict[str, Any]:
    margin = decision.margin
    return {
        "direction": str(decision.direction),
        "action": decision.action.name.lower(),
        "reason": str(decision.reason),
        "category": decision.category,
        "score": None if decision.score is None else round(decision.score, 4),
        "threshold": decision.threshold,
        "margin": None if margin is None else round(margin, 4),
        "rewrite": decision.rewrite,
        "guard": decision.guard,
        "rule": decision.place or None,
        **decided_by(decision),
        **({"detail": decision.detail} if decision.detail else {}),
    }


_UNREAD_RULES = {Reason.UNREADABLE: "on_unreadable", Reason.SEALED: "on_sealed"}


def _unread(judgements: tuple[tuple[Direction, Judgement], ...]) -> list[dict[str, Any]]:
    """What no guard read, and what the policy says about that."""
    return [
        {
            "direction": str(direction),
            "what": decision.detail,
            "rule": f"{_UNREAD_RULES[decision.reason]}.{direction}",
            "action": decision.action.name.lower(),
        }
        for direction, judgement in judgements
        for decision in judgement.decisions
        if decision.reason in _UNREAD_RULES
    ]


def _risk(judgements: tuple[tuple[Direction, Judgement], ...], direction: Direction) -> float | None:
    risks = [verdict.risk for toward, judgement in judgements if toward is direction for verdict in judgement.verdicts]
    return round(max(risks), 4) if risks else None


def _coverage(judgements: tuple[tuple[Direction, Judgement], ...], direction: Direction) -> list[dict[str, Any]]:
    """Per guard: what it read, and what it did not."""
    totals: dict[str, Coverage] = {}
    for toward, judgement in judgements:
        for verdict in judgement.verdicts if toward is direction else ():
            totals[verdict.guard] = totals.get(verdict.guard, Coverage()) + verdict.coverage
    return [
        {
            "guard": guard,
            "parts": total.parts,
            "characters": total.characters,
            "windows": total.windows,
            "tokens": total.tokens,
            "cached": total.cached,
            "unread": [{"reason": item.reason, "characters": item.characters} for item in total.unread],
        }
        for guard, total in totals.items()
    ]


class Sink(Protocol):
    def write(self, record: Record) -> None: ...


class LogSink:
    """One structlog JSON line per record, on standard output."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._log = structlog.wrap_logger(
            structlog.BytesLogger((stream or sys.stdout).buffer),
            processors=[
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(serializer=_dumps),
            ],
            wrapper_class=structlog.BoundLogger,
            cache_logger_on_first_use=True,
        )

    def write(self, record: Record) -> None:
        self._log.msg("exchange", **record.line())

    def explained(self, explanation: "Explanation") -> None:
        self._log.msg("analysis", **explanation.line())


class MemorySink:
    """Keeps records in memory, for tests."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.explanations: list[Explanation] = []

    def write(self, record: Record) -> None:
        self.records.append(record)

    def explained(self, explanation: "Explanation") -> None:
        self.explanations.append(explanation)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a guard judged a prompt or an answer as it did, in the guard's own words. It may quote content."""

    id: str
    tenant: str | None
    guard: str
    direction: Direction
    text: str

    def line(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "id": self.id,
            "tenant": self.tenant,
            "guard": self.guard,
            "direction": str(self.direction),
            "text": self.text,
        }


@runtime_checkable
class ExplanationSink(Protocol):
    """A sink that takes explanations too."""

    def explained(self, explanation: Explanation) -> None: ...


def _dumps(value: object, **_: object) -> bytes:
    return orjson.dumps(value, default=str)
