"""Moderations: texts that our own guards judge under the tenant's policy. No model is asked."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import anyio
import orjson
from starlette.responses import Response

from gateway.bugs import bug_place
from gateway.dialects.moderations import Finding, Moderations
from gateway.errors import GuardUnavailable
from gateway.judging.judge import Judge, Judgement
from gateway.judging.media import Readers
from gateway.pipeline.exchange import headers_of
from gateway.pipeline.record_builder import RecordBuilder
from gateway.records.record import Record
from gateway.tenants.tenants import Tenant
from guard_runtime.conversation import Conversation

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Inputs of one request that are with the guards together, so that a hundred do not fill their queue."""


@dataclass(frozen=True, slots=True)
class Enquiry:
    """One request for moderation, read; a conversation for each input."""

    id: str
    tenant: Tenant
    conversations: tuple[Conversation, ...]


class Moderator:
    """Serves moderations. A guard that gives no verdict makes it a 503 whatever the
    policy says of failures: the verdict is all that was asked for."""

    def __init__(self, judge: Judge, dialect: Moderations, write: Callable[[Record], None], readers: Readers) -> None:
        self._judge = judge
        self._readers = readers
        self._dialect = dialect
        self._write = write

    async def serve(self, enquiry: Enquiry, ledger: RecordBuilder) -> Response:
        policy, guard = enquiry.tenant.policy, self._judge.version
        ledger.admit(enquiry.tenant, guard)
        read = [await self._readers.read(conversation) for conversation in enquiry.conversations]
        enquiry = replace(enquiry, conversations=tuple(read))
        ledger.prompt(*enquiry.conversations)
        for conversation in enquiry.conversations:
            ledger.saw(conversation.direction, conversation.judged)
        judgements: list[Judgement] = []
        try:
            judgements = await self._judged(enquiry)
        except ExceptionGroup as bugs:
            log.error("a guard failed: %s", bug_place(bugs))
        for judgement in judgements:
            ledger.judged(judgement)
        if not judgements or any(judgement.failures for judgement in judgements):
            raise GuardUnavailable("A guard could not look at the input, so there is no verdict on it.")
        findings = [Finding(found.verdicts, found.decisions, found.decision.direction) for found in judgements]
        answer = self._dialect.answer(enquiry.id, guard, findings, scores=policy.expose_scores)
        worst = max(judgements, key=lambda judgement: judgement.decision.severity)
        headers = headers_of(enquiry.id, policy, guard, worst)
        reply = Response(orjson.dumps(answer), 200, headers, "application/json")
        self._write(ledger.build("moderated", 200))
        return reply

    async def _judged(self, enquiry: Enquiry) -> list[Judgement]:
        """A judgement for each input, in their order."""
        found: dict[int, Judgement] = {}
        room = anyio.CapacityLimiter(AT_ONCE)

        async def look(number: int, conversation: Conversation) -> None:
            async with room:
                found[number] = await self._judge.judge(enquiry.tenant.policy, conversation)

        async with anyio.create_task_group() as tasks:
            for number, conversation in enumerate(enquiry.conversations):
                tasks.start_soon(look, number, conversation)
        return [found[number] for number in range(len(enquiry.conversations))]
