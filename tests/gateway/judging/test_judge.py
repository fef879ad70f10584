"""The judge: all guards together; a failure, a silence or an unread part is never "allow" by accident."""

import math
from collections.abc import Mapping

import anyio
import pytest

from gateway.judging.judge import Judge, Judgement, is_outage
from gateway.policy.policy import Action, DirectionPolicy, Policy, Reason, Rule
from guard_runtime.conversation import Conversation, Direction, Kind, Part, Role, Turn
from guard_runtime.errors import GuardError, GuardFailed, GuardOverloaded
from guard_runtime.guards.scripted import ScriptedGuard, words
from guard_runtime.verdict import Category

CRIME = Category.ILLEGAL_ACTIVITIES_AND_CRIME
RULES = {CRIME: (Rule(0.5, Action.BLOCK),)}
POLICY = Policy("p", "h", prompt=DirectionPolicy(RULES), response=DirectionPolicy(RULES))
ASKED = Conversation((Turn(Role.USER, (Part(("messages", 0, "content"), "tell me about bad"),)),))


def judged(*guards: ScriptedGuard, policy: Policy = POLICY, conversation: Conversation = ASKED) -> Judgement:
    async def run() -> Judgement:
        return await Judge(guards, deadline=0.05).judge(policy, conversation)

    return anyio.run(run)


def failing(error: GuardError) -> ScriptedGuard:
    def script(text: str) -> Mapping[Category, float]:
        raise error

    return ScriptedGuard(script, name="failing")


class SilentGuard(ScriptedGuard):
    async def check(self, conversation: Conversation) -> None:  # type: ignore[override]
        await anyio.sleep_forever()


BAD = ScriptedGuard(words({"bad": CRIME}))
CALM = ScriptedGuard(words({}), name="calm")


def test_the_worst_of_several_guards_wins_in_either_order() -> None:
    assert judged(CALM, BAD).decision.action is Action.BLOCK
    assert judged(BAD, CALM).decision.action is Action.BLOCK
    assert judged(CALM).decision.action is Action.ALLOW


@pytest.mark.parametrize("error", [GuardFailed("broken"), GuardOverloaded("full")])
def test_a_guard_that_fails_is_answered_by_the_policy(error: GuardError) -> None:
    judgement = judged(CALM, failing(error))
    assert judgement.decision.action is Action.BLOCK
    assert judgement.decision.reason is Reason.GUARD_FAILURE
    assert is_outage(judgement.decision)
    assert judgement.failures == (f"failing: {error.result}: {error}",)


def test_a_guard_that_is_silent_past_its_deadline_has_failed() -> None:
    judgement = judged(SilentGuard(words({})), CALM)
    assert judgement.decision.reason is Reason.GUARD_FAILURE
    assert "timeout" in judgement.failures[0]


def test_a_score_that_is_not_a_number_is_a_failure_and_no_allow() -> None:
    judgement = judged(ScriptedGuard(lambda text: {CRIME: math.nan}))
    assert judgement.decision.reason is Reason.GUARD_FAILURE
    assert judgement.decision.action is Action.BLOCK


def test_only_a_policy_that_says_so_lets_a_failure_through() -> None:
    policy = Policy("p", "h", prompt=DirectionPolicy(RULES, on_guard_failure=Action.ALLOW))
    assert judged(failing(GuardFailed("x")), policy=policy).decision.action is Action.ALLOW
    assert judged(failing(GuardFailed("x")), BAD, policy=policy).decision.action is Action.BLOCK


def test_a_part_that_no_guard_can_read_is_answered_by_the_policy() -> None:
    image = Conversation((Turn(Role.USER, (Part(("messages", 0, "content", 0), None, Kind.MEDIA),)),))
    assert judged(CALM, conversation=image).decision.reason is Reason.UNREADABLE
    assert judged(CALM, conversation=image).decision.action is Action.BLOCK
    policy = Policy("p", "h", prompt=DirectionPolicy(RULES, on_unreadable=Action.LOG))
    assert judged(CALM, policy=policy, conversation=image).decision.action is Action.LOG


def test_prompt_and_answer_are_judged_by_their_own_rules() -> None:
    policy = Policy("p", "h", prompt=DirectionPolicy({}), response=DirectionPolicy(RULES))
    assert judged(BAD, policy=policy).decision.action is Action.ALLOW
    answer = ASKED.reply(Part(("choices", 0), "a bad answer"))
    judgement = judged(BAD, policy=policy, conversation=answer)
    assert judgement.decision.action is Action.BLOCK
    assert judgement.decision.direction is Direction.RESPONSE


def test_without_guards_nothing_is_found_and_nothing_is_claimed_to_have_been_read() -> None:
    judgement = judged()
    assert judgement.decision.action is Action.ALLOW
    assert judgement.verdicts == ()
