"""Every caller gets a verdict or an error, whatever the model, the executor or the caller does."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

import anyio
import pytest

from guard_runtime.conversation import Direction
from guard_runtime.errors import GuardError, GuardFailed, GuardOverloaded
from guard_runtime.guard import Passage
from guard_runtime.serving.batch_observer import BatchStats
from guard_runtime.serving.batcher import Batcher, Priority, QueueLimits
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


class GatedExecutor:
    """An executor that waits to be let through; `hang` makes it wait for ever."""

    def __init__(self) -> None:
        self.gate = anyio.Event()
        self.freed = anyio.Event()
        self.busy = anyio.Event()

    async def run(self, work: Callable[[], T]) -> T:
        self.busy.set()
        await self.gate.wait()
        return work()

    async def wait_until_free(self) -> None:
        await self.freed.wait()


class Observer:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.guards: list[str] = []
        self.batches: list[BatchStats] = []

    def batch_finished(self, guard: str, batch: BatchStats) -> None:
        self.guards.append(guard)
        self.batches.append(batch)


async def outcome(check: Awaitable[Verdict]) -> str:
    try:
        await check
    except GuardError as exc:
        return f"{type(exc).__name__}: {exc}"
    return "verdict"


def test_what_comes_in_while_the_model_is_busy_goes_together_and_the_urgent_first() -> None:
    async def scenario() -> list[list[str]]:
        model, executor = Echo(), GatedExecutor()
        batcher = Batcher(model, name="echo", executor=executor, limits=QueueLimits(batch=2))
        async with batcher.running(), anyio.create_task_group() as tasks:
            tasks.start_soon(batcher.check, passage("first"))
            await executor.busy.wait()
            for text, priority in (
                ("prompt 1", Priority.PROMPT),
                ("stream", Priority.STREAM),
                ("prompt 2", Priority.PROMPT),
            ):
                tasks.start_soon(batcher.check, passage(text), priority)
                await anyio.wait_all_tasks_blocked()
            executor.gate.set()
        return model.batches

    assert anyio.run(scenario) == [["first"], ["stream", "prompt 1"], ["prompt 2"]]


def test_a_full_queue_turns_callers_away_at_once() -> None:
    async def scenario() -> list[str]:
        executor = GatedExecutor()
        batcher = Batcher(Echo(), name="echo", executor=executor, limits=QueueLimits(queue=1))
        async with batcher.running(), anyio.create_task_group() as tasks:
            tasks.start_soon(batcher.check, passage("on the model"))
            await executor.busy.wait()
            tasks.start_soon(batcher.check, passage("waits"))
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(GuardOverloaded, match="echo: 1 passages wait already"):
                await batcher.check(passage("too many"))
            executor.gate.set()
        return [text for batch in batcher._model.batches for text in batch]  # type: ignore[attr-defined]

    assert anyio.run(scenario) == ["on the model", "waits"]


def test_callers_who_left_are_not_read_and_give_their_place_back() -> None:
    async def scenario() -> list[list[str]]:
        model, executor = Echo(), GatedExecutor()
        batcher = Batcher(model, name="echo", executor=executor, limits=QueueLimits(queue=1))
        async with batcher.running(), anyio.create_task_group() as tasks:
            tasks.start_soon(batcher.check, passage("first"))
            await executor.busy.wait()
            with anyio.move_on_after(0.01):
                await batcher.check(passage("leaves"))
            assert batcher.queued == 0
            tasks.start_soon(batcher.check, passage("stays"))
            await anyio.wait_all_tasks_blocked()
            executor.gate.set()
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
        executor = GatedExecutor()
        model = Echo(lambda batch: [verdict()] if batch[0].text == "before" else say(batch))
        batcher = Batcher(model, name="echo", executor=executor, limits=QueueLimits(batch=2))

        async def ask(text: str) -> None:
            outcomes.append(await outcome(batcher.check(passage(text))))

        async with batcher.running():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, "before")
                await executor.busy.wait()
                tasks.start_soon(ask, "one")
                tasks.start_soon(ask, "two")
                await anyio.wait_all_tasks_blocked()
                executor.gate.set()
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
        executor = GatedExecutor()
        batcher = Batcher(Echo(), name="echo", executor=executor)

        async def ask(text: str) -> None:
            outcomes.append(await outcome(batcher.check(passage(text))))

        async with anyio.create_task_group() as tasks, batcher.running():
            tasks.start_soon(ask, "on the model")
            await executor.busy.wait()
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
        executor = GatedExecutor()
        batcher = Batcher(Echo(), name="echo", executor=executor, limits=QueueLimits(hang_after=0.02))

        async def ask(text: str) -> None:
            outcomes.append(await outcome(batcher.check(passage(text))))

        async with batcher.running():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, "hangs")
                await executor.busy.wait()
                tasks.start_soon(ask, "waits behind it")
            assert not batcher.ready
            await ask("comes later")
            executor.gate.set()
            executor.freed.set()
            await anyio.wait_all_tasks_blocked()
            assert batcher.ready
            await ask("after it came back")
        return outcomes

    outcomes = anyio.run(scenario)
    assert ["thread does not answer" in said for said in outcomes] == [True, True, True, False]
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
    observer = Observer()

    async def scenario() -> int:
        answered = 0

        async def ask(batcher: Batcher, text: str) -> None:
            nonlocal answered
            await batcher.check(passage(text))
            answered += 1

        batcher = Batcher(Echo(), name="echo", limits=QueueLimits(batch=8), observer=observer)
        async with batcher.running(), anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(ask, batcher, str(number))
        return answered

    assert anyio.run(scenario) == sum(batch.passages for batch in observer.batches) == 50
    assert all(batch.passages <= 8 and not batch.failed for batch in observer.batches)
    assert set(observer.guards) == {"echo"}


def test_a_failed_batch_is_observed_as_failed() -> None:
    observer = Observer()

    async def scenario() -> None:
        async with Batcher(Echo(broken), name="echo", observer=observer).running() as batcher:
            await outcome(batcher.check(passage("one")))

    anyio.run(scenario)
    assert [(batch.passages, batch.failed) for batch in observer.batches] == [(1, True)]


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

        executor = StepExecutor()
        batcher = Batcher(Echo(say), name="echo", executor=executor)
        async with batcher.running(), anyio.create_task_group() as tasks:
            found: list[str] = []

            async def explain() -> None:
                found.append(await batcher.run_when_idle(steps()))

            tasks.start_soon(explain)
            await executor.through(2)
            tasks.start_soon(batcher.check, passage("somebody waits"))
            await anyio.wait_all_tasks_blocked()
            await executor.through(9)
        return found[0], seen

    found, seen = anyio.run(scenario)
    assert found == "after 5"
    assert seen == ["step 1", "step 2", "step 3", "somebody waits", "step 4", "step 5"]


class StepExecutor:
    """Lets through as many pieces of work as it is told; the next one stands on the model meanwhile."""

    def __init__(self) -> None:
        self._tickets, self._taken = anyio.create_memory_object_stream[None](100)

    async def through(self, count: int) -> None:
        for _ in range(count):
            self._tickets.send_nowait(None)
        await anyio.wait_all_tasks_blocked()

    async def run(self, work: Callable[[], T]) -> T:
        await self._taken.receive()
        return work()

    async def wait_until_free(self) -> None:
        raise AssertionError("nothing hangs here")


def test_a_step_that_fails_is_told_to_whoever_wanted_it_and_the_next_check_is_answered() -> None:
    async def scenario() -> tuple[str, str]:
        def steps() -> Iterator[str]:
            yield ""
            raise ValueError("the text itself")

        batcher = Batcher(Echo(), name="echo")
        async with batcher.running():
            with pytest.raises(GuardFailed) as failed:
                await batcher.run_when_idle(steps())
            return str(failed.value), await outcome(batcher.check(passage("next")))

    assert anyio.run(scenario) == ("echo: ValueError", "verdict")


def test_a_batcher_that_stops_tells_those_whose_work_is_left() -> None:
    async def scenario() -> list[str]:
        told: list[str] = []
        executor = GatedExecutor()
        batcher = Batcher(Echo(), name="echo", executor=executor)

        async def explain() -> None:
            try:
                await batcher.run_when_idle(iter([""]))
            except GuardFailed as exc:
                told.append(str(exc))

        async with anyio.create_task_group() as tasks, batcher.running():
            tasks.start_soon(explain)
            await executor.busy.wait()
        await explain()
        return told

    assert anyio.run(scenario) == ["echo: is shut down"] * 2
