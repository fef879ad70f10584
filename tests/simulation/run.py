"""One world, run from its first event to the last."""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse, Response

from gateway.dialects.choices.chat import Chat
from gateway.errors import GatewayError
from gateway.exchange import Exchange, Route
from gateway.judging.judge import Judge, Judgement
from gateway.policy.policy import Policy
from gateway.streaming.response import GuardedStream
from gateway.tenants.tenants import Tenant
from guard_runtime.conversation import Conversation
from tests.simulation.actors import Caller, SimGuard, SimUpstream, SpanGuard
from tests.simulation.loop import SimLoop, Stuck, simulate
from tests.simulation.oracle import JUDGE_DEADLINE, LANGUAGE, Oracle, Violation
from tests.simulation.world import Fault, World

logging.getLogger("gateway").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Trace:
    """What a run left behind: how it ended, its steps, its virtual seconds, and a hash over all that happened.
    anyio keeps tasks in sets, so that the order in which several are cancelled, and with it `steps`, may differ."""

    ended: str
    steps: int = field(compare=False)
    seconds: float
    digest: str


class WatchedJudge(Judge):
    """The real judge; the oracle hears of every check once it is over."""

    def __init__(self, guards: Any, tell: Callable[[str, Any], None]) -> None:
        super().__init__(guards, deadline=JUDGE_DEADLINE)
        self._tell = tell

    async def judge(self, policy: Policy, conversation: Conversation) -> Judgement:
        judgement = await super().judge(policy, conversation)
        self._tell("judged", (policy, conversation.judged, judgement))
        return judgement


def run(world: World, stream: type[GuardedStream] = GuardedStream, *, leave_at_step: int | None = None) -> Trace:
    """Runs a world. Raises `Violation` at the first invariant that does not hold."""
    return simulate(lambda loop: _run(loop, world, stream, leave_at_step))  # type: ignore[no-any-return]


async def _run(loop: SimLoop, world: World, stream: type[GuardedStream], leave_at_step: int | None) -> Trace:
    oracle = Oracle(world)
    digest = hashlib.sha256()
    violations: list[Violation] = []

    def tell(what: str, about: Any) -> None:
        oracle.now = loop.time()
        digest.update(f"{loop.time():.9f} {what} {about if what == 'got' else ''}".encode())
        try:
            _hear(oracle, what, about)
        except Violation as found:
            violations.append(found)

    upstream, caller = SimUpstream(world, tell), Caller(world, tell)
    if leave_at_step is not None:
        loop.at_step(leave_at_step, caller.leave)
    model = SimGuard(world)
    async with model.running():
        answer = stream(
            _exchange(world, upstream),
            WatchedJudge([model, SpanGuard(world)], tell),
            headers={},
            on_finish=oracle.outcomes.append,
            on_error=_error,
        )
        task = loop.create_task(answer({"type": "http"}, caller.receive, caller.send))
        if Fault.SERVER_STOPS in world.faults:
            loop.call_later(world.caller_leaves_at, _stop, task, tell)
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None and not caller.left.is_set():
            raise error
        oracle.now = loop.time()
        left_behind = loop.unfinished - 2  # this one, and the batcher's
        queued = model.batcher.queued
    try:
        oracle.over(upstream.open, queued, left_behind)
    except Violation as found:
        violations.append(found)
    if violations:
        raise violations[0]
    return Trace(oracle.outcomes[0].ended, loop.steps, loop.time(), digest.hexdigest())


def _stop(task: "asyncio.Task[None]", tell: Callable[[str, Any], None]) -> None:
    """The server is told to stop, and stops what it runs."""
    if not task.done():
        tell("left", None)
        task.cancel()


def _hear(oracle: Oracle, what: str, about: Any) -> None:
    match what:
        case "judged":
            oracle.judged(*about)
        case "got":
            oracle.got(about)
        case "sent":
            oracle.sent(about)
        case "asked":
            oracle.asked(about)
        case "closed":
            oracle.closed()
        case "garbage":
            oracle.garbage()
        case "left":
            oracle.left_at = oracle.now


def _exchange(world: World, upstream: SimUpstream) -> Exchange:
    dialect = Chat()
    choices = len({channel[0] for channel in world.texts[0]})
    body = {"model": "m", "stream": True, "n": choices, "messages": [{"role": "user", "content": "问"}]}
    conversation = dialect.read_request(body)
    tenant = Tenant("t", world.policy, frozenset({"m"}))
    return Exchange("ID", tenant, dialect, body, conversation, Route(upstream, "m"), LANGUAGE, 0)


def _error(error: GatewayError) -> Response:
    return JSONResponse({"error": error.message}, error.status)


__all__ = ["Stuck", "Trace", "Violation", "run"]
