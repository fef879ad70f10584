"""What goes back to the caller: headers and JSON bodies of every reply, and the outcome each error is recorded as."""

from collections.abc import Mapping
from dataclasses import replace

import orjson
from starlette.responses import Response

from gateway.dialects.annotated import Annotator, annotated
from gateway.dialects.dialect import Json
from gateway.dialects.sse import encode
from gateway.errors import GatewayError, GuardUnavailable, InternalError, UpstreamError, UpstreamTimeout
from gateway.exchange import Exchange
from gateway.judging.judge import Judgement
from gateway.judging.rewrites import refusal
from gateway.policy.policy import Policy
from gateway.records.record import Outcome


def json_reply(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status_code=status, media_type="application/json", headers=headers)


def headers_of(id: str, policy: Policy, guard: str, judgement: Judgement | None) -> dict[str, str]:
    """What every reply says of itself: its id, what was decided, under which policy, by which guards."""
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


def answer_reply(exchange: Exchange, guard: str, judgement: Judgement, answer: Json) -> Response:
    return json_reply(answer, 200, headers_of(exchange.id, exchange.policy, guard, judgement))


def error_reply(exchange: Exchange, guard: str, judgement: Judgement | None, error: GatewayError) -> Response:
    headers = {**headers_of(exchange.id, exchange.policy, guard, judgement), **error.headers}
    return json_reply(exchange.dialect.error(error), error.status, headers)


def blocked_reply(exchange: Exchange, guard: str, judgement: Judgement) -> Response:
    """A 400 that refuses the prompt."""
    text = refusal(exchange.policy, judgement.decision, exchange.language, id=exchange.id)
    text = replace(text, results=exchange.results(judgement))
    headers = {**headers_of(exchange.id, exchange.policy, guard, judgement), "x-should-retry": "false"}
    return json_reply(exchange.dialect.blocked_prompt(text), 400, headers)


def refusal_reply(exchange: Exchange, guard: str, judgement: Judgement) -> Response:
    """A 200 with the refusal or the safe message in place of a model answer."""
    dialect, body = exchange.dialect, exchange.body
    text = refusal(exchange.policy, judgement.decision, exchange.language, id=exchange.id, created=exchange.created)
    results = exchange.results(judgement)
    if dialect.streams(body):
        events = dialect.stream(body).begin(text)
        if results is not None:
            events = Annotator(results, lambda choice: None)(events)
        headers = {"cache-control": "no-cache", **headers_of(exchange.id, exchange.policy, guard, judgement)}
        return Response(b"".join(map(encode, events)), media_type="text/event-stream", headers=headers)
    answer = dialect.completion(body, text)
    return answer_reply(exchange, guard, judgement, answer if results is None else annotated(answer, results, {}))


def outcome_of(error: GatewayError) -> Outcome:
    match error:
        case GuardUnavailable():
            return Outcome.GUARD_UNAVAILABLE
        case UpstreamTimeout():
            return Outcome.UPSTREAM_TIMEOUT
        case UpstreamError():
            return Outcome.UPSTREAM_FAILED
        case InternalError():
            return Outcome.FAILED
        case _:
            return Outcome.REFUSED
