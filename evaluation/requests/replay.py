"""A reply replayed through the gateway's own gate, in chunks, as a stream brings it."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.dialects.dialect import Channel, Delta, Event
from gateway.judging.judge import Judge, Judgement, together
from gateway.judging.rewrites import mask_label
from gateway.policy.policy import Action, Policy, Rewrite, StreamMode
from gateway.streaming.gate import Gate
from guard_runtime.conversation import Conversation, Direction, Part
from guard_runtime.verdict import Span

CHANNEL: Channel = ("choices", 0, "message", "content")
CHUNK = 4
"""Characters of one event."""
PACE = 0.04
"""Seconds from one event to the next, on the gate's clock alone: nobody waits for them. 25 events a second is what
models of middle size do; the faster the events, the larger the gate's windows."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """All checks as one judgement, its decision the worst; `parts` are what the check read that ended the stream, or
    the last one."""

    judgement: Judgement
    stopped: bool
    parts: tuple[Part, ...]


class Replay:
    """One reply through one gate. A check takes no time on the gate's clock, so a run repeats itself exactly."""

    def __init__(self, judge: Judge, policy: Policy, conversation: Conversation, language: str) -> None:
        self._judge = judge
        self._policy = policy
        self._conversation = conversation
        question = conversation.question
        self._gate = Gate(policy.stream, lambda label: mask_label(label, language), question=question)
        self._judgements: list[Judgement] = []
        self._parts: tuple[Part, ...] = ()

    async def run(self, reply: str) -> Replayed:
        now, stopped = 0.0, False
        for start in range(0, len(reply), CHUNK):
            now += PACE
            self._gate.push(Event({}), (Delta(CHANNEL, reply[start : start + CHUNK]),), now)
            stopped = await self._advance(now)
            if stopped:
                break
        if not stopped:
            self._gate.end(torn=False)
            stopped = await self._advance(now)
        return Replayed(together(self._judgements, Direction.RESPONSE), stopped, self._parts)

    async def _advance(self, now: float) -> bool:
        """Every check that is due by now. Says whether one of them ends the stream."""
        self._gate.release(now)
        while self._gate.due(now):
            self._parts = self._gate.take()
            judgement = await self._judge.judge(self._policy, self._conversation.reply(*self._parts))
            self._judgements.append(judgement)
            spans = spans_to_mask(judgement, self._parts, self._policy)
            if spans is None:
                return True
            self._gate.clear(spans, risk=max((verdict.risk for verdict in judgement.verdicts), default=1.0))
            self._gate.release(now)
        return False


def spans_to_mask(judgement: Judgement, parts: Sequence[Part], policy: Policy) -> Sequence[Span] | None:
    """What a stream that goes on has masked; None where it ends here."""
    if judgement.decision.action is Action.BLOCK:
        return None
    rewrites = [decision for decision in judgement.decisions if decision.action is Action.REWRITE]
    if not rewrites:
        return ()
    if policy.stream.mode is StreamMode.ASYNC or any(decision.rewrite is not Rewrite.MASK for decision in rewrites):
        return None
    wanted = {decision.category for decision in rewrites}
    spans = [span for span in judgement.spans if span.category in wanted]
    texts = {part.path: part.text or "" for part in parts}
    inside = all(0 <= span.start < span.end <= len(texts.get(span.path, "")) for span in spans)
    return spans if inside and not wanted - {span.category for span in spans} else None
