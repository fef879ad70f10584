"""The gateway's own reading, judging and policy, without its server: a request goes in, an outcome comes out."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from evaluation.datasets import BadData
from evaluation.requests.outcome import Cost, Effect, Outcome, Target, Third, Window, third_of
from evaluation.requests.replay import CHANNEL, Replay
from evaluation.requests.rows import RequestRow, WrongBody
from gateway.api.app import dialects
from gateway.api.request_body import require_few
from gateway.clock import now
from gateway.config.loader import Config, load_config
from gateway.dialects.fields import require_depth
from gateway.errors import ConfigError, GatewayError
from gateway.judging.judge import Judge, Judgement, named
from gateway.judging.rewrites import CannotMask, edited, mask_edits, rewrite_of
from gateway.judging.trust import parted
from gateway.policy.policy import Action, Decision, Policy, Reason, Rewrite
from gateway.tenants.limits import Limits
from gateway.upstreams.boundary import refuse_forbidden
from gateway.wiring import judge_of
from guard_runtime.conversation import Conversation, Part
from guard_runtime.text.language import language_of
from guard_runtime.verdict import Category, Place

DEFAULT_CONFIG = Path(__file__).with_name("balanced.yaml")
GUARD_SECONDS = 60.0
"""A guard's deadline here, where the config's own is shorter: a busy machine is no fault of the guard."""
JOINED_SHOWN = 400


class Reader:
    """Reads bodies as the gateway does, within its limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._dialects = {dialect.name: dialect for dialect in dialects()}

    def __call__(self, dialect: str, body: Mapping[str, Any]) -> Conversation:
        """Raises `WrongBody` for what the gateway answers with a 400 or 413."""
        size = len(orjson.dumps(body))
        if size > self._limits.body_bytes:
            raise WrongBody("", f"{size} bytes; the gateway takes {self._limits.body_bytes}")
        try:
            require_depth(body)
            refuse_forbidden(body)
            require_few(body, self._limits.messages)
            return self._dialects[dialect].read_request(body)
        except GatewayError as exc:
            raise WrongBody(exc.param or "", exc.message) from exc


@dataclass(frozen=True, slots=True)
class Harness:
    """What every row is judged by: one tenant's policy, all guards of a config."""

    judge: Judge
    policy: Policy
    read_body: Reader

    @property
    def described(self) -> Mapping[str, str]:
        return {"policy": self.policy.name, "policy hash": self.policy.hash, "guards": self.judge.version}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for guard in self.judge.guards:
                await stack.enter_async_context(guard.running())
            yield

    async def outcomes(self, row: RequestRow, *, stream: bool) -> Sequence[Outcome]:
        """Of a request its own; of a reply its own, and with `stream` that of the same reply as a stream."""
        if row.reply is None:
            return [await self._request(row)]
        whole = await self._reply(row, row.reply)
        return [whole, await self._stream(row, row.reply)] if stream else [whole]

    async def _request(self, row: RequestRow) -> Outcome:
        asked, _ = parted(row.conversation, self.policy.sources.trusted)
        started = now()
        try:
            judgement = await self.judge.judge(self.policy, asked)
        except ExceptionGroup as bugs:
            return _failed(row, Target.REQUEST, bugs)
        effect = _effect(judgement, masked=_masks_body(row.body, judgement, asked.judged))
        return _outcome((row, Target.REQUEST, effect), judgement, asked, now() - started)

    async def _reply(self, row: RequestRow, reply: str) -> Outcome:
        conversation = row.conversation.reply(Part(CHANNEL, reply))
        started = now()
        try:
            judgement = await self.judge.judge(self.policy, conversation)
        except ExceptionGroup as bugs:
            return _failed(row, Target.REPLY, bugs)
        effect = _effect(judgement, masked=_masks_text(judgement, conversation.judged))
        return _outcome((row, Target.REPLY, effect), judgement, conversation, now() - started)

    async def _stream(self, row: RequestRow, reply: str) -> Outcome:
        started = now()
        language = language_of(row.conversation.question)
        try:
            replayed = await Replay(self.judge, self.policy, row.conversation, language).run(reply)
        except ExceptionGroup as bugs:
            return _failed(row, Target.STREAM, bugs)
        effect = _effect(replayed.judgement, masked=not replayed.stopped)
        conversation = row.conversation.reply(*replayed.parts)
        return _outcome((row, Target.STREAM, effect), replayed.judgement, conversation, now() - started)


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
    return Harness(judge, _policy(loaded, path, tenant), Reader(loaded.limits))


def _policy(config: Config, path: Path, tenant: str | None) -> Policy:
    policies = {one.id: one.policy for one in config.tenants}
    if tenant is None and len(policies) == 1:
        return next(iter(policies.values()))
    if tenant is None or tenant not in policies:
        raise BadData(f"{path}: name one of its tenants with --tenant: {', '.join(sorted(policies))}")
    return policies[tenant]


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
            return Effect.LOGGED
        case Action.ALLOW:
            return Effect.ALLOWED


def _masks_body(body: Mapping[str, Any], judgement: Judgement, parts: Sequence[Part]) -> bool:
    """Whether a rewrite hides spans in the body, rather than say something else instead."""
    if judgement.decision.action is not Action.REWRITE or rewrite_of(judgement) is not Rewrite.MASK:
        return False
    try:
        edits = mask_edits(judgement, parts, "en")
        edited(body, edits, {part.path: part.text for part in parts if part.path in edits and part.text is not None})
    except CannotMask:
        return False
    return True


def _masks_text(judgement: Judgement, parts: Sequence[Part]) -> bool:
    if judgement.decision.action is not Action.REWRITE or rewrite_of(judgement) is not Rewrite.MASK:
        return False
    try:
        mask_edits(judgement, parts, "en")
    except CannotMask:
        return False
    return True


def _failed(row: RequestRow, target: Target, bugs: BaseException) -> Outcome:
    return Outcome(row, target, Effect.COULD_NOT_LOOK, detail=f"a guard has a bug: {named(bugs)}")


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
    place: Place | None = decision.window
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
