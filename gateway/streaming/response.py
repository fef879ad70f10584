"""A guarded stream: the ASGI response that relays an upstream's events through the gate."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import anyio
from anyio.abc import TaskGroup
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.bugs import bug_place
from gateway.dialects.annotated import Annotator, by_choice, choice_of
from gateway.dialects.dialect import Event, Json, Refusal
from gateway.dialects.sse import KEEP_ALIVE
from gateway.errors import GatewayError, GuardUnavailable, UpstreamError, UpstreamTimeout
from gateway.exchange import Exchange
from gateway.judging.azure_results import content_filter_results
from gateway.judging.judge import Judge, Judgement, together
from gateway.judging.masks import mask_label
from gateway.judging.provider_errors import judged_error
from gateway.judging.remedy import Mask, Outage, Pass, Regenerate, Remedy, Replace, stream_remedy
from gateway.judging.rewrites import refusal
from gateway.judging.unknown_fields import UnknownFields
from gateway.policy.policy import Action, Decision, Reason
from gateway.streaming.gate import Free, Gate
from gateway.streaming.outcome import Ended, StreamOutcome
from gateway.streaming.pipes import ClientWriter, UpstreamBuffer, Wakeup
from gateway.streaming.stats import StreamStatsBuilder
from guard_runtime.conversation import Direction, Part
from guard_runtime.verdict import Span

KEEP_ALIVE_AFTER = 10.0
"""Seconds without a byte before a comment is sent: proxies commonly close a silent connection after 30 to 60."""

log = logging.getLogger(__name__)


class GuardedStream(Response):
    """Relays one answer through the gate to the caller. `exchange` is the request as its upstream is asked.

    The response starts with the first bytes that may leave: a failure before that is `on_error`'s reply, with its own
    status. `on_finish` is called exactly once, whatever happens, and before this returns. The task group opens and
    closes in `__call__`, where nothing is yielded: with it end the upstream's connection and the running check.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        exchange: Exchange,
        judge: Judge,
        *,
        headers: Mapping[str, str],
        on_finish: Callable[[StreamOutcome], None],
        on_error: Callable[[GatewayError], Response],
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no", **headers})
        self._exchange = exchange
        self._judge = judge
        self._on_finish = on_finish
        self._on_error = on_error
        self._stats = StreamStatsBuilder(exchange.policy.record_text)
        self._ending: _Ending | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        client = ClientWriter(send, start, self._exchange.policy.stream.idle_timeout, self._annotator())
        try:
            await self._answer(client, receive)
        finally:
            self._on_finish(self._outcome(client))
        error = self._ending.error if self._ending is not None else None
        if error is not None and not client.started:
            await self._on_error(error)(scope, receive, send)

    def _annotator(self) -> Annotator | None:
        """Adds Azure's annotations to the events, where they were asked for."""
        prompt, stats = self._exchange.prompt_results, self._stats
        if prompt is None:
            return None

        def results(choice: int) -> Json | None:
            judgement = stats.of_choice(choice)
            return None if judgement is None else content_filter_results(judgement, Direction.RESPONSE)

        return Annotator(prompt, results)

    async def _answer(self, client: ClientWriter, receive: Receive) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._until_left, receive, tasks.cancel_scope)
                await self._relay(client, tasks)
                tasks.cancel_scope.cancel()
        except ExceptionGroup as bugs:
            # Every expected failure has ended the stream above, so this is a bug: ours, the dialect's, or an upstream's
            # that raised something else than UpstreamError. The client still gets a valid ending and the request a
            # record. A task group always raises its tasks' errors as a group; nothing else is caught here.
            log.error("a stream failed: %s", bug_place(bugs))
            error = UpstreamError("The answer could not be relayed to its end.")
            self._ending = _Ending(Ended.FAILED, error=error, detail=bug_place(bugs))
            if client.started and not client.finished:
                stream = self._exchange.dialect.stream(self._exchange.body)
                await client.finish(stream.fail(error))

    async def _until_left(self, receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if self._ending is None:
            self._ending = _Ending(Ended.CLIENT_LEFT)
        scope.cancel()

    async def _relay(self, client: ClientWriter, tasks: TaskGroup) -> None:
        exchange, policy = self._exchange, self._exchange.policy
        deadline = anyio.current_time() + policy.stream.timeout
        body = exchange.body
        # Asking again gives one answer: a request for several gets the safe message in each of them.
        tries = policy.max_regenerations if exchange.dialect.choices(body) == 1 else 0
        for further in reversed(range(tries + 1)):
            relay = _Relay(exchange, body, self._judge, client, self._stats)
            ending = await relay.run(tasks, deadline, may_ask_again=further > 0)
            if not ending.again:
                break
            body = exchange.dialect.instructed(exchange.body, policy.regenerate_instruction.get(exchange.language, ""))
        self._ending = ending
        if ending.error is None or client.started:
            await client.finish(ending.events)

    def _outcome(self, client: ClientWriter) -> StreamOutcome:
        stats, ending = self._stats, self._ending or _Ending(Ended.SHUT_DOWN)
        return StreamOutcome(
            ended=ending.ended,
            judgement=stats.judgement,
            started=client.started,
            attempts=stats.attempts,
            stats=stats.stats,
            read=tuple(stats.read.values()),
            seconds=stats.seconds,
            usage=stats.usage,
            error=ending.error,
            detail=ending.detail,
            dropped_fields=tuple(stats.dropped),
            text=stats.text,
            withheld=stats.withheld if stats.record_text else (),
        )


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a stream ends, with the events that close it. `again`: only this attempt does, the model is asked again."""

    ended: Ended
    events: Sequence[Event] = ()
    error: GatewayError | None = None
    detail: str = ""
    again: bool = False


class _Relay:
    """One upstream's stream, through one gate, to the client. Reading and checking are tasks of their own; every
    decision is made in `run`."""

    def __init__(
        self, exchange: Exchange, body: Json, judge: Judge, client: ClientWriter, stats: StreamStatsBuilder
    ) -> None:
        self._exchange = exchange
        self._settings = exchange.policy.stream
        self._body = body
        self._judge = judge
        self._client = client
        self._stats = stats
        self._stream = exchange.dialect.stream(body)
        question = exchange.conversation.question
        self._gate = Gate(self._settings, lambda label: mask_label(label, exchange.language), question=question)
        self._unknown = UnknownFields(exchange.policy.drop_unknown, exchange.policy.passed_fields, stats.dropped)
        self._unusable: UpstreamError | None = None
        self._wakeup = Wakeup()
        self._buffer = UpstreamBuffer(self._wakeup)
        self._reading = anyio.CancelScope()
        self._listening: float | None = None
        self._began = anyio.current_time()
        self._sent = 0
        self._parts: tuple[Part, ...] = ()
        self._judgement: Judgement | None = None

    async def run(self, tasks: TaskGroup, deadline: float, *, may_ask_again: bool) -> _Ending:
        """Until the stream has ended. The upstream's connection is told to close before the ending is sent."""
        tasks.start_soon(self._read)
        ending = None
        try:
            while ending is None:
                ending = await self._step(tasks, deadline, may_ask_again)
        finally:
            self._reading.cancel()
            self._stats.absorb(self._gate)
        return ending

    async def _step(self, tasks: TaskGroup, deadline: float, may_ask_again: bool) -> _Ending | None:
        """Handles whatever has happened, then waits for more. The first of these that applies decides: a verdict that
        came in time, the stream's deadline, the upstream's silence, new events, what may leave, the next check, the
        end."""
        now = anyio.current_time()
        if self._judgement is not None:
            judgement, self._judgement = self._judgement, None
            if ending := self._apply(judgement, may_ask_again and now < deadline):
                return ending
        if now >= deadline:
            error = UpstreamTimeout(f"The answer was not complete within {self._settings.timeout:g} seconds.")
            return self._failed(error)
        if now >= self._silence_ends:
            self._reading.cancel()
            silence = f"The model's provider was silent for {self._settings.idle_timeout:g} seconds."
            self._buffer.end(UpstreamTimeout(silence))
        self._intake(now)
        await self._forward(self._gate.release(now))
        if self._client.gone:
            return _Ending(Ended.CLIENT_LEFT, detail="the client stopped reading")
        if self._gate.due(now):
            self._parts = self._gate.take()
            tasks.start_soon(self._check, self._parts)
        elif self._buffer.ended and not self._buffer and self._gate.settled:
            return self._end()
        if not self._buffer or self._gate.full:
            await self._wait(deadline)
        return None

    async def _wait(self, deadline: float) -> None:
        alive = self._client.wrote_at + KEEP_ALIVE_AFTER
        await self._wakeup.wait(min(deadline, alive, self._gate.deadline, self._silence_ends))
        if anyio.current_time() >= alive:
            await self._client.write(KEEP_ALIVE)

    @property
    def _silence_ends(self) -> float:
        """When the upstream has been silent for too long. Waiting for room in the buffer does not count."""
        waiting = self._listening is not None and not self._buffer.ended
        return (self._listening or 0.0) + self._settings.idle_timeout if waiting else math.inf

    def _intake(self, now: float) -> None:
        """Moves events from the buffer into the gate while there is room: the rest waits, and so does the upstream."""
        while self._buffer and not self._gate.full:
            event, size = self._buffer.take()
            self._stats.saw(self._exchange.dialect.usage(event.data or {}), now - self._began)
            try:
                self._take(event, now, size)
            except UpstreamError as exc:
                self._reading.cancel()
                self._buffer.end(exc, discard=True)
                exc.headers = {**exc.headers, "x-should-retry": "false"}  # what came so far has been paid for
                self._unusable = exc
        if self._buffer.ended and not self._buffer:
            self._gate.end(complete=self._complete)

    def _take(self, event: Event, now: float, size: int) -> None:
        """Reads an event and moves it into the gate. Raises `UpstreamError`."""
        event = self._stream.normalised(event)
        known, deltas = self._unknown.in_event(self._stream, event, self._stream.read(event))
        if known is not None:
            self._gate.push(known, deltas, now, size)

    async def _forward(self, events: Sequence[Free]) -> None:
        if not events:
            return
        ready = [self._stream.edited(free.event, free.texts if free.edited else {}) for free in events]
        if not await self._client.send(ready):
            return
        self._sent += len(ready)
        for event, free in zip(ready, events, strict=True):
            self._stream.sent(event)
            self._stats.sent(free.characters, free.texts)

    async def _read(self) -> None:
        error: UpstreamError | None = None
        with self._reading:
            try:
                await self._read_all()
            except UpstreamError as exc:
                error = await judged_error(exc, self._exchange.policy, self._exchange.conversation, self._judge)
        self._buffer.end(error)

    async def _read_all(self) -> None:
        """Buffers the upstream's events up to its closing one: what follows that is not part of the answer."""
        exchange = self._exchange
        async with exchange.route.upstream.stream(exchange.dialect.path, self._body, exchange.headers) as events:
            self._listening = anyio.current_time()
            async for event in events:
                self._listening = None
                await self._buffer.put(event)
                if event.data is None:
                    return
                self._listening = anyio.current_time()

    async def _check(self, parts: tuple[Part, ...]) -> None:
        judgements: dict[int, Judgement] = {}
        bug: tuple[Judgement, ...] = ()
        try:
            async with anyio.create_task_group() as tasks:
                for choice, own in (by_choice(parts) if self._exchange.dialect.annotates else {0: parts}).items():
                    tasks.start_soon(self._check_choice, choice, own, judgements, tasks.cancel_scope)
        except ExceptionGroup as bugs:
            # The judge turns every GuardError into a decision, so a guard has a bug. What the other guards would have
            # said is lost with it, so it ends the stream even where the policy lets a failing guard pass.
            log.error("a guard failed: %s", bug_place(bugs))
            bug = (_outage(bug_place(bugs)),)
            self._stats.add(bug[0], choice_of(parts[0].path))
        self._judgement = together((*judgements.values(), *bug), Direction.RESPONSE)
        self._wakeup.notify()

    async def _check_choice(
        self, choice: int, parts: Sequence[Part], judgements: dict[int, Judgement], others: anyio.CancelScope
    ) -> None:
        judgement = await self._judge.judge(self._exchange.policy, self._exchange.conversation.reply(*parts))
        self._stats.add(judgement, choice)  # not in `_apply`: the stream may be over before that
        judgements[choice] = judgement
        if not isinstance(self._remedy(judgement), Pass | Mask):
            others.cancel()  # the stream cannot go on, whatever the other choices' checks say

    def _remedy(self, judgement: Judgement) -> Remedy:
        return stream_remedy(judgement, self._parts, self._settings.mode)

    def _apply(self, judgement: Judgement, may_ask_again: bool) -> _Ending | None:
        """What one check does to the stream: its ending, or None where it goes on."""
        action = self._remedy(judgement)
        match action:
            case Pass():
                self._clear(judgement, ())
                return None
            case Mask(spans):
                self._clear(judgement, spans)
                return None
            case Outage(decision):
                error = GuardUnavailable("The safety check could not be completed, so the answer was stopped.")
                ending = self._stream.stop(self._refusal(decision))
                return _Ending(Ended.GUARD_UNAVAILABLE, ending, error, decision.detail)
            case Regenerate() if may_ask_again and not self._sent:
                return _Ending(Ended.REWRITTEN, again=True)
            case Regenerate(decision) | Replace(decision):
                return self._replaced(decision)
            case _:
                assert_never(action)

    def _clear(self, judgement: Judgement, spans: Sequence[Span]) -> None:
        self._gate.clear(spans, risk=judgement.risk)

    def _replaced(self, decision: Decision) -> _Ending:
        words = self._refusal(decision)
        if decision.action is Action.BLOCK:
            return _Ending(Ended.BLOCKED, self._stream.stop(words))
        return _Ending(Ended.REWRITTEN, self._stream.replace(words))

    def _refusal(self, decision: Decision) -> Refusal:
        self._stats.withheld = self._parts
        exchange = self._exchange
        return refusal(exchange.policy, decision, exchange.language, id=exchange.id, created=exchange.created)

    def _end(self) -> _Ending:
        """All that came in has been judged, and has left."""
        if self._complete:
            return _Ending(Ended.COMPLETE, self._stream.close())
        return self._failed(
            self._unusable or self._buffer.error or UpstreamError("The model's provider stopped in the middle.")
        )

    @property
    def _complete(self) -> bool:
        """Whether the answer is whole, by its own words or by the upstream's closing event."""
        return self._stream.finished or (self._buffer.closed and self._unusable is None)

    def _failed(self, error: UpstreamError) -> _Ending:
        ended = Ended.TIMEOUT if isinstance(error, UpstreamTimeout) else Ended.UPSTREAM_FAILED
        return _Ending(ended, self._stream.fail(error), error)


def _outage(detail: str) -> Judgement:
    decision = Decision(Action.BLOCK, Reason.GUARD_FAILURE, Direction.RESPONSE, detail=detail)
    return Judgement(decision, (decision,), failures=(detail,))
