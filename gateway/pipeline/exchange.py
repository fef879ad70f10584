"""One request on its way, and the one path it takes: judge the prompt, ask the model, judge the answer, record."""

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import orjson
from starlette.responses import Response

from gateway.bugs import bug_place
from gateway.clock import now
from gateway.dialects.annotated import Annotator, annotated
from gateway.dialects.dialect import Choice, Dialect, Json, Refusal
from gateway.dialects.sse import encode
from gateway.errors import GatewayError, GuardUnavailable, InternalError, UpstreamError, UpstreamTimeout
from gateway.judging.azure_results import content_filter_results
from gateway.judging.judge import Judge, Judgement, is_outage
from gateway.judging.media import Readers
from gateway.judging.rewrites import CannotMask, edited, mask_edits, refusal, rewrite_of
from gateway.judging.trust import parted
from gateway.pipeline.record_builder import RecordBuilder
from gateway.policy.policy import Action, OnBlock, Policy, Rewrite
from gateway.records.record import Record, Sink
from gateway.streaming.outcome import Ended, StreamOutcome
from gateway.streaming.response import GuardedStream, Terms
from gateway.tenants.tenants import Tenant
from gateway.upstreams.upstream import Upstream
from guard_runtime.conversation import Conversation, Direction

log = logging.getLogger(__name__)

_LETTERS = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"


def new_id() -> str:
    """A request's id: 60 random bits in letters that can be read out over the telephone, K7Q3-MD9F-2XWA."""
    letters = "".join(_LETTERS[byte & 31] for byte in secrets.token_bytes(12))
    return "-".join((letters[:4], letters[4:8], letters[8:]))


@dataclass(frozen=True, slots=True)
class Route:
    """Where a model's answers come from, and what that upstream calls the model."""

    upstream: Upstream
    model: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, read and allowed to ask. `created` is in seconds since 1970.
    `annotated`: the caller asked for Azure's filter results."""

    id: str
    tenant: Tenant
    dialect: Dialect
    body: Json
    conversation: Conversation
    route: Route
    language: str
    created: int
    annotated: bool = False

    @property
    def policy(self) -> Policy:
        return self.tenant.policy

    def results(self, judgement: Judgement) -> Json | None:
        """Azure's filter results, where they are wanted and this dialect has a place for them."""
        if not self.dialect.annotates or not (self.annotated or self.policy.annotations):
            return None
        return content_filter_results(judgement, judgement.decision.direction)


class Gatekeeper:
    """Serves exchanges. Every one ends in exactly one reply and one record."""

    def __init__(self, judge: Judge, sinks: Sequence[Sink], readers: Readers) -> None:
        self._judge = judge
        self._sinks = tuple(sinks)
        self._readers = readers

    async def serve(self, exchange: Exchange, ledger: RecordBuilder) -> Response:
        """The reply. Raises `GatewayError` for a failure on the way: `fail` answers and records it."""
        ledger.admit(exchange.tenant, self._judge.version)
        ledger.model, ledger.stream = str(exchange.body["model"]), exchange.dialect.streams(exchange.body)
        ledger.prompt(exchange.conversation)
        ledger.replies = []
        asked, trusted = parted(exchange.conversation, exchange.policy.trust)
        ledger.saw(Direction.PROMPT, trusted, trusted=True)
        judgement = await self._look(exchange, asked, ledger)
        match judgement.decision.action:
            case Action.BLOCK:
                return self._blocked(exchange, judgement, ledger)
            case Action.REWRITE:
                body = self._masked_prompt(exchange, judgement)
            case Action.ALLOW | Action.LOG:
                body = exchange.body
        if body is None:
            return self._said_instead(exchange, judgement, ledger, outcome="rewritten")
        body = {**body, "model": exchange.route.model}
        if exchange.dialect.streams(body):
            return self._streamed(exchange, body, judgement, ledger)
        answer = await self._ask(exchange, body, ledger)
        return await self._answered(exchange, (body, judgement), answer, ledger)

    async def _look(self, exchange: Exchange, conversation: Conversation, ledger: RecordBuilder) -> Judgement:
        conversation = await self._readers.read(conversation)
        ledger.saw(conversation.direction, conversation.judged)
        try:
            judgement = await self._judge.judge(exchange.policy, conversation)
        except ExceptionGroup as bugs:
            log.error("a guard failed: %s", bug_place(bugs))
            raise GuardUnavailable("The guard could not look at the content, so it was not let through.") from None
        ledger.judged(judgement)
        if is_outage(judgement.decision):
            raise GuardUnavailable("The guard could not look at the content, so it was not let through.")
        return judgement

    def _masked_prompt(self, exchange: Exchange, judgement: Judgement) -> Json | None:
        """The body with what the policy hides hidden; None where only a safe message will do."""
        if rewrite_of(judgement) is not Rewrite.MASK:
            return None
        try:
            return _with_masks(exchange.body, judgement, exchange.conversation, exchange.language)
        except CannotMask:
            return None

    def _blocked(self, exchange: Exchange, judgement: Judgement, ledger: RecordBuilder) -> Response:
        if exchange.policy.on_block is OnBlock.COMPLETION:
            return self._said_instead(exchange, judgement, ledger, outcome="blocked")
        return self._refused_prompt(exchange, judgement, ledger, outcome="blocked")

    def _refused_prompt(
        self, exchange: Exchange, judgement: Judgement, ledger: RecordBuilder, *, outcome: str
    ) -> Response:
        said = refusal(exchange.policy, judgement.decision, exchange.language, id=exchange.id)
        said = replace(said, results=exchange.results(judgement))
        body = exchange.dialect.blocked_prompt(said)
        reply = self.reply(exchange, body, 400, {"x-should-retry": "false"}, judgement)
        self.record(ledger, outcome=outcome, status=400)
        return reply

    def _said_instead(
        self, exchange: Exchange, judgement: Judgement, ledger: RecordBuilder, *, outcome: str
    ) -> Response:
        """A 200 that says the refusal or the safe message; the model was not asked. A 400 where no answer can."""
        if not exchange.dialect.speaks:
            return self._refused_prompt(exchange, judgement, ledger, outcome=outcome)
        said = refusal(exchange.policy, judgement.decision, exchange.language, id=exchange.id, created=exchange.created)
        reply = self._spoken(exchange, judgement, said)
        self.record(ledger, outcome=outcome, status=200)
        return reply

    def _spoken(self, exchange: Exchange, judgement: Judgement, said: Refusal) -> Response:
        results = exchange.results(judgement)
        if exchange.dialect.streams(exchange.body):
            events = exchange.dialect.stream(exchange.body).begin(said)
            if results is not None:
                events = Annotator(results, lambda choice: None)(events)
            headers = {"cache-control": "no-cache", **self.headers(exchange, judgement)}
            return Response(b"".join(map(encode, events)), media_type="text/event-stream", headers=headers)
        answer = exchange.dialect.completion(exchange.body, said)
        if results is not None:
            answer = annotated(answer, results, {})
        return self.reply(exchange, answer, 200, {}, judgement)

    def _streamed(self, exchange: Exchange, body: Json, judgement: Judgement, ledger: RecordBuilder) -> Response:
        terms = Terms(
            id=exchange.id,
            created=exchange.created,
            language=exchange.language,
            policy=exchange.policy,
            conversation=exchange.conversation,
            dialect=exchange.dialect,
            upstream=exchange.route.upstream,
            body=body,
            annotations=exchange.results(judgement),
        )

        def finish(outcome: StreamOutcome) -> None:
            ledger.streamed(outcome)
            status = outcome.error.status if outcome.error is not None and not outcome.started else 200
            error = outcome.error.code if outcome.error is not None else None
            self.record(ledger, outcome=_STREAMED[outcome.ended], status=status, error=error)

        def error(exc: GatewayError) -> Response:
            return self.reply(exchange, exchange.dialect.error(exc), exc.status, exc.headers, judgement)

        headers = self.headers(exchange, judgement)
        return GuardedStream(terms, self._judge, headers=headers, on_finish=finish, on_error=error)

    async def _ask(self, exchange: Exchange, body: Json, ledger: RecordBuilder) -> Json:
        started = now()
        try:
            answer = await exchange.route.upstream.answer(exchange.dialect.path, body)
        finally:
            ledger.spend("upstream", now() - started)
        ledger.used(answer)
        return answer

    async def _answered(
        self, exchange: Exchange, asked: tuple[Json, Judgement], answer: Json, ledger: RecordBuilder
    ) -> Response:
        """The answer, every choice of it judged. `asked` is what the upstream was asked, and the judgement on that."""
        body, on_prompt = asked
        found: dict[int, Judgement] = {}
        for choice in exchange.dialect.read_answer(answer, exchange.body):
            answer, found[choice.position] = await self._choice(exchange, body, (answer, choice), ledger)
        if (results := exchange.results(on_prompt)) is not None:
            of_choices = {i: content_filter_results(one, Direction.RESPONSE) for i, one in found.items()}
            answer = annotated(answer, results, of_choices)
        judgement = max(found.values(), key=lambda judgement: judgement.decision.severity)
        outcome = _OUTCOMES[judgement.decision.action]
        reply = self.reply(exchange, answer, 200, {}, judgement)
        self.record(ledger, outcome=outcome, status=200)
        return reply

    async def _choice(
        self, exchange: Exchange, body: Json, said: tuple[Json, Choice], ledger: RecordBuilder
    ) -> tuple[Json, Judgement]:
        """The answer with one choice judged, and treated as the policy says."""
        answer, choice = said
        conversation = exchange.conversation.reply(*choice.parts)
        if exchange.policy.record_text:
            ledger.replied([conversation.turns[-1].text])
        judgement = await self._look(exchange, conversation, ledger)
        decision = judgement.decision
        if decision.action is Action.REWRITE:
            match rewrite_of(judgement):
                case Rewrite.MASK:
                    try:
                        return _with_masks(answer, judgement, conversation, exchange.language), judgement
                    except CannotMask:
                        pass
                case Rewrite.REGENERATE:
                    other = await self._regenerated(exchange, body, ledger)
                    if other is not None:
                        return exchange.dialect.with_choice(answer, choice.position, other), judgement
                case Rewrite.SAFE_MESSAGE:
                    pass
        if decision.action >= Action.REWRITE:
            text = refusal(exchange.policy, decision, exchange.language, id=exchange.id)
            answer = exchange.dialect.refused(exchange.body, answer, choice.position, text)
        return answer, judgement

    async def _regenerated(self, exchange: Exchange, body: Json, ledger: RecordBuilder) -> Json | None:
        """Another answer that its own judgement lets through, within the policy's number of tries; None without one."""
        policy = exchange.policy
        instruction = policy.regenerate_instruction.get(exchange.language, "")
        asked = exchange.dialect.instructed(body, instruction)
        for _ in range(policy.max_regenerations):
            other = await self._ask(exchange, asked, ledger)
            first = exchange.dialect.read_answer(other, exchange.body)[0]
            judgement = await self._look(exchange, exchange.conversation.reply(*first.parts), ledger)
            if judgement.decision.action < Action.REWRITE:
                return other
        return None

    def record(self, ledger: RecordBuilder, *, outcome: str, status: int, error: str | None = None) -> None:
        if outcome == "allowed" and any(j.decision.action is Action.REWRITE for _, j in ledger.judgements):
            outcome = "rewritten"
        self.write(ledger.build(outcome, status, error))

    def write(self, record: Record) -> None:
        """To every sink. A bug in one costs neither the reply nor the other sinks' records."""
        for sink in self._sinks:
            try:
                sink.write(record)
            except Exception as bug:  # noqa: BLE001 - the reply is decided; what a sink raises must not change it
                log.error("the record of %s was not written by %s: %s", record.id, type(sink).__name__, bug_place(bug))

    def fail(self, ledger: RecordBuilder, error: GatewayError, body: Json) -> Response:
        """The reply and the record of a request that ended in an error; `body` is the error in its dialect's shape."""
        headers = {"x-request-id": ledger.id}
        if ledger.admitted and ledger.tenant is not None:
            headers = headers_of(ledger.id, ledger.tenant.policy, self._judge.version, None)
        reply = Response(orjson.dumps(body), error.status, {**headers, **error.headers}, "application/json")
        self.record(ledger, outcome=outcome_of(error), status=error.status, error=error.code)
        return reply

    def headers(self, exchange: Exchange, judgement: Judgement | None) -> dict[str, str]:
        return headers_of(exchange.id, exchange.policy, self._judge.version, judgement)

    def reply(
        self,
        exchange: Exchange,
        body: Json,
        status: int,
        headers: Mapping[str, str],
        judgement: Judgement | None = None,
    ) -> Response:
        return Response(
            orjson.dumps(body),
            status_code=status,
            media_type="application/json",
            headers={**self.headers(exchange, judgement), **headers},
        )


def headers_of(id: str, policy: Policy, guard: str, judgement: Judgement | None) -> dict[str, str]:
    """What every reply says of itself: the case, what was decided, under which policy, by which guard."""
    decision = judgement.decision.action.name.lower() if judgement else "none"
    scores = {}
    if policy.expose_scores and judgement is not None:
        risks = sorted({f"{d.category}={d.score:.3f}" for d in judgement.decisions if d.score is not None})
        scores = {"x-libragate-scores": ",".join(risks)}
    return {
        **scores,
        "x-request-id": id,
        "x-libragate-decision": decision,
        "x-libragate-policy": policy.hash,
        "x-libragate-guard": guard,
        "x-libragate-receipt": f"/v1/receipts/{id}",
    }


_OUTCOMES: Mapping[Action, str] = {
    Action.ALLOW: "allowed",
    Action.LOG: "allowed",
    Action.REWRITE: "rewritten",
    Action.BLOCK: "blocked",
}


_STREAMED: Mapping[Ended, str] = {
    Ended.COMPLETE: "allowed",
    Ended.BLOCKED: "blocked",
    Ended.REWRITTEN: "rewritten",
    Ended.GUARD_UNAVAILABLE: "guard_unavailable",
    Ended.CLIENT_LEFT: "client_left",
    Ended.UPSTREAM_FAILED: "upstream_failed",
    Ended.TIMEOUT: "upstream_timeout",
    Ended.FAILED: "failed",
    Ended.SHUT_DOWN: "shut_down",
}


def outcome_of(error: GatewayError) -> str:
    match error:
        case GuardUnavailable():
            return "guard_unavailable"
        case UpstreamTimeout():
            return "upstream_timeout"
        case UpstreamError():
            return "upstream_failed"
        case InternalError():
            return "failed"
        case _:
            return "refused"


def _with_masks(body: Json, judgement: Judgement, conversation: Conversation, language: str) -> Json:
    parts = conversation.judged
    edits = mask_edits(judgement, parts, language)
    originals = {part.path: part.text for part in parts if part.path in edits and part.text is not None}
    changed: Json = edited(body, edits, originals)
    return changed
