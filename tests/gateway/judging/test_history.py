"""Earlier turns: what was let through is known again, what would be blocked is found, and nothing else is either."""

import pytest

from gateway.judging.history import PassedTurns, offending_parts, without
from gateway.judging.judge import Judgement
from gateway.policy.policy import Action, Decision, Reason, worst_of
from guard_runtime.conversation import Conversation, Direction, Part, Path, Role, Turn
from guard_runtime.verdict import Category, Place

LONG = "turn " * 50
"""What the user says in a few words is judged in every request."""

CRIME = Category.ILLEGAL_ACTIVITIES_AND_CRIME


def conversation(*turns: tuple[Role, str | None]) -> Conversation:
    return Conversation(
        tuple(Turn(role, (Part(("messages", n, "content"), text),)) for n, (role, text) in enumerate(turns))
    )


def chat(count: int) -> Conversation:
    return conversation(*((Role.USER if n % 2 == 0 else Role.ASSISTANT, f"{n} {LONG}") for n in range(count)))


def blocked_at(*paths: Path | None) -> Judgement:
    decisions = tuple(
        Decision(
            Action.BLOCK, Reason.RULE, Direction.PROMPT, CRIME, window=None if path is None else Place(path, 0, 1, 0.9)
        )
        for path in paths
    )
    return Judgement(worst_of(decisions, Direction.PROMPT), decisions)


def texts(kept: Conversation) -> list[str | None]:
    return [part.text for turn in kept.turns for part in turn.parts]


def test_turns_that_passed_are_known_but_for_the_last_four() -> None:
    passed = PassedTurns()
    passed.add(chat(5), "shop")
    rest, known = passed.split(chat(9), "shop")
    assert [part.text for part in known] == [f"{n} {LONG}" for n in range(5)]
    assert texts(rest) == [f"{n} {LONG}" for n in range(5, 9)]
    rest, known = passed.split(chat(7), "shop")
    assert [part.text for part in known] == [f"0 {LONG}", f"1 {LONG}", f"2 {LONG}"]


def test_another_tenant_policy_or_guard_knows_none_of_them() -> None:
    passed = PassedTurns()
    passed.add(chat(5), "shop")
    assert passed.split(chat(9), "school") == (chat(9), ())


def test_the_same_words_in_another_role_are_another_turn() -> None:
    passed = PassedTurns()
    passed.add(conversation((Role.ASSISTANT, f"0 {LONG}")), "shop")
    assert passed.split(chat(9), "shop") == (chat(9), ())


def test_a_turn_that_nobody_could_read_is_not_remembered_and_old_ones_are_forgotten() -> None:
    passed = PassedTurns(kept=2)
    passed.add(conversation((Role.USER, None)), "shop")
    passed.add(chat(5), "shop")
    _, known = passed.split(chat(9), "shop")
    assert [part.text for part in known] == [f"3 {LONG}", f"4 {LONG}"]


def test_parts_of_earlier_turns_that_block_are_named() -> None:
    asked = chat(5)
    assert [part.text for part in offending_parts(blocked_at(("messages", 2, "content")), asked)] == [f"2 {LONG}"]
    both = blocked_at(("messages", 0, "content"), ("messages", 3, "content"))
    assert [part.text for part in offending_parts(both, asked)] == [f"0 {LONG}", f"3 {LONG}"]
    assert texts(without(asked, offending_parts(both, asked))) == [f"1 {LONG}", f"2 {LONG}", f"4 {LONG}"]


@pytest.mark.parametrize("path", [("messages", 4, "content"), ("somewhere",), None])
def test_what_blocks_for_the_last_question_or_for_nobody_knows_what_is_no_earlier_turns_fault(
    path: Path | None,
) -> None:
    assert offending_parts(blocked_at(path), chat(5)) == ()
    assert offending_parts(blocked_at(("messages", 0, "content"), path), chat(5)) == ()


def test_turns_that_block_only_when_joined_are_what_the_user_said_lately() -> None:
    assert [part.text for part in offending_parts(blocked_at(()), chat(7))] == [f"4 {LONG}"]
    assert offending_parts(blocked_at(()), chat(1)) == ()


def test_a_leading_system_prompt_is_no_earlier_turn() -> None:
    asked = conversation((Role.SYSTEM, "rules"), (Role.USER, "one"), (Role.ASSISTANT, "two"), (Role.USER, "three"))
    assert offending_parts(blocked_at(("messages", 0, "content")), asked) == ()


def test_a_log_or_an_allow_offends_nobody() -> None:
    decision = Decision(
        Action.LOG, Reason.RULE, Direction.PROMPT, CRIME, window=Place(("messages", 0, "content"), 0, 1, 0.5)
    )
    assert offending_parts(Judgement(decision, (decision,)), chat(5)) == ()
