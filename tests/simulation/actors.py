"""Who lives in a simulated world: the provider, the guards on their lane, the caller."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, TypeVar

import anyio

from gateway.dialects.dialect import Event, Json
from gateway.errors import UpstreamError
from gateway.upstreams.upstream import NO_HEADERS, Headers
from guard_runtime.conversation import Conversation, Direction
from guard_runtime.guard import OperatingPoints, Passage
from guard_runtime.serving.batcher import Batcher, Priority, QueueLimits
from guard_runtime.verdict import CATEGORIES, Category, Coverage, Span, Verdict, worst
from tests.simulation.world import BAD, PRIVATE, Fault, World

T = TypeVar("T")
Tell = Callable[[str, Any], None]

GUARD_FAULTS = (Fault.GUARD_HANGS, Fault.GUARD_NAN, Fault.GUARD_COUNT, Fault.GUARD_RAISES)


class SimUpstream:
    """Plays a world's steps, a further attempt each time it is asked."""

    name = "simulated"

    def __init__(self, world: World, tell: Tell) -> None:
        self.open = 0
        self._world = world
        self._tell = tell
        self._asked = 0

    async def answer(self, path: str, body: Json, headers: Headers = NO_HEADERS) -> Json:
        raise UpstreamError("only streams are simulated")

    @asynccontextmanager
    async def stream(self, path: str, body: Json, headers: Headers = NO_HEADERS) -> AsyncIterator[AsyncIterator[Event]]:
        steps = self._world.attempts[min(self._asked, len(self._world.attempts) - 1)]
        self._asked += 1
        self._tell("asked", self._asked)
        if steps[0].fault is Fault.UPSTREAM_REFUSES:
            await anyio.sleep(steps[0].delay)
            raise UpstreamError("refused")
        self.open += 1
        try:
            yield self._played(steps)
        finally:
            self.open -= 1
            self._tell("closed", None)

    async def _played(self, steps: Sequence[Any]) -> AsyncIterator[Event]:
        for step in steps:
            if step.delay:
                await anyio.sleep(step.delay)
            match step.fault:
                case None:
                    self._tell("sent", step.event)
                    yield step.event
                case Fault.UPSTREAM_DIES:
                    raise UpstreamError("the connection was reset")
                case Fault.UPSTREAM_HANGS:
                    await anyio.sleep_forever()
                case Fault.UPSTREAM_GARBAGE:
                    self._tell("garbage", None)
                    yield Event({"choices": "garbage"})
                case _:
                    raise RuntimeError("a bug in the upstream")

    @asynccontextmanager
    async def running(self) -> AsyncIterator["SimUpstream"]:
        yield self


class SimExecutor:
    """The model's thread, without the thread: it sleeps as long as the model would compute."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.runs = 0

    async def run(self, work: Callable[[], T]) -> T:
        self.runs += 1
        failing = self.runs > self._world.guard_fails_at
        if failing and Fault.GUARD_HANGS in self._world.faults:
            await anyio.sleep_forever()
        latency = self._world.guard_latency * (20 if failing and Fault.GUARD_SLOW in self._world.faults else 1)
        await anyio.sleep(latency)
        return work()

    async def wait_until_free(self) -> None:
        await anyio.sleep(1.0)


class SimModel:
    """Knows one bad word. Fails as the world says, from its n-th batch on."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._batches = 0

    def predict(self, batch: Sequence[Passage]) -> Sequence[Verdict]:
        self._batches += 1
        faults = self._world.faults if self._batches > self._world.guard_fails_at else frozenset()
        if Fault.GUARD_RAISES in faults:
            raise RuntimeError("a bug in the model")
        if Fault.GUARD_COUNT in faults:
            return ()
        score = float("nan") if Fault.GUARD_NAN in faults else 0.0
        return [_verdict("model", BAD in passage.text, score) for passage in batch]


def _verdict(guard: str, found: bool, harmless: float = 0.0) -> Verdict:
    scores: dict[Category, float] = dict.fromkeys(CATEGORIES, harmless)
    if found:
        scores[Category.ILLEGAL_ACTIVITIES_AND_CRIME] = 0.99
    return Verdict(guard, scores, (), Coverage(1, 0, 1))


class SimGuard:
    """A guard model behind the real batcher."""

    name = "model"
    version = "1"
    operating_points: OperatingPoints = MappingProxyType({})

    def __init__(self, world: World) -> None:
        self.batcher = Batcher(
            SimModel(world), name="model", limits=QueueLimits(hang_after=12.0), executor=SimExecutor(world)
        )

    async def check(self, conversation: Conversation) -> Verdict:
        verdicts = [
            await self.batcher.check(Passage(Direction.RESPONSE, part.text, path=part.path), Priority.STREAM)
            for part in conversation.judged
            if part.text
        ]
        return worst(self.name, verdicts)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["SimGuard"]:
        async with self.batcher.running():
            yield self


class SpanGuard:
    """Finds numbers and addresses and says where, as the rules guard does."""

    name = "spans"
    version = "1"
    operating_points: OperatingPoints = MappingProxyType({})

    def __init__(self, world: World) -> None:
        self._world = world
        self._checks = 0

    async def check(self, conversation: Conversation) -> Verdict:
        self._checks += 1
        faults = self._world.faults if self._checks > self._world.guard_fails_at else frozenset()
        if Fault.GUARD_BUG in faults:
            raise KeyError("a bug in a guard")
        spans = [
            Span(part.path, found.start(), found.end(), Category.PRIVACY_AND_PROPERTY, str(found.lastgroup))
            for part in conversation.judged
            for found in PRIVATE.finditer(part.text or "")
        ]
        if spans and Fault.SPANS_ASTRAY in faults:
            spans[-1] = Span(("elsewhere",), 0, 9_999, Category.PRIVACY_AND_PROPERTY, "astray")
        scores: Mapping[Category, float] = dict.fromkeys(CATEGORIES, 0.0) | (
            {Category.PRIVACY_AND_PROPERTY: 0.9} if spans else {}
        )
        return Verdict(self.name, scores, tuple(spans))

    @asynccontextmanager
    async def running(self) -> AsyncIterator["SpanGuard"]:
        yield self


class Caller:
    """Reads at its own speed; may leave, or stop reading. `send` and `receive` are the two ends ASGI gives."""

    def __init__(self, world: World, tell: Tell) -> None:
        self.left = anyio.Event()
        self.stalled = False
        self._world = world
        self._tell = tell
        self._messages = 0
        if Fault.CALLER_SLOW not in world.faults:
            self._delay = 0.0
        else:
            self._delay = world.caller_delay

    def leave(self) -> None:
        self._tell("left", None)
        self.left.set()

    async def receive(self) -> dict[str, Any]:
        if Fault.CALLER_LEAVES in self._world.faults:
            with anyio.move_on_after(self._world.caller_leaves_at):
                await self.left.wait()
            if not self.left.is_set():
                self.leave()
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self._messages += 1
        if self.left.is_set():
            if self._messages % 2:
                raise OSError("the connection is gone")
            return
        if Fault.CALLER_STOPS_READING in self._world.faults and self._messages > 3:
            self.stalled = True
            await anyio.sleep_forever()
        if self._delay:
            await anyio.sleep(self._delay)
        self._tell("got", message)
