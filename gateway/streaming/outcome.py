"""What became of a streamed answer: how it ended, what its checks said together, how much of it left."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.dialects.dialect import Channel
from gateway.errors import GatewayError
from gateway.judging.judge import Judgement
from gateway.policy.policy import Action
from gateway.records.record import Outcome, Read
from gateway.records.stream_stats import StreamStats
from guard_runtime.conversation import Part


class Ended(StrEnum):
    """How a stream ended for its client: COMPLETE may have masks in it, REWRITTEN ends with the safe message."""

    COMPLETE = "complete"
    BLOCKED = "blocked"
    REWRITTEN = "rewritten"
    GUARD_UNAVAILABLE = "guard_unavailable"
    CLIENT_LEFT = "client_left"
    UPSTREAM_FAILED = "upstream_failed"
    TIMEOUT = "timeout"
    FAILED = "failed"
    SHUT_DOWN = "shut_down"


@dataclass(frozen=True, slots=True)
class StreamOutcome:
    """`judgement` merges all checks; it is None where nothing was checked. `error` was told to the caller in place of
    the rest of the answer, as a whole reply with its status unless `started`. `detail` is for the record alone.

    Seconds: `guard` all checks together, `hold` the longest any event waited, `first_event` until the upstream's first.
    `text` is what left, per channel, and `withheld` what the last check stopped, if the policy records text.
    """

    ended: Ended
    judgement: Judgement | None
    started: bool
    attempts: int
    stats: StreamStats
    read: tuple[Read, ...]
    seconds: Mapping[str, float]
    usage: Mapping[str, object]
    error: GatewayError | None = None
    detail: str = ""
    text: Mapping[Channel, str] | None = None
    withheld: tuple[Part, ...] = ()
    dropped_fields: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """As the record has it: a complete answer that was masked, or asked for again, is REWRITTEN."""
        match self.ended:
            case Ended.COMPLETE:
                changed = self.judgement is not None and self.judgement.decision.action is Action.REWRITE
                return Outcome.REWRITTEN if changed else Outcome.ALLOWED
            case Ended.BLOCKED:
                return Outcome.BLOCKED
            case Ended.REWRITTEN:
                return Outcome.REWRITTEN
            case Ended.GUARD_UNAVAILABLE:
                return Outcome.GUARD_UNAVAILABLE
            case Ended.CLIENT_LEFT:
                return Outcome.CLIENT_LEFT
            case Ended.UPSTREAM_FAILED:
                return Outcome.UPSTREAM_FAILED
            case Ended.TIMEOUT:
                return Outcome.UPSTREAM_TIMEOUT
            case Ended.FAILED:
                return Outcome.FAILED
            case Ended.SHUT_DOWN:
                return Outcome.SHUT_DOWN
