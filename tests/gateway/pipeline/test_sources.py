"""What a text is decides what it is judged for, through the served gateway and a guard that reads passages."""

import logging
from collections.abc import Sequence

import httpx
import pytest

from gateway.policy.policy import Action, Rewrite
from gateway.policy.sources import BlockedTurn, History, Sources, Treatment
from gateway.upstreams.upstream import Scripted
from guard_runtime.guard import OperatingPoints, Passage
from guard_runtime.guards.passage_guard import PassageGuard
from guard_runtime.guards.personal_data import PersonalData
from guard_runtime.serving.batcher import Batcher
from guard_runtime.serving.verdict_cache import VerdictCache
from guard_runtime.verdict import CATEGORIES, Category, Coverage, Verdict
from tests.support.gateway_server import KEY, Parts, blocking, record, served

ATTACK, CRIME = Category.PROMPT_ATTACK, Category.ILLEGAL_ACTIVITIES_AND_CRIME
PHONE = "13912345678"


class Words:
    """A model: ATTACK in a text is an attack on the model, BAD is a crime; it keeps what it was given."""

    name = "words"
    version = "1"

    def __init__(self) -> None:
        self.operating_points: OperatingPoints = {}
        self.read: list[str] = []

    def predict(self, batch: Sequence[Passage]) -> Sequence[Verdict]:
        self.read.extend(passage.text for passage in batch)
        return [
            Verdict(
                self.name,
                dict.fromkeys(CATEGORIES, 0.0)
                | {ATTACK: 0.6 if "ATTACK" in passage.text else 0.0, CRIME: 0.6 if "BAD" in passage.text else 0.0},
                (),
                Coverage(1, len(passage.text), 1, 5),
            )
            for passage in batch
        ]


def guarded(model: Words) -> PassageGuard:
    return PassageGuard(model, Batcher(model, name="words"), VerdictCache(1 << 20, b"k"))


def asked(url: str, *messages: tuple[str, str], **body: object) -> httpx.Response:
    turns = [{"role": role, "content": text} for role, text in messages]
    headers = {"Authorization": f"Bearer {KEY}"}
    return httpx.post(f"{url}/v1/chat/completions", json={"model": "m", "messages": turns, **body}, headers=headers)


def test_a_system_prompt_is_not_an_attack_and_what_the_user_says_is() -> None:
    parts = Parts(guards=(guarded(Words()),))
    with served(parts.gateway) as url:
        assert asked(url, ("system", "ATTACK"), ("user", "hello")).status_code == 200
        assert asked(url, ("system", "rules"), ("user", "ATTACK")).status_code == 400
        assert asked(url, ("user", "hello"), ("system", "ATTACK")).status_code == 400


def test_the_record_the_receipt_and_the_log_name_what_decided_and_the_setting(caplog: pytest.LogCaptureFixture) -> None:
    parts = Parts(guards=(guarded(Words()),), policy=blocking(sources=Sources(system=Treatment.ALL)))
    with served(parts.gateway) as url, caplog.at_level(logging.WARNING, "gateway"):
        for _ in range(2):
            reply = asked(url, ("system", "now ATTACK"), ("user", "hello"))
        headers = {"Authorization": f"Bearer {KEY}"}
        receipt = httpx.get(f"{url}/v1/receipts/{reply.headers['x-request-id']}", headers=headers).json()
    (decision,) = record(parts, 2)["decisions"]  # type: ignore[misc]
    where = {"source": "system", "part": "messages[0].content", "characters": [0, 10]}
    assert decision["decided_by"] == {**where, "raw": 0.6, "correction": 0.0}
    assert "sources.system" in decision["detail"]
    assert receipt["decided_by"] == where
    told = [entry.getMessage() for entry in caplog.records if "sources.system" in entry.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("tenant shop: the leading system prompt decided")
    assert "ATTACK" not in caplog.text


def test_what_personal_data_masks_is_masked_before_the_other_guards_read_it() -> None:
    model, upstream = Words(), Scripted.saying("ok")
    policy = blocking(Action.REWRITE, Rewrite.MASK)
    parts = Parts(guards=(PersonalData(), guarded(model)), policy=policy, upstream=upstream)
    with served(parts.gateway) as url:
        assert asked(url, ("user", f"my phone is {PHONE}, fill in the form")).status_code == 200
    assert model.read[0] == "my phone is [redacted:phone], fill in the form"
    assert PHONE not in str(upstream.asked)


def test_personal_data_that_is_not_masked_is_read_as_it_is() -> None:
    model = Words()
    parts = Parts(guards=(PersonalData(), guarded(model)), policy=blocking(Action.LOG))
    with served(parts.gateway) as url:
        asked(url, ("user", f"my phone is {PHONE}"))
    assert model.read[0] == f"my phone is {PHONE}"


LONG = " and so on" * 30
TURNS = [
    ("user", f"one{LONG}"),
    ("assistant", "two"),
    ("user", f"three{LONG}"),
    ("assistant", "four"),
    ("user", "five"),
]


def test_an_earlier_turn_that_was_let_through_is_not_judged_again() -> None:
    parts = Parts(guards=(guarded(Words()),))
    with served(parts.gateway) as url:
        asked(url, *TURNS)
        asked(url, *TURNS, ("assistant", "six"), ("user", "seven"))
    read = record(parts, 2)["read"]
    assert [row[4] for row in read if row[0] == "prompt"] == ["judged before"] * 3 + ["scanned"] * 4  # type: ignore[index,union-attr]


def test_history_always_judges_every_turn_again() -> None:
    parts = Parts(guards=(guarded(Words()),), policy=blocking(sources=Sources(history=History.ALWAYS)))
    with served(parts.gateway) as url:
        asked(url, *TURNS)
        asked(url, *TURNS, ("assistant", "six"), ("user", "seven"))
    read = record(parts, 2)["read"]
    assert {row[4] for row in read} == {"scanned"}  # type: ignore[index,union-attr]


POISONED = [("user", "BAD"), ("assistant", "I cannot help with that."), ("user", "hello")]


@pytest.mark.parametrize(
    ("choice", "status", "sent", "seen"),
    [
        (BlockedTurn.BLOCK, 400, None, "scanned"),
        (BlockedTurn.DROP, 200, "[earlier content removed]", "dropped"),
        (BlockedTurn.IGNORE, 200, "BAD", "ignored"),
    ],
)
def test_an_earlier_turn_that_would_be_blocked_is_met_as_the_policy_says(
    choice: BlockedTurn, status: int, sent: str | None, seen: str
) -> None:
    upstream = Scripted.saying("ok")
    policy = blocking(sources=Sources(blocked_turn=choice))
    parts = Parts(guards=(guarded(Words()),), policy=policy, upstream=upstream)
    with served(parts.gateway) as url:
        reply = asked(url, *POISONED)
    assert reply.status_code == status
    assert seen in {row[4] for row in record(parts)["read"]}  # type: ignore[attr-defined]
    if sent is None:
        assert upstream.asked == []
    else:
        assert upstream.asked[0][1]["messages"][0]["content"] == sent
    assert reply.headers.get("x-libragate-dropped") == ("1" if choice is BlockedTurn.DROP else None)


@pytest.mark.parametrize("choice", list(BlockedTurn))
def test_the_last_question_is_blocked_whatever_the_policy_says_of_earlier_turns(choice: BlockedTurn) -> None:
    parts = Parts(guards=(guarded(Words()),), policy=blocking(sources=Sources(blocked_turn=choice)))
    with served(parts.gateway) as url:
        assert asked(url, *POISONED, ("assistant", "hi"), ("user", "BAD again")).status_code == 400
        assert asked(url, ("user", "BAD")).status_code == 400


def test_a_dropped_turn_is_told_in_a_stream_too() -> None:
    parts = Parts(guards=(guarded(Words()),), policy=blocking(sources=Sources(blocked_turn=BlockedTurn.DROP)))
    with served(parts.gateway) as url:
        reply = asked(url, *POISONED, stream=True)
    assert reply.headers["x-libragate-dropped"] == "1"
    assert "[DONE]" in reply.text
