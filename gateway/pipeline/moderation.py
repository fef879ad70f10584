"""Moderations: texts that our own guards judge under the tenant's policy. No model is asked."""

import logging
from collections.abc import Callable, Sequence

import anyio
from starlette.responses import Response

from gateway.bugs import bug_place
from gateway.dialects.moderations import Finding, Moderations
from gateway.errors import GuardUnavailable
from gateway.judging.judge import Judge, Judgement
from gateway.judging.media import MediaReaders
from gateway.pipeline.record_builder import RecordBuilder
from gateway.pipeline.replies import headers_of, json_reply
from gateway.policy.policy import Policy
from gateway.records.record import Outcome, Record
from gateway.tenants.tenants import Tenant
from guard_runtime.conversation import Conversation

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Inputs of one request that the guards check together, so that a hundred do not fill their queue."""
NO_VERDICT = "The safety check could not be completed, so there is no verdict on the input."


class ModerationPipeline:
    """Serves moderations. A guard that gives no verdict makes the reply a 503 whatever the policy says of failures: the
    verdict is all that was asked for."""

    def __init__(
        self, judge: Judge, dialect: Moderations, write: Callable[[Record], None], readers: MediaReaders
    ) -> None:
        self._judge = judge
        self._readers = readers
        self._dialect = dialect
        self._write = write

    async def serve(self, tenant: Tenant, inputs: Sequence[Conversation], builder: RecordBuilder) -> Response:
        """The verdicts, in the order of the inputs. Raises `GuardUnavailable`."""
        policy, guard = tenant.policy, self._judge.version
        builder.admit(tenant, guard)
        inputs = [await self._readers.read(conversation) for conversation in inputs]
        builder.prompt(*inputs)
        for conversation in inputs:
            builder.saw(conversation.direction, conversation.judged)
        judgements = await self._judged(policy, inputs)
        for judgement in judgements:
            builder.judged(judgement)
        if any(judgement.failures for judgement in judgements):
            raise GuardUnavailable(NO_VERDICT)
        findings = [Finding(one.verdicts, one.decisions, one.decision.direction) for one in judgements]
        answer = self._dialect.answer(builder.id, guard, findings, scores=policy.expose_scores)
        worst = max(judgements, key=lambda judgement: judgement.decision.severity)
        reply = json_reply(answer, 200, headers_of(builder.id, policy, guard, worst))
        self._write(builder.build(Outcome.MODERATED, 200))
        return reply

    async def _judged(self, policy: Policy, inputs: Sequence[Conversation]) -> list[Judgement]:
        """A judgement for each input, in their order. Raises `GuardUnavailable` for a bug in a guard."""
        judgements: dict[int, Judgement] = {}
        room = anyio.CapacityLimiter(AT_ONCE)

        async def judge(number: int, conversation: Conversation) -> None:
            async with room:
                judgements[number] = await self._judge.judge(policy, conversation)

        try:
            async with anyio.create_task_group() as tasks:
                for number, conversation in enumerate(inputs):
                    tasks.start_soon(judge, number, conversation)
        except ExceptionGroup as bugs:
            log.error("a guard failed: %s", bug_place(bugs))
            raise GuardUnavailable(NO_VERDICT) from None
        return [judgements[number] for number in range(len(inputs))]
