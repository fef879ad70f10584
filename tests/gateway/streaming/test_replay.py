"""A whole answer replayed through the gate of streams: where its checks lie, and where it stops."""

import anyio

from gateway.judging.judge import Judge
from gateway.policy.policy import Action, Policy, Rewrite, StreamMode, StreamSettings
from gateway.streaming.replay import Replay, replay
from guard_runtime.conversation import Conversation, Part, Role, Turn
from guard_runtime.guard import Guard
from guard_runtime.guards.personal_data import PersonalData
from guard_runtime.guards.scripted import ScriptedGuard
from tests.support.gateway_server import BAD, blocking

ASKED = Conversation((Turn(Role.USER, (Part(("messages", 0, "content"), "tell me"),)),))
HARMLESS = "One sentence follows another. " * 20


def replayed(answer: str, policy: Policy, *guards: Guard, chunk: int = 8) -> Replay:
    judge = Judge(guards or (ScriptedGuard(BAD),))
    pieces = [answer[start : start + chunk] for start in range(0, len(answer), chunk)]

    async def run() -> Replay:
        return await replay(pieces, ASKED, policy, lambda conversation: judge.judge(policy, conversation))

    return anyio.run(run)


def test_a_harmless_answer_leaves_whole_and_every_character_is_new_once() -> None:
    ran = replayed(HARMLESS, blocking())
    assert ran.stopped is None
    assert ran.left == len(HARMLESS)
    assert len(ran.checks) > 2
    assert [check.new for check in ran.checks] == [0, *(check.end for check in ran.checks[:-1])]
    assert ran.checks[-1].end == len(HARMLESS)


def test_each_check_has_read_the_characters_that_it_names() -> None:
    for check in replayed(HARMLESS, blocking()).checks:
        (part,) = check.conversation.judged
        assert part.text == HARMLESS[check.start : check.end]
        assert check.start <= check.new < check.end


def test_a_block_stops_it_at_its_check_and_nothing_of_that_check_has_left() -> None:
    answer = HARMLESS + "this is forbidden. " + HARMLESS
    ran = replayed(answer, blocking())
    assert ran.stopped is not None
    assert ran.stopped.action is Action.BLOCK
    last = ran.checks[-1]
    assert last.new <= answer.index("forbidden") < last.end
    assert ran.left <= last.new


def test_a_mask_does_not_stop_it_and_is_counted() -> None:
    answer = f"{HARMLESS}Call 13912345678 today. {HARMLESS}"
    ran = replayed(answer, blocking(Action.REWRITE, Rewrite.MASK), PersonalData())
    assert ran.stopped is None
    assert ran.masked == 1


def test_a_stream_that_is_checked_behind_cannot_mask_and_stops() -> None:
    settings = StreamSettings(mode=StreamMode.ASYNC)
    ran = replayed("Call 13912345678 today.", blocking(Action.REWRITE, Rewrite.MASK, stream=settings), PersonalData())
    assert ran.stopped is not None
    assert ran.left > 0


def test_the_policy_sets_the_windows() -> None:
    small = blocking(stream=StreamSettings(first_window=5, window=5, max_window=5))
    assert len(replayed(HARMLESS, small).checks) > len(replayed(HARMLESS, blocking()).checks)
