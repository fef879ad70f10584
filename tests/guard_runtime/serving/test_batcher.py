"""Every waiter gets a verdict or an error, whatever the model, the lane or the caller does."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

import anyio
import pytest

from guard_runtime.conversation import Direction
from guard_runtime.errors import GuardError, GuardFailed, GuardOverloaded
from guard_runtime.guard import Passage
from guard_runtime.serving.batcher import Batcher, BatchSeen, Limits, Urgency
from guard_runtime.verdict import CATEGORIES, Verdict

T = TypeVar("T")


def verdict(score: float = 0.1) -> Verdict:
    return Verdict("echo", dict.fromkeys(CATEGORIES, score))


def passage(text: str) -> Passage:
    return Passage(Direction.PROMPT, text)


class Echo:
    """A model that remembers its batches, and says or does what it is told."""

    def __init__(self, say: Callable[[Sequence[Passage]], Sequence[Verdict]] | None = None) -> None:
        self.batches: list[list[str]] = []
        self._say = say or (lambda batch: [verdict() for _ in batch])

    def predict(self, batch: Sequence[Passage]) -> Sequence[Verdict]:
        self.batches.append([one.text for one in batch])
        return self._say(batch)


class GatedLane:
    """A lane that waits to be let through; `hang` makes it wait for ever."""

    def __init__(self) -> None:
        self.gate = anyio.Event()
        self.freed = anyio.Event()
        self.busy = anyio.Event()

    async def run(self, work: Callable[[], T]) -> T:
        self.busy.set()
        await self.gate.wait()
        return work()

    async def free(self) -> None:
        await self.freed.wait()


async def outcome(check: Awaitable[Verdict]) -> str:
    try:
        await check
    except GuardError as exc:
        return f"{type(exc).__name__}: {exc}"
    return "verdict"


def test_what_comes_in_while_the_model_is_busy_goes_together_and_the_urgent_first() -> None:
    async def scenario() -> list[list[str]]:
        model, lane = Echo(), GatedLane()
        batcher = Batcher(model, name="echo", lane=lane, limits=Limits(batch=2))
        async with batcher.running(), anyio.create_task_group() as tasks:
            tasks.start_soon(batcher.check, passage("first"))
            await lane.busy.wait()
            for text, urgency in (
                ("audit", Urgency.OFFLINE),
                ("prompt 1", Urgency.PROMPT),
                ("stream", Urgency.STREAM),
                ("prompt 2", Urgency.PROMPT),
            ):
                tasks.start_soon(batcher.check, passage(text), urgency)
                await anyio.wait_all_tasks_blocked()
            lane.gate.set()
        return model.batches

    assert anyio.run(scenario) == [["first"], ["stream", "prompt 1"], ["prompt 2", "audit"]]


def test_a_full_queue_turns_callers_away_at_once() -> None:
    async def scenario() -> list[str]:
        lane = GatedLane()
        batcher = Batcher(Echo(), name="echo", lane=lane, limits=Limits(queue=1))
        async with batcher.running(), anyio.create_task_group() as tasks:
            tasks.start_soon(batcher.check, passage("on the model"))
            await lane.busy.wait()
            tasks.start_soon(batcher.check, passage("waits"))
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(GuardOverloaded, match="echo: 1 passages wait already"):
                await batcher.check(passage("too many"))
            lane.gate.set()
        return [text for batch in batcher._model.batches for text in batch]  # type: ignore[attr-defined]

    assert anyio.run(scenario) == ["on the model", "waits"]


def test_callers_who_left_are_not_read_and_give_their_place_back() -> None:
    async def scenario() -> list[list[str]]:
        model, lane = Echo(), GatedLane()
        batcher = Batcher(model, name="echo", lane=lane, limits=Limits(queue=1))
        async with batcher.running(), anyio.create_task_group() as tasks:
            tasks.start_soon(batcher.check, passage("first"))
            await lane.busy.wait()
            with anyio.move_on_after(0.01):
                await batcher.check(passage("leaves"))
            assert batcher.queued == 0
            tasks.start_soon(batcher.check, passage("stays"))
            await anyio.wait_all_tasks_blocked()
            lane.gate.set()
        return model.batches

    assert anyio.run(scenario) == [["first"], ["stays"]]


def broken(batch: Sequence[Passage]) -> Sequence[Verdict]:
    raise ValueError(f"cannot read {batch[0].text}")


def late(batch: Sequence[Passage]) -> Sequence[Verdict]:
    raise TimeoutError


@pytest.mark.parametrize(
    ("say", "said"),
    [
        (broken, "GuardFailed: echo: ValueError"),
        (late, "GuardFailed: echo: the model timed out"),
        (lambda batch: [], "GuardFailed: echo: 0 verdicts for 2 passages"),
        (lambda batch: [verdict()] * 3, "GuardFailed: echo: 3 verdicts for 2 passages"),
        (lambda batch: ["safe"] * len(batch), "GuardFailed: echo: the model returned something that is no verdict"),
        (lambda batch: [verdict(float("nan"))] * 2, "GuardFailed: echo: guard echo: the score for"),
    ],
)
def test_a_failing_model_reaches_every_waiter_and_the_next_batch_is_read(
    say: Callable[[Sequence[Passage]], Sequence[Verdict]], said: str
) -> None:
    async def scenario() -> list[str]:
        outcomes: list[str] = []
        lane = GatedLane()
        model = Echo(lambda batch: [verdict()] if batch[0].text == "before" else say(batch))
        batcher = Batcher(model, name="echo", lane=lane, limits=Limits(batch=2))

        async def ask(text: str) -> None:
            outcomes.append(await outcome(batcher.check(passage(text))))

        async with batcher.running():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, "before")
                await lane.busy.wait()
                tasks.start_soon(ask, "one")
                tasks.start_soon(ask, "two")
                await anyio.wait_all_tasks_blocked()
                lane.gate.set()
            await ask("before")
        return outcomes

    outcomes = anyio.run(scenario)
    assert outcomes[0] == outcomes[3] == "verdict"
    assert outcomes[1].startswith(said)
    assert outcomes[2].startswith(said)


def test_an_error_never_quotes_the_text() -> None:
    async def scenario() -> str:
        async with Batcher(Echo(broken), name="echo").running() as batcher:
            return await outcome(batcher.check(passage("my secret")))

    assert anyio.run(scenario) == "GuardFailed: echo: ValueError"


def test_shutdown_tells_everybody_who_waits() -> None:
    async def scenario() -> list[str]:
        outcomes: list[str] = []
        lane = GatedLane()
        batcher = Batcher(Echo(), name="echo", lane=lane)

        async def ask(text: str) -> None:
            outcomes.append(await outcome(batcher.check(passage(text))))

        async with anyio.create_task_group() as tasks, batcher.running():
            tasks.start_soon(ask, "on the model")
            await lane.busy.wait()
            tasks.start_soon(ask, "queued")
            await anyio.wait_all_tasks_blocked()
        await ask("too late")
        return outcomes

    outcomes = anyio.run(scenario)
    assert len(outcomes) == 3
    assert all(said.startswith("GuardFailed: echo: ") for said in outcomes)


def test_a_hung_thread_fails_all_waiters_and_those_after_until_it_comes_back() -> None:
    async def scenario() -> list[str]:
        outcomes: list[str] = []
        lane = GatedLane()
        batcher = Batcher(Echo(), name="echo", lane=lane, limits=Limits(patience=0.02))

        async def ask(text: str) -> None:
            outcomes.append(await outcome(batcher.check(passage(text))))

        async with batcher.running():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, "hangs")
                await lane.busy.wait()
                tasks.start_soon(ask, "waits behind it")
            assert not batcher.ready
            await ask("comes later")
            lane.gate.set()
            lane.freed.set()
            await anyio.wait_all_tasks_blocked()
            assert batcher.ready
            await ask("after it came back")
        return outcomes

    outcomes = anyio.run(scenario)
    assert ["its thread hangs" in said for said in outcomes] == [True, True, True, False]
    assert outcomes[-1] == "verdict"


def test_nobody_is_answered_before_it_runs() -> None:
    with pytest.raises(GuardFailed, match="echo: is not running"):
        anyio.run(Batcher(Echo(), name="echo").check, passage("early"))


def test_it_runs_again_after_it_was_shut_down() -> None:
    async def scenario() -> list[str]:
        batcher = Batcher(Echo(), name="echo")
        said = []
        for _ in range(2):
            async with batcher.running():
                said.append(await outcome(batcher.check(passage("hello"))))
        return said

    assert anyio.run(scenario) == ["verdict", "verdict"]


def test_a_real_thread_answers_many_at_once_and_every_batch_is_seen() -> None:
    async def scenario() -> tuple[int, list[BatchSeen]]:
        seen: list[BatchSeen] = []
        answered = 0

        async def ask(batcher: Batcher, text: str) -> None:
            nonlocal answered
            await batcher.check(passage(text))
            answered += 1

        async with Batcher(Echo(), name="echo", limits=Limits(batch=8)).running() as batcher:
            batcher.observe = seen.append
            async with anyio.create_task_group() as tasks:
                for number in range(50):
                    tasks.start_soon(ask, batcher, str(number))
        return answered, seen

    answered, seen = anyio.run(scenario)
    assert answered == sum(batch.size for batch in seen) == 50
    assert all(batch.size <= 8 and batch.seconds >= 0 and not batch.failed for batch in seen)


def test_work_nobody_waits_for_goes_on_between_checks_and_a_check_waits_for_one_step_at_most() -> None:
    async def scenario() -> tuple[str, list[str]]:
        seen: list[str] = []
        batcher: Batcher

        def steps() -> Iterator[str]:
            for n in range(1, 6):
                seen.append(f"step {n}")
                yield f"after {n}"

        def say(batch: Sequence[Passage]) -> Sequence[Verdict]:
            seen.extend(passage.text for passage in batch)
            return [verdict() for _ in batch]

        lane = StepLane()
        batcher = Batcher(Echo(say), name="echo", lane=lane)
        async with batcher.running(), anyio.create_task_group() as tasks:
            found: list[str] = []

            async def explain() -> None:
                found.append(await batcher.idly(steps()))

            tasks.start_soon(explain)
            await lane.through(2)
            tasks.start_soon(batcher.check, passage("somebody waits"))
            await anyio.wait_all_tasks_blocked()
            await lane.through(9)
        return found[0], seen

    found, seen = anyio.run(scenario)
    assert found == "after 5"
    assert seen == ["step 1", "step 2", "step 3", "somebody waits", "step 4", "step 5"]


class StepLane:
    """A lane that lets through as many pieces of work as it is told; the next one stands on the model meanwhile."""

    def __init__(self) -> None:
        self._tickets, self._taken = anyio.create_memory_object_stream[None](100)

    async def through(self, count: int) -> None:
        for _ in range(count):
            self._tickets.send_nowait(None)
        await anyio.wait_all_tasks_blocked()

    async def run(self, work: Callable[[], T]) -> T:
        await self._taken.receive()
        return work()

    async def free(self) -> None:
        raise AssertionError("nothing hangs here")


def test_a_step_that_fails_is_told_to_whoever_wanted_it_and_the_next_check_is_answered() -> None:
    async def scenario() -> tuple[str, str]:
        def steps() -> Iterator[str]:
            yield ""
            raise ValueError("the text itself")

        batcher = Batcher(Echo(), name="echo")
        async with batcher.running():
            with pytest.raises(GuardFailed) as failed:
                await batcher.idly(steps())
            return str(failed.value), await outcome(batcher.check(passage("next")))

    assert anyio.run(scenario) == ("echo: ValueError", "verdict")


def test_a_batcher_that_stops_tells_those_whose_work_is_left() -> None:
    async def scenario() -> list[str]:
        told: list[str] = []
        lane = GatedLane()
        batcher = Batcher(Echo(), name="echo", lane=lane)

        async def explain() -> None:
            try:
                await batcher.idly(iter([""]))
            except GuardFailed as exc:
                told.append(str(exc))

        async with anyio.create_task_group() as tasks, batcher.running():
            tasks.start_soon(explain)
            await lane.busy.wait()
        await explain()
        return told

    assert anyio.run(scenario) == ["echo: is shut down"] * 2
