"""The gateway's own reading, judging and policy, without its server: a request goes in, an outcome comes out."""

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from evaluation.datasets import BadData
from evaluation.requests.outcome import Cost, Effect, Outcome, Target, Third, Window, third_of
from evaluation.requests.rows import RequestRow, WrongBody
from gateway.api.request_body import conversation_of, decoded
from gateway.bugs import bug_place
from gateway.clock import now
from gateway.config.loader import Config, load_config
from gateway.dialects.registry import dialects
from gateway.errors import ConfigError, GatewayError
from gateway.judging.judge import Judge, Judgement, together
from gateway.judging.media import MediaReaders
from gateway.judging.prompt import PromptJudge, PromptRequest
from gateway.judging.remedy import Mask, remedy
from gateway.pipeline.record_builder import RecordBuilder
from gateway.policy.policy import Action, Decision, Reason
from gateway.streaming.replay import replay
from gateway.tenants.limits import Limits
from gateway.tenants.tenants import Tenant
from gateway.wiring import judge_of
from guard_runtime.conversation import Conversation, Direction, Part
from guard_runtime.text.language import language_of
from guard_runtime.verdict import Category

DEFAULT_CONFIG = Path(__file__).with_name("balanced.yaml")
GUARD_SECONDS = 60.0
"""A guard's deadline here, where the config's own is shorter: a busy machine is no fault of the guard."""
ANSWER = ("choices", 0, "message", "content")
CHUNK = 8
"""Characters of each piece of a stream."""
JOINED_SHOWN = 400


class BodyReader:
    """Reads bodies as the gateway does, within its limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.dialects = {dialect.name: dialect for dialect in dialects()}

    def __call__(self, dialect: str, body: Mapping[str, Any]) -> Conversation:
        """Raises `WrongBody` for what the gateway answers with a 400 or 413."""
        data = orjson.dumps(body)
        if len(data) > self._limits.body_bytes:
            raise WrongBody("", f"{len(data)} bytes; the gateway takes {self._limits.body_bytes}")
        try:
            return conversation_of(decoded(data), self.dialects[dialect], self._limits)
        except GatewayError as exc:
            raise WrongBody(exc.param or "", exc.message) from None


@dataclass(frozen=True, slots=True)
class Harness:
    """What every row is judged by: one tenant's policy, all guards of a config. Media are not read here: the policy's
    `on_unreadable` answers for them. No row is remembered, so earlier turns are judged in each."""

    judge: Judge
    tenant: Tenant
    read_body: BodyReader

    @property
    def described(self) -> Mapping[str, str]:
        policy = self.tenant.policy
        return {"policy": policy.name, "policy_hash": policy.hash, "guards": self.judge.version}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for guard in self.judge.guards:
                await stack.enter_async_context(guard.running())
            yield

    async def outcomes(self, row: RequestRow, *, stream: bool) -> Sequence[Outcome]:
        """Of a request its own; of a reply its own, and with `stream` that of the same reply as a stream."""
        if row.reply is None:
            return [await _guarded(row, Target.REQUEST, self._request(row))]
        whole = await _guarded(row, Target.REPLY, self._reply(row, row.reply))
        return [whole, await _guarded(row, Target.STREAM, self._stream(row, row.reply))] if stream else [whole]

    async def _request(self, row: RequestRow) -> Outcome:
        started = now()
        policy = self.tenant.policy
        request = PromptRequest(
            row.conversation,
            row.body,
            policy.sources,
            language_of(row.conversation.question),
            self.tenant.id,
            self.read_body.dialects[row.dialect].fields.system,
        )
        ask = partial(self.judge.judge, policy)
        prompt = await PromptJudge(MediaReaders()).judge(request, ask, RecordBuilder("", ""))
        masked = isinstance(remedy(prompt.judgement, prompt.conversation.judged), Mask) or prompt.dropped > 0
        effect = _effect(prompt.judgement, masked=masked)
        return _outcome((row, Target.REQUEST, effect), prompt.judgement, prompt.conversation, now() - started)

    async def _reply(self, row: RequestRow, reply: str) -> Outcome:
        started = now()
        conversation = row.conversation.reply(Part(ANSWER, reply))
        judgement = await self.judge.judge(self.tenant.policy, conversation)
        effect = _effect(judgement, masked=isinstance(remedy(judgement, conversation.judged), Mask))
        return _outcome((row, Target.REPLY, effect), judgement, conversation, now() - started)

    async def _stream(self, row: RequestRow, reply: str) -> Outcome:
        started = now()
        pieces = [reply[start : start + CHUNK] for start in range(0, len(reply), CHUNK)]
        ask = partial(self.judge.judge, self.tenant.policy)
        replayed = await replay(pieces, row.conversation, self.tenant.policy, ask, ANSWER)
        judgement = together([check.judgement for check in replayed.checks], Direction.RESPONSE)
        conversation = replayed.checks[-1].conversation if replayed.checks else row.conversation
        effect = _effect(judgement, masked=replayed.stopped is None)
        return _outcome((row, Target.STREAM, effect), judgement, conversation, now() - started)


def harness_of(config: Path | None, tenant: str | None, environment: Mapping[str, str]) -> Harness:
    """The harness of a configuration, its guards loaded. Raises `BadData` for a config or a tenant that is none, and
    `ArtefactRefused`."""
    path = config or DEFAULT_CONFIG
    try:
        loaded = load_config(path, environment)
        judge = judge_of(loaded)
    except ConfigError as exc:
        raise BadData("\n".join(exc.mistakes)) from exc
    judge = Judge(judge.guards, deadline=max(judge.deadline, GUARD_SECONDS))
    return Harness(judge, _tenant(loaded, path, tenant), BodyReader(loaded.limits))


def _tenant(config: Config, path: Path, name: str | None) -> Tenant:
    tenants = {tenant.id: tenant for tenant in config.tenants}
    if name is None and len(tenants) == 1:
        return next(iter(tenants.values()))
    if name is None or name not in tenants:
        raise BadData(f"{path}: name one of its tenants with --tenant: {', '.join(sorted(tenants))}")
    return tenants[name]


async def _guarded(row: RequestRow, target: Target, look: Awaitable[Outcome]) -> Outcome:
    """The outcome of a look. A bug in a guard is told by its place alone: its message may quote the row."""
    try:
        return await look
    except ExceptionGroup as bugs:
        return Outcome(row, target, Effect.COULD_NOT_LOOK, detail=bug_place(bugs))


def _effect(judgement: Judgement, *, masked: bool) -> Effect:
    decision = judgement.decision
    unread = decision.reason in (Reason.GUARD_FAILURE, Reason.UNREADABLE)
    if unread or (judgement.failures and decision.action < Action.REWRITE):
        return Effect.COULD_NOT_LOOK
    match decision.action:
        case Action.BLOCK:
            return Effect.BLOCKED
        case Action.REWRITE:
            return Effect.MASKED if masked else Effect.REWRITTEN
        case Action.LOG:
            return Effect.MASKED if masked and decision.direction is Direction.PROMPT else Effect.LOGGED
        case Action.ALLOW:
            return Effect.MASKED if masked and decision.direction is Direction.PROMPT else Effect.ALLOWED


def _outcome(
    looked: tuple[RequestRow, Target, Effect], judgement: Judgement, conversation: Conversation, seconds: float
) -> Outcome:
    row, target, effect = looked
    decision, coverage = judgement.decision, judgement.coverage
    attacks = [verdict.scores[Category.PROMPT_ATTACK] for verdict in judgement.verdicts]
    return Outcome(
        row=row,
        target=target,
        effect=effect,
        category=decision.category,
        score=decision.score,
        threshold=decision.threshold,
        guard=decision.guard,
        source=decision.source,
        window=_window(decision, conversation),
        attack=max(attacks, default=0.0),
        cost=Cost(coverage.windows, coverage.tokens, coverage.cleared, coverage.cached, seconds),
        detail=decision.detail or "; ".join(judgement.failures),
    )


def _window(decision: Decision, conversation: Conversation) -> Window:
    place = decision.window
    if place is None:
        return Window()
    if not place.path:
        last = next((turn.text for turn in reversed(conversation.turns) if turn.text), "")
        return Window(Third.JOINED, "", place.start, place.end, last[:JOINED_SHOWN])
    text = next((part.text or "" for part in conversation.judged if part.path == place.path), "")
    path = ".".join(map(str, place.path))
    if not text:
        return Window(Third.UNKNOWN, path, place.start, place.end)
    third = third_of(place.start, place.end, len(text))
    return Window(third, path, place.start, place.end, text[place.start : place.end])
