"""The simulation itself: many worlds, the same twice over, every step of one, and every kept seed."""

import pytest

from gateway.outcome import Ended
from tests.simulation.__main__ import kept_seeds
from tests.simulation.loop import Stuck
from tests.simulation.mutants import MUTATIONS, Mutation, mutant
from tests.simulation.run import Violation, run
from tests.simulation.world import Fault, world

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


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.breaks)
def test_a_broken_line_is_noticed(mutation: Mutation) -> None:
    with mutant(mutation) as stream:
        for seed in range(MOST_WORLDS):
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
