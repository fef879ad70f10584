"""Collects timings, usage and judgements during a request; becomes the audit record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.clock import now
from gateway.dialects.dialect import Json
from gateway.dialects.fields import dotted
from gateway.judging.judge import Judgement
from gateway.judging.prompt import Seen, seen_as
from gateway.records.record import Outcome, Read, Record
from gateway.records.stream_stats import StreamStats
from gateway.streaming.outcome import StreamOutcome
from gateway.tenants.tenants import Tenant
from guard_runtime.conversation import Conversation, Direction, Part


@dataclass(slots=True)
class RecordBuilder:
    """One per request, from its first byte on. `replies` is None where nothing answers; it and `prompts` reach the
    record only where the policy records text."""

    id: str
    dialect: str
    started: float = field(default_factory=now)
    tenant: Tenant | None = None
    admitted: bool = False
    model: str | None = None
    stream: bool = False
    guard: str = ""
    judgements: list[tuple[Direction, Judgement]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    stats: StreamStats | None = None
    prompts: list[str] = field(default_factory=list)
    replies: list[str] | None = None
    read: list[Read] = field(default_factory=list)
    detail: str = ""
    dropped_fields: dict[str, None] = field(default_factory=dict)

    def admit(self, tenant: Tenant, guard: str) -> None:
        """The request has been read and may be served."""
        self.tenant, self.guard, self.admitted = tenant, guard, True

    def prompt(self, *conversations: Conversation) -> None:
        """What the caller sent: kept only where the policy records text."""
        if self.tenant is None or not self.tenant.policy.record_text:
            return
        self.prompts = [part.text for conversation in conversations for part in conversation.judged if part.text]

    def spend(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def judged(self, judgement: Judgement) -> None:
        direction = judgement.decision.direction
        self.judgements.append((direction, judgement))
        self.spend(f"guard_{direction}", judgement.seconds)

    def judge_again(self) -> None:
        """The last judgement does not count: a smaller prompt is judged in its place."""
        self.judgements.pop()

    def saw(self, direction: Direction, parts: Sequence[Part], how: Seen = Seen.SCANNED) -> None:
        """What became of these pieces; one without text was not read, whatever was meant for it."""
        for part in parts:
            seen = how if how is not Seen.SCANNED else seen_as(part.text, part.kind)
            reader = part.media.read_by if part.media is not None else ""
            place, characters = dotted(part.path), len(part.text or "")
            self.read.append(Read(direction, place, str(part.kind), characters, seen, reader))

    def replied(self, texts: Sequence[str]) -> None:
        self.replies = [*(self.replies or ()), *texts]

    def streamed(self, outcome: StreamOutcome) -> None:
        if outcome.judgement is not None:
            self.judged(outcome.judgement)
        self.read.extend(outcome.read)
        self.detail = outcome.detail
        self.dropped_fields |= dict.fromkeys(outcome.dropped_fields)
        self.used(outcome.usage)
        for stage, seconds in outcome.seconds.items():
            if stage != "guard":
                self.spend(stage, seconds)
        self.stats = outcome.stats
        self.replied([*(outcome.text or {}).values(), *(part.text for part in outcome.withheld if part.text)])

    def used(self, usage: Json) -> None:
        for key, value in usage.items():
            if isinstance(value, int):
                self.tokens[key] = self.tokens.get(key, 0) + value

    def build(self, outcome: Outcome, status: int, error: str | None = None) -> Record:
        """The record. A request that was refused before it was admitted is recorded without its tenant, unless a bug
        stopped it: then its tenant is to find a receipt."""
        if self.admitted:
            self.spend("total", now() - self.started)
        tenant = self.tenant if self.admitted or outcome is Outcome.FAILED else None
        policy = tenant.policy if tenant is not None else None
        return Record(
            id=self.id,
            outcome=outcome,
            status=status,
            dialect=self.dialect,
            tenant=tenant.id if tenant is not None else None,
            model=self.model,
            stream=self.stream,
            policy=policy.hash if policy is not None else None,
            guard=self.guard,
            judgements=tuple(self.judgements),
            read=tuple(self.read),
            seconds=self.seconds,
            tokens=self.tokens,
            stats=self.stats,
            error=error,
            detail=self.detail,
            dropped_fields=tuple(self.dropped_fields),
            text=self._text() if self.admitted and policy is not None and policy.record_text else None,
        )

    def _text(self) -> Mapping[str, Any]:
        answered = {} if self.replies is None else {"response": self.replies}
        return {"prompt": self.prompts, **answered}
