"""Why guards said what they said: asked for the audit log, when an exchange is over, and nobody waits for it."""

from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio

from gateway.records.record import Analysis, Auditor, Record
from guard_runtime.conversation import Conversation, Direction, Part, Role, Turn
from guard_runtime.guard import ExplainingGuard

MOST_WAITING = 64
"""Analyses that wait to be written."""


class Analyst:
    """A sink that asks guards why, for the audit log: of exchanges on which the policy acted, when they are over, and
    only where it records text. Nobody waits for it. `MOST_WAITING` wait; beyond that they are dropped and counted."""

    name = "analysis"

    def __init__(
        self,
        guards: Sequence[ExplainingGuard],
        auditors: Sequence[Auditor],
        *,
        most: int = MOST_WAITING,
        seconds: float = 300,
    ) -> None:
        self._guards = tuple(guards)
        self._auditors = tuple(auditors)
        self._most = most
        self._seconds = seconds
        self._waiting: deque[Record] = deque()
        self._wake = anyio.Event()
        self._counts = dict.fromkeys(("explained", "silent", "failed", "dropped"), 0)

    def counts(self) -> Mapping[str, int]:
        """For the metrics: exchanges dropped, and what came of each guard's asking."""
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
    async def running(self) -> AsyncIterator["Analyst"]:
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
        analysis = Analysis(record.id, record.tenant, guard.name, conversation.direction, text)
        for auditor in self._auditors if text else ():
            auditor.explained(analysis)


def _recorded(record: Record) -> Conversation:
    """What the worst decision was about, from the text that was recorded."""
    text = record.text or {}
    asked = Turn(Role.USER, tuple(Part(("prompt", n), said) for n, said in enumerate(text.get("prompt", ()))))
    prompt = Conversation((asked,))
    if record.decision is None or record.decision.direction is Direction.PROMPT:
        return prompt
    return prompt.reply(*(Part(("response", n), said) for n, said in enumerate(text.get("response", ()))))
