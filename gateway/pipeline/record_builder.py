"""What is known of an exchange so far, until it becomes its record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.dialects.dialect import Json
from gateway.dialects.fields import dotted
from gateway.judging.judge import Judgement
from gateway.records.record import Read
from gateway.streaming.outcome import StreamOutcome
from guard_runtime.conversation import Direction, Part


@dataclass(slots=True)
class Ledger:
    """Everything counted on the way; `replies` stays empty unless the policy records text."""

    judgements: list[tuple[Direction, Judgement]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    characters: dict[str, int] = field(default_factory=dict)
    replies: list[str] = field(default_factory=list)
    read: list[Read] = field(default_factory=list)
    detail: str = ""

    def spend(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def judged(self, judgement: Judgement) -> None:
        direction = judgement.decision.direction
        self.judgements.append((direction, judgement))
        self.spend(f"guard_{direction}", judgement.seconds)

    def saw(self, direction: Direction, parts: Sequence[Part], *, trusted: bool = False) -> None:
        """The pieces a look was about."""
        for part in parts:
            how = "trusted" if trusted else "scanned" if part.text is not None else "unread"
            if part.media is not None and part.media.read_by:
                how = f"read by {part.media.read_by}"
            self.read.append(Read(direction, dotted(part.path), str(part.kind), len(part.text or ""), how))

    def streamed(self, outcome: StreamOutcome) -> None:
        if outcome.judgement is not None:
            self.judged(outcome.judgement)
        self.read.extend(outcome.read)
        self.detail = outcome.detail
        self.used({"usage": outcome.usage})
        for stage, seconds in outcome.seconds.items():
            if stage != "guard":
                self.spend(stage, seconds)
        self.characters |= {
            "released": outcome.released,
            "cleared": outcome.cleared,
            "unguarded": outcome.unguarded,
            "masked": outcome.masked,
            "judged": outcome.judged,
            "checks": outcome.checks,
        }
        self.replies.extend((outcome.text or {}).values())
        self.replies.extend(part.text for part in outcome.withheld if part.text)

    def used(self, answer: Json) -> None:
        usage = answer.get("usage")
        for key, value in usage.items() if isinstance(usage, Mapping) else ():
            if isinstance(value, int):
                self.tokens[key] = self.tokens.get(key, 0) + value
