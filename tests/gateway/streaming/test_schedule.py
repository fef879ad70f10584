"""The schedule alone: when a check is due, without a text in sight."""

import math

import pytest

from gateway.policy.policy import StreamSettings
from gateway.streaming.schedule import MAX_QUESTION, CheckSchedule
from gateway.streaming.token_weight import weight_of


def schedule(question: str = "", **changes: object) -> CheckSchedule:
    return CheckSchedule(StreamSettings(**changes), question)  # type: ignore[arg-type]


def after_first_check(question: str = "", **changes: object) -> CheckSchedule:
    plan = schedule(question, **changes)
    plan.add("字", 0.0)
    plan.start(weight_of(1), all_taken=True)
    plan.passed(0.0)
    return plan


def test_nothing_is_due_where_nothing_waits() -> None:
    plan = schedule()
    assert not plan.due(100.0, 0, full=True)
    assert plan.deadline(0) == math.inf
    assert plan.settled


def test_no_second_check_starts_beside_a_running_one() -> None:
    plan = schedule(first_window=1)
    plan.add("字", 0.0)
    plan.start(weight_of(1), all_taken=True)
    plan.add("字" * 100, 0.0)
    assert not plan.due(100.0, 0, full=True)
    assert plan.deadline(0) == math.inf
    plan.passed(0.0)
    assert plan.due(0.0, 0, full=False)


def test_text_that_a_check_did_not_take_still_waits_since_it_came() -> None:
    plan = schedule(first_window=1, release_after=0.3)
    plan.add("字" * 5, 1.0)
    plan.start(weight_of(2), all_taken=False)
    assert plan.waiting
    plan.passed(0.0)
    assert plan.deadline(0) == pytest.approx(1.3)


def test_a_field_that_cannot_be_read_is_due_by_time_alone() -> None:
    plan = schedule(release_after=0.3)
    plan.add("", 0.0)
    assert not plan.due(0.2, 0, full=False)
    assert plan.due(0.3, 0, full=False)


def test_the_end_of_the_input_and_a_full_gate_end_the_wait() -> None:
    plan = schedule()
    plan.add("字", 0.0)
    assert not plan.due(0.0, 0, full=False)
    assert plan.due(0.0, 0, full=True)
    plan.end_input()
    assert plan.due(0.0, 0, full=False)


def test_a_sentence_ends_the_first_window_only() -> None:
    plan = schedule()
    plan.add("好。", 0.0)
    assert plan.due(0.0, 0, full=False)
    later = after_first_check()
    later.add("好。", 0.0)
    assert not later.due(0.0, 0, full=False)


def test_an_under_full_window_waits_longer_while_most_of_it_would_be_read_again() -> None:
    plan = after_first_check(release_after=0.5)
    plan.add("字" * 10, 0.0)
    assert plan.deadline(weight_of(8)) == pytest.approx(0.5)
    assert plan.deadline(weight_of(9)) == pytest.approx(2.0)


def test_of_a_long_question_no_more_counts_than_a_guard_reads_again() -> None:
    plan = after_first_check("问" * 10_000, release_after=0.5, window=4 * MAX_QUESTION)
    plan.add("字" * (MAX_QUESTION + MAX_QUESTION // 4), 0.0)
    assert plan.deadline(0) == pytest.approx(0.5)
    assert plan.deadline(weight_of(1)) == pytest.approx(2.0)


def test_more_text_than_may_be_held_is_overfull() -> None:
    plan = schedule(max_held=10)
    plan.add("字" * 9, 0.0)
    assert not plan.overfull
    plan.add("字", 0.0)
    assert plan.overfull
