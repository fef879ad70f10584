"""An answer that is at hand whole, sent through a stream's gate piece by piece, on a clock of its own."""

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from gateway.dialects.dialect import Channel, Delta, Event
from gateway.judging.judge import Judgement
from gateway.judging.masks import mask_label
from gateway.judging.remedy import Mask, Pass, stream_remedy
from gateway.policy.policy import Decision, Policy
from gateway.streaming.gate import Gate
from guard_runtime.conversation import Conversation
from guard_runtime.text.language import language_of

PIECES_PER_SECOND = 50.0
CHECK_SECONDS = 0.03
"""What a check takes on the clock: the text goes on arriving meanwhile."""


class PacedAnswer:
    """An answer whose pieces reach `gate` one by one, `PIECES_PER_SECOND` on the clock `now`."""

    def __init__(self, pieces: Sequence[str], gate: Gate, channel: Channel = (0, "content")) -> None:
        self.gate = gate
        self.now = 0.0
        self._pieces = pieces
        self._channel = channel
        self._came = 0

    @property
    def next_piece(self) -> float:
        """When the next piece comes; infinite after the last."""
        return math.inf if self.whole else self._came / PIECES_PER_SECOND

    @property
    def whole(self) -> bool:
        return self._came == len(self._pieces)

    def until(self, moment: float) -> None:
        """Takes in what arrives until then, as far as the gate has room."""
        while not self.whole and self.next_piece <= moment and not self.gate.full:
            self.now = max(self.now, self.next_piece)
            piece = self._pieces[self._came]
            event = Event({"at": self.now})
            self.gate.push(event, [Delta(self._channel, piece)], self.now, len(piece.encode("utf-8", "replace")))
            self._came += 1
            if self.whole:
                self.gate.end(complete=True)
        self.now = max(self.now, moment)


@dataclass(frozen=True, slots=True)
class StreamCheck:
    """One check of a stream: it read characters [start, end) of the answer, those from `new` on for the first time.
    `conversation` is what was judged. Where masks were put on before `start`, that is only near."""

    start: int
    new: int
    end: int
    judgement: Judgement
    conversation: Conversation = field(repr=False)


@dataclass(frozen=True, slots=True)
class Replay:
    """What a stream would have done. `stopped` is the decision that ended it, by the last of `checks`; None where it
    ran to its end. `left` counts the characters that had left by then, `masked` the masks among them."""

    checks: tuple[StreamCheck, ...]
    stopped: Decision | None
    left: int
    masked: int


async def replay(
    pieces: Sequence[str],
    asked: Conversation,
    policy: Policy,
    ask: Callable[[Conversation], Awaitable[Judgement]],
    channel: Channel = (0, "content"),
) -> Replay:
    """The answer to `asked` as a stream that is checked as the policy says. `ask` has the guards judge."""
    question = asked.question
    gate = Gate(policy.stream, lambda label: mask_label(label, language_of(question)), question=question)
    answer = PacedAnswer(pieces, gate, channel)
    checks: list[StreamCheck] = []
    while not (answer.whole and gate.settled):
        if not gate.due(answer.now):
            answer.until(min(answer.next_piece, gate.deadline))
            gate.release(answer.now)
            continue
        check = await _checked(gate, asked, ask)
        checks.append(check)
        action = stream_remedy(check.judgement, check.conversation.judged, policy.stream.mode)
        if not isinstance(action, Pass | Mask):
            return Replay(tuple(checks), action.decision, gate.released, gate.masked)
        answer.until(answer.now + CHECK_SECONDS)
        gate.clear(action.spans if isinstance(action, Mask) else (), risk=check.judgement.risk)
        gate.release(answer.now)
    return Replay(tuple(checks), None, gate.released, gate.masked)


async def _checked(gate: Gate, asked: Conversation, ask: Callable[[Conversation], Awaitable[Judgement]]) -> StreamCheck:
    parts = gate.take()
    (channel,) = gate.coverage
    conversation = asked.reply(*parts)
    start = max(0, channel.taken - sum(len(part.text or "") for part in parts))
    return StreamCheck(start, channel.characters, channel.taken, await ask(conversation), conversation)
