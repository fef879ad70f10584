"""Moderations: texts that our own guards judge under the tenant's policy. No model is asked."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import anyio
import orjson
from starlette.responses import Response

from gateway.clock import now
from gateway.dialects.moderations import Finding, Moderations
from gateway.errors import GatewayError, GuardUnavailable
from gateway.judging.judge import Judge, Judgement, named
from gateway.judging.media import Readers
from gateway.pipeline.exchange import headers_of, outcome_of
from gateway.pipeline.record_builder import Ledger
from gateway.records.record import Record
from gateway.tenants.tenants import Tenant
from guard_runtime.conversation import Conversation

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Inputs of one request that are with the guards together, so that a hundred do not fill their queue."""


@dataclass(frozen=True, slots=True)
class Enquiry:
    """One request for moderation, read; a conversation for each input. `started` is `clock.now()`."""

    id: str
    tenant: Tenant
    conversations: tuple[Conversation, ...]
    started: float


class Moderator:
    """Every enquiry ends in exactly one reply and one record. A guard that gives no verdict makes it a 503 whatever the
    policy says of failures: the verdict is all that was asked for."""

    def __init__(self, judge: Judge, dialect: Moderations, write: Callable[[Record], None], readers: Readers) -> None:
        self._judge = judge
        self._readers = readers
        self._dialect = dialect
        self._write = write

    async def serve(self, enquiry: Enquiry) -> Response:
        ledger = Ledger()
        read = [await self._readers.read(conversation) for conversation in enquiry.conversations]
        enquiry = replace(enquiry, conversations=tuple(read))
        for conversation in enquiry.conversations:
            ledger.saw(conversation.direction, conversation.judged)
        judgements: list[Judgement] = []
        try:
            judgements = await self._judged(enquiry)
        except ExceptionGroup as bugs:
            log.error("a guard failed: %s", named(bugs))
        for judgement in judgements:
            ledger.judged(judgement)
        if not judgements or any(judgement.failures for judgement in judgements):
            error = GuardUnavailable("A guard could not look at the input, so there is no verdict on it.")
            self._record(enquiry, ledger, outcome_of(error), error)
            return self._reply(enquiry, self._dialect.error(error), error.status, dict(error.headers))
        findings = [Finding(found.verdicts, found.decisions, found.decision.direction) for found in judgements]
        scores = enquiry.tenant.policy.expose_scores
        answer = self._dialect.answer(enquiry.id, self._judge.version, findings, scores=scores)
        self._record(enquiry, ledger, "moderated")
        worst = max(judgements, key=lambda judgement: judgement.decision.severity)
        policy, guard = enquiry.tenant.policy, self._judge.version
        return self._reply(enquiry, answer, 200, headers_of(enquiry.id, policy, guard, worst))

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

    def _record(self, enquiry: Enquiry, ledger: Ledger, outcome: str, error: GatewayError | None = None) -> None:
        ledger.spend("total", now() - enquiry.started)
        policy = enquiry.tenant.policy
        texts = [part.text for conversation in enquiry.conversations for part in conversation.judged if part.text]
        self._write(
            Record(
                id=enquiry.id,
                outcome=outcome,
                status=error.status if error else 200,
                dialect=self._dialect.name,
                tenant=enquiry.tenant.id,
                policy=policy.hash,
                guard=self._judge.version,
                judgements=tuple(ledger.judgements),
                read=tuple(ledger.read),
                seconds=ledger.seconds,
                error=error.code if error else None,
                text={"prompt": texts} if policy.record_text else None,
            )
        )

    def _reply(self, enquiry: Enquiry, body: object, status: int, headers: dict[str, str]) -> Response:
        stamp = headers_of(enquiry.id, enquiry.tenant.policy, self._judge.version, None)
        return Response(orjson.dumps(body), status, {**stamp, **headers}, "application/json")
