"""The one path of a request: judge the prompt, ask the model, judge the answer, record."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import assert_never

from starlette.responses import Response

from gateway.bugs import bug_place
from gateway.clock import now
from gateway.dialects.annotated import annotated
from gateway.dialects.dialect import Choice, Json
from gateway.dialects.fields import refuse_error
from gateway.errors import GatewayError, GuardUnavailable, UpstreamError
from gateway.exchange import Exchange
from gateway.judging.azure_results import content_filter_results
from gateway.judging.judge import Judge, Judgement
from gateway.judging.media import MediaReaders
from gateway.judging.prompt import JudgedPrompt, PromptJudge, PromptRequest
from gateway.judging.provider_errors import judged_error
from gateway.judging.remedy import Mask, Outage, Pass, Regenerate, Replace, remedy
from gateway.judging.rewrites import refusal, with_masks
from gateway.judging.unknown_fields import UnknownFields
from gateway.pipeline.record_builder import RecordBuilder
from gateway.pipeline.replies import (
    answer_reply,
    blocked_reply,
    error_reply,
    headers_of,
    json_reply,
    outcome_of,
    refusal_reply,
)
from gateway.policy.policy import OWN_TEXT, Action, OnBlock, Policy
from gateway.records.record import Outcome, Record, Sink
from gateway.streaming.outcome import StreamOutcome
from gateway.streaming.response import GuardedStream
from guard_runtime.conversation import Conversation, Direction

log = logging.getLogger(__name__)

NO_RETRY = {"x-should-retry": "false"}
NOT_CHECKED = "The safety check could not be completed, so the request was rejected."


class Pipeline:
    """Serves exchanges. Every one ends in exactly one reply and one record."""

    def __init__(self, judge: Judge, sinks: Sequence[Sink], readers: MediaReaders) -> None:
        self._judge = judge
        self._sinks = tuple(sinks)
        self._readers = readers
        self._prompts = PromptJudge(readers)
        self._hinted: set[str] = set()

    async def serve(self, exchange: Exchange, builder: RecordBuilder) -> Response:
        """The reply. Raises `GatewayError` for a failure on the way, which `fail` answers and records."""
        builder.admit(exchange.tenant, self._judge.version)
        builder.model, builder.stream = str(exchange.body["model"]), exchange.dialect.streams(exchange.body)
        builder.prompt(exchange.conversation)
        builder.replies = []
        prompt = await self._judged_prompt(exchange, builder)
        judgement = prompt.judgement
        body = self._prompt_body(exchange, prompt)
        if body is None:
            self._hint(exchange, judgement)
            return self._refused(exchange, judgement, builder)
        self._prompts.let_through(prompt.conversation, self._scope(exchange))
        outgoing = exchange.upstream_request(body, judgement)
        if exchange.dialect.streams(body):
            reply = self._streamed(outgoing, judgement, builder)
        else:
            answer = await self._ask(outgoing, outgoing.body, builder)
            try:
                reply = await self._answered(exchange, outgoing, answer, judgement, builder)
            except UpstreamError as error:  # the answer has been paid for: an SDK that asks again would pay again
                error.headers = {**error.headers, **NO_RETRY}
                raise
        if prompt.dropped:
            reply.headers["x-libragate-dropped"] = str(prompt.dropped)
        return reply

    async def _judged_prompt(self, exchange: Exchange, builder: RecordBuilder) -> JudgedPrompt:
        """The prompt as the policy has it judged. Raises `GuardUnavailable` for a bug in a guard."""
        request = PromptRequest(
            exchange.conversation,
            exchange.body,
            exchange.policy.sources,
            exchange.language,
            self._scope(exchange),
            exchange.dialect.fields.system,
        )
        return await self._prompts.judge(request, partial(self._ask_guards, exchange.policy), builder)

    def _scope(self, exchange: Exchange) -> str:
        """Who is asking, under which policy and guards: what was let through there says nothing elsewhere."""
        return f"{exchange.tenant.id}\n{exchange.policy.hash}\n{self._judge.version}"

    def _hint(self, exchange: Exchange, judgement: Judgement) -> None:
        """Says once a tenant that its own system prompt or tools are what is stopped, and where that is set."""
        decision = judgement.decision
        if decision.source in OWN_TEXT and exchange.tenant.id not in self._hinted:
            self._hinted.add(exchange.tenant.id)
            log.warning("tenant %s: %s (case %s)", exchange.tenant.id, decision.detail, exchange.id)

    async def _judged(self, exchange: Exchange, conversation: Conversation, builder: RecordBuilder) -> Judgement:
        """Raises `GuardUnavailable` for a bug in a guard."""
        builder.saw(conversation.direction, conversation.judged)
        judgement = await self._ask_guards(exchange.policy, conversation)
        builder.judged(judgement)
        return judgement

    async def _ask_guards(self, policy: Policy, conversation: Conversation) -> Judgement:
        try:
            return await self._judge.judge(policy, conversation)
        except ExceptionGroup as bugs:
            log.error("a guard failed: %s", bug_place(bugs))
            raise GuardUnavailable(NOT_CHECKED) from None

    def _prompt_body(self, exchange: Exchange, prompt: JudgedPrompt) -> Json | None:
        """The body that may go upstream, masked where the policy says so; None where the prompt is refused."""
        action = _remedy(prompt.judgement, prompt.conversation)
        match action:
            case Pass():
                return prompt.body
            case Mask(spans):
                return with_masks(prompt.body, spans, prompt.conversation.judged, exchange.language)
            case Replace() | Regenerate():  # a caller cannot be asked to write the prompt again
                return None
            case _:
                assert_never(action)

    def _refused(self, exchange: Exchange, judgement: Judgement, builder: RecordBuilder) -> Response:
        """The prompt does not go upstream: a 400, or a 200 that says so where the policy wants that and it can."""
        blocked = judgement.decision.action is Action.BLOCK
        as_error = (blocked and exchange.policy.on_block is OnBlock.ERROR) or not exchange.dialect.speaks
        write = blocked_reply if as_error else refusal_reply
        reply = write(exchange, self._judge.version, judgement)
        self.write(builder.build(Outcome.BLOCKED if blocked else Outcome.REWRITTEN, reply.status_code))
        return reply

    def _streamed(self, outgoing: Exchange, judgement: Judgement, builder: RecordBuilder) -> Response:
        guard = self._judge.version
        masked = judgement.decision.action is Action.REWRITE

        def finish(ended: StreamOutcome) -> None:
            builder.streamed(ended)
            status = ended.error.status if ended.error is not None and not ended.started else 200
            outcome = Outcome.REWRITTEN if masked and ended.outcome is Outcome.ALLOWED else ended.outcome
            self.write(builder.build(outcome, status, ended.error.code if ended.error is not None else None))

        return GuardedStream(
            outgoing,
            self._judge,
            headers=headers_of(outgoing.id, outgoing.policy, guard, judgement),
            on_finish=finish,
            on_error=lambda error: error_reply(outgoing, guard, judgement, error),
        )

    async def _ask(self, exchange: Exchange, body: Json, builder: RecordBuilder) -> Json:
        started = now()
        try:
            answer = await exchange.route.upstream.answer(exchange.dialect.path, body, exchange.headers)
        except UpstreamError as error:
            raise await judged_error(error, exchange.policy, exchange.conversation, self._judge) from None
        finally:
            builder.spend("upstream", now() - started)
        refuse_error(answer)
        builder.used(exchange.dialect.usage(answer))
        return exchange.dialect.normalised(answer)

    async def _answered(
        self, exchange: Exchange, outgoing: Exchange, answer: Json, on_prompt: Judgement, builder: RecordBuilder
    ) -> Response:
        """The answer, every choice of it judged."""
        judgements: dict[int, Judgement] = {}
        unknown = _unknown_fields(exchange.policy, builder)
        answer, choices = unknown.in_answer(exchange.dialect, answer, exchange.body)
        for choice in choices:
            answer, judgements[choice.position] = await self._choice(exchange, outgoing, answer, choice, builder)
        if outgoing.prompt_results is not None:
            of_choices = {i: content_filter_results(one, Direction.RESPONSE) for i, one in judgements.items()}
            answer = annotated(answer, outgoing.prompt_results, of_choices)
        worst = max(judgements.values(), key=lambda judgement: judgement.decision.severity)
        reply = answer_reply(exchange, self._judge.version, worst, answer)
        outcome = _OUTCOMES[max(worst.decision.action, on_prompt.decision.action)]
        self.write(builder.build(outcome, reply.status_code))
        return reply

    async def _choice(
        self, exchange: Exchange, outgoing: Exchange, answer: Json, choice: Choice, builder: RecordBuilder
    ) -> tuple[Json, Judgement]:
        """The answer with one choice judged, and treated as the policy says."""
        reply = await self._readers.read(exchange.conversation.reply(*choice.parts))
        if exchange.policy.record_text:
            builder.replied(["\n".join(part.text for part in choice.parts if part.text)])
        judgement = await self._judged(exchange, reply, builder)
        action = _remedy(judgement, reply)
        match action:
            case Pass():
                return answer, judgement
            case Mask(spans):
                masked = with_masks(answer, spans, reply.judged, exchange.language)
                if masked is not None:
                    return masked, judgement
            case Regenerate():
                other = await self._regenerated(exchange, outgoing, builder)
                if other is not None:
                    return exchange.dialect.with_choice(answer, choice.position, other), judgement
            case Replace():
                pass
            case _:
                assert_never(action)
        text = refusal(exchange.policy, judgement.decision, exchange.language, id=exchange.id)
        return exchange.dialect.refused(exchange.body, answer, choice.position, text), judgement

    async def _regenerated(self, exchange: Exchange, outgoing: Exchange, builder: RecordBuilder) -> Json | None:
        """Another answer that its own judgement lets through, within the policy's number of tries; None without one."""
        policy = exchange.policy
        instruction = policy.regenerate_instruction.get(exchange.language, "")
        body = exchange.dialect.instructed(outgoing.body, instruction)
        for _ in range(policy.max_regenerations):
            other = await self._ask(outgoing, body, builder)
            other, choices = _unknown_fields(policy, builder).in_answer(exchange.dialect, other, exchange.body)
            first = choices[0]
            reply = await self._readers.read(exchange.conversation.reply(*first.parts))
            judgement = await self._judged(exchange, reply, builder)
            if isinstance(_remedy(judgement, reply), Pass):
                return other
        return None

    def fail(self, builder: RecordBuilder, error: GatewayError, body: Json) -> Response:
        """The reply and the record of a request that ended in an error; `body` is the error in its dialect's shape."""
        headers = {"x-request-id": builder.id}
        if builder.admitted and builder.tenant is not None:
            headers = headers_of(builder.id, builder.tenant.policy, self._judge.version, None)
        reply = json_reply(body, error.status, {**headers, **error.headers})
        self.write(builder.build(outcome_of(error), error.status, error.code))
        return reply

    def write(self, record: Record) -> None:
        """To every sink. A bug in one costs neither the reply nor the other sinks' records."""
        for sink in self._sinks:
            try:
                sink.write(record)
            except Exception as bug:  # noqa: BLE001 - the reply is decided; what a sink raises must not change it
                log.error("the record of %s was not written by %s: %s", record.id, type(sink).__name__, bug_place(bug))


def _unknown_fields(policy: Policy, builder: RecordBuilder) -> UnknownFields:
    return UnknownFields(policy.drop_unknown, policy.passed_fields, builder.dropped_fields)


def _remedy(judgement: Judgement, conversation: Conversation) -> Pass | Mask | Replace | Regenerate:
    """Raises `GuardUnavailable` for an outage."""
    action = remedy(judgement, conversation.judged)
    if isinstance(action, Outage):
        raise GuardUnavailable(NOT_CHECKED)
    return action


_OUTCOMES = {
    Action.ALLOW: Outcome.ALLOWED,
    Action.LOG: Outcome.ALLOWED,
    Action.REWRITE: Outcome.REWRITTEN,
    Action.BLOCK: Outcome.BLOCKED,
}
