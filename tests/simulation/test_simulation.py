"""The simulation itself: many worlds, the same twice over, every step of one, and every kept seed."""

from dataclasses import replace

import pytest

from gateway.policy.policy import StreamMode, StreamSettings
from gateway.streaming.outcome import Ended
from tests.simulation.__main__ import kept_seeds
from tests.simulation.loop import Stuck
from tests.simulation.mutants import MUTATIONS, Mutation, mutant
from tests.simulation.run import Violation, run
from tests.simulation.world import BAD, Fault, Step, calm, chunk, world

MOST_WORLDS = 400
"""How many worlds may pass before one notices a broken line."""


@pytest.mark.parametrize("first", range(0, 2_000, 250))
def test_no_world_breaks_an_invariant(first: int) -> None:
    for seed in range(first, first + 250):
        assert_holds(seed)


@pytest.mark.parametrize("seed", kept_seeds())
def test_a_seed_that_failed_once_holds_for_ever(seed: int) -> None:
    assert_holds(seed)


@pytest.mark.parametrize("seed", range(3_000, 3_040))
def test_a_seed_gives_the_same_world_each_time(seed: int) -> None:
    assert run(world(seed)) == run(world(seed))


@pytest.mark.parametrize("fault", list(Fault))
def test_no_single_fault_breaks_an_invariant(fault: Fault) -> None:
    for seed in range(4_000, 4_004 if fault is Fault.FLOOD else 4_012):
        run(world(seed, [fault]))


@pytest.mark.parametrize("seed", [7, 24, 101])
def test_the_caller_may_leave_at_any_step(seed: int) -> None:
    steps = run(world(seed)).steps
    endings = {run(world(seed), leave_at_step=step).ended for step in range(1, steps)}
    assert Ended.CLIENT_LEFT in endings


def test_a_verdict_that_came_in_time_is_acted_upon_however_slowly_the_caller_reads() -> None:
    """The check says no at 7.92 s, while text is being written until 8.15 s; the stream may last 8 s."""
    plain = calm(0)
    stream = StreamSettings(mode=StreamMode.ASYNC, first_window=1, timeout=8.0)
    steps = (
        Step(7.4, chunk("a", 0, {"content": f"一{BAD}。"})),
        Step(0.2, chunk("a", 0, {"content": "二"})),
        Step(60.0, chunk("a", 0, {"content": "三"})),
    )
    texts = {(0, "content"): f"一{BAD}。二三"}
    slow = replace(
        plain,
        faults=frozenset({Fault.CALLER_SLOW}),
        policy=replace(plain.policy, stream=stream),
        attempts=(steps,),
        texts=(texts,),
        caller_delay=0.25,
    )
    assert run(slow).ended is Ended.BLOCKED


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.breaks)
def test_a_broken_line_is_noticed(mutation: Mutation) -> None:
    with mutant(mutation) as stream:
        for seed in range(mutation.first, mutation.first + MOST_WORLDS):
            try:
                run(world(seed, mutation.faults), stream)
            except (Violation, Stuck, ExceptionGroup):
                return
    pytest.fail(f"{MOST_WORLDS} worlds did not notice that this is broken: {mutation.breaks}")


def assert_holds(seed: int) -> None:
    try:
        run(world(seed))
    except (Violation, Stuck) as exc:
        pytest.fail(f"seed {seed}: {type(exc).__name__}: {exc} (keep it in tests/seeds.txt)")
