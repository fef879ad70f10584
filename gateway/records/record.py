"""Where records go: one JSON line per exchange, without a word of content; and, apart, what guards say of theirs."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO, runtime_checkable

import orjson
import structlog

from gateway.judging.judge import Judgement
from gateway.policy.policy import Decision, Reason
from guard_runtime.conversation import Direction
from guard_runtime.verdict import Coverage


@dataclass(frozen=True, slots=True)
class Read:
    """One piece of content: where it stood, of what kind, how long, and whether it was `scanned`, `trusted` by the
    policy, or `unread`."""

    direction: Direction
    place: str
    kind: str
    characters: int
    how: str


MOST_READ = 200
"""Pieces a record names one by one; of the rest it gives the number."""


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that is remembered of one request. `outcome` tells refused by policy (`blocked`) from could not look
    (`guard_unavailable`) from the provider's failure (`upstream_failed`) from a request that was wrong (`refused`)."""

    id: str
    outcome: str
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
    characters: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
    detail: str = ""
    text: Mapping[str, Any] | None = None

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
            "outcome": self.outcome,
            "status": self.status,
            "tenant": self.tenant,
            "model": self.model,
            "dialect": self.dialect,
            "stream": self.stream,
            "action": decision.action.name.lower() if decision else None,
            "policy": self.policy,
            "guard": self.guard,
            "decisions": [_said(d) for _, judgement in self.judgements for d in _fired(judgement)],
            "risk": {str(direction): _risk(self.judgements, direction) for direction in Direction},
            "coverage": {str(direction): _coverage(self.judgements, direction) for direction in Direction},
            "read": [_piece(read) for read in self.read[:MOST_READ]],
            "read_more": max(0, len(self.read) - MOST_READ),
            "unread": _unread(self.judgements),
            "failures": [failure for _, judgement in self.judgements for failure in judgement.failures],
            "tokens": dict(self.tokens),
            "characters": dict(self.characters),
            "seconds": {stage: round(seconds, 6) for stage, seconds in self.seconds.items()},
            **({"error": self.error} if self.error else {}),
            **({"detail": self.detail} if self.detail else {}),
            **({"text": self.text} if self.text is not None else {}),
        }


def _fired(judgement: Judgement) -> tuple[Decision, ...]:
    return tuple(decision for decision in judgement.decisions if decision.action or decision.score is not None)


def _said(decision: Decision) -> dict[str, Any]:
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
        **({"detail": decision.detail} if decision.detail else {}),
    }


def _piece(read: Read) -> list[str | int]:
    return [str(read.direction), read.place, read.kind, read.characters, read.how]


def _unread(judgements: tuple[tuple[Direction, Judgement], ...]) -> list[dict[str, Any]]:
    """What no guard looked at, and what the policy said about it."""
    return [
        {
            "direction": str(direction),
            "what": decision.detail,
            "rule": f"on_unreadable.{direction}",
            "action": decision.action.name.lower(),
        }
        for direction, judgement in judgements
        for decision in judgement.decisions
        if decision.reason is Reason.UNREADABLE
    ]


def _risk(judgements: tuple[tuple[Direction, Judgement], ...], direction: Direction) -> float | None:
    risks = [verdict.risk for toward, judgement in judgements if toward is direction for verdict in judgement.verdicts]
    return round(max(risks), 4) if risks else None


def _coverage(judgements: tuple[tuple[Direction, Judgement], ...], direction: Direction) -> list[dict[str, Any]]:
    """Per guard: what it scanned, and what it did not."""
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

    def explained(self, analysis: "Analysis") -> None:
        self._log.msg("analysis", **analysis.line())


class MemorySink:
    """Keeps what it is given: the scripted twin, for tests."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.analyses: list[Analysis] = []

    def write(self, record: Record) -> None:
        self.records.append(record)

    def explained(self, analysis: "Analysis") -> None:
        self.analyses.append(analysis)


@dataclass(frozen=True, slots=True)
class Analysis:
    """Why a guard thinks what it thinks of one exchange's prompt or answer, in its own words. It is made from content:
    it quotes."""

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
class Auditor(Protocol):
    """A sink that takes analyses too."""

    def explained(self, analysis: Analysis) -> None: ...


def _dumps(value: object, **_: object) -> bytes:
    return orjson.dumps(value, default=str)
