"""Explanations of verdicts for the audit log, written in the background after a request is over."""

from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio

from gateway.records.record import Explanation, ExplanationSink, Record
from guard_runtime.conversation import Conversation, Direction, Part, Role, Turn
from guard_runtime.guard import ExplainingGuard

MOST_WAITING = 64
"""Records that wait to be explained."""


class ExplanationWorker:
    """A sink that asks guards for explanations, for the audit log: of requests on which the policy acted, once they are
    over, and only where the policy records text. No request waits for it. Beyond `most` waiting records, further ones
    are dropped and counted."""

    name = "analysis"

    def __init__(
        self,
        guards: Sequence[ExplainingGuard],
        sinks: Sequence[ExplanationSink],
        *,
        most: int = MOST_WAITING,
        seconds: float = 300,
    ) -> None:
        self._guards = tuple(guards)
        self._sinks = tuple(sinks)
        self._most = most
        self._seconds = seconds
        self._waiting: deque[Record] = deque()
        self._wake = anyio.Event()
        self._counts = dict.fromkeys(("explained", "silent", "failed", "dropped"), 0)

    def counts(self) -> Mapping[str, int]:
        """For the metrics: records dropped, and what each guard that was asked answered."""
        return dict(self._counts)

    def write(self, record: Record) -> None:
        decision = record.decision
        if not self._guards or record.text is None or decision is None or not decision.action:
            return
        if len(self._waiting) >= self._most:
            self._counts["dropped"] += 1
            return
        self._waiting.append(record)
        self._wake.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ExplanationWorker"]:
        """Works while it is open; what still waits at its end is lost, so that a shutdown waits for nothing either."""
        async with anyio.create_task_group() as tasks:
            if self._guards:
                tasks.start_soon(self._serve)
            yield self
            tasks.cancel_scope.cancel()

    async def _serve(self) -> None:
        while True:
            if not self._waiting:
                self._wake = anyio.Event()
                await self._wake.wait()
            record = self._waiting.popleft()
            conversation = _recorded(record)
            for guard in self._guards:
                await self._ask(guard, record, conversation)

    async def _ask(self, guard: ExplainingGuard, record: Record, conversation: Conversation) -> None:
        try:
            with anyio.fail_after(self._seconds):
                text = await guard.explain(conversation)
        except Exception:  # noqa: BLE001 - it is for the audit log alone: whatever fails here must not end the server
            self._counts["failed"] += 1
            return
        self._counts["explained" if text else "silent"] += 1
        explanation = Explanation(record.id, record.tenant, guard.name, conversation.direction, text)
        for sink in self._sinks if text else ():
            sink.explained(explanation)


def _recorded(record: Record) -> Conversation:
    """What the worst decision was about, from the text that was recorded."""
    text = record.text or {}
    question = Turn(Role.USER, tuple(Part(("prompt", n), piece) for n, piece in enumerate(text.get("prompt", ()))))
    prompt = Conversation((question,))
    if record.decision is None or record.decision.direction is Direction.PROMPT:
        return prompt
    return prompt.reply(*(Part(("response", n), piece) for n, piece in enumerate(text.get("response", ()))))
