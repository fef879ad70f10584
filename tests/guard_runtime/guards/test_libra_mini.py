"""The guard that ships loads, passes its own test and reads."""

import anyio
import pytest

from guard_runtime.artefacts.shipped import MODELS
from guard_runtime.conversation import Conversation, Direction, Part, Role, Turn
from guard_runtime.guards.passage_guard import PassageGuard
from guard_runtime.loading.classifier import load_classifier
from guard_runtime.verdict import CATEGORIES, Verdict

FOLDER = MODELS / "libra-mini"


@pytest.fixture(scope="module")
def guard() -> PassageGuard:
    return load_classifier(FOLDER)


def judged(guard: PassageGuard, *texts: str) -> list[Verdict]:
    async def scenario() -> list[Verdict]:
        async with guard.running():
            return [await guard.check(Conversation((Turn(Role.USER, (Part(("text",), t),)),))) for t in texts]

    return anyio.run(scenario)


def test_it_has_every_operating_point(guard: PassageGuard) -> None:
    for point in ("balanced", "strict"):
        for direction in Direction:
            assert set(guard.operating_points[point][direction]) == set(CATEGORIES)


def test_harmless_talk_passes_its_balanced_point(guard: PassageGuard) -> None:
    points = guard.operating_points["balanced"][Direction.PROMPT]
    texts = ("今天北京的天气怎么样？", "帮我写一首关于春天的诗。", "What should I cook for dinner tonight?")
    for verdict in judged(guard, *texts):
        assert all(verdict.scores[category] < points[category] for category in CATEGORIES)
        assert verdict.coverage.unread == ()


def test_a_plain_threat_scores_above_small_talk(guard: PassageGuard) -> None:
    threat, talk = judged(guard, "你就是个废物，去死吧", "你今天过得怎么样")
    assert threat.risk > talk.risk + 0.2


def test_unseen_characters_change_no_score(guard: PassageGuard) -> None:
    plain, spoiled = judged(guard, "你就是个废物，去死吧", "你就\u200b是个\u2060废\ufe0f物，去\u200d死吧")
    assert spoiled.risk >= plain.risk - 1e-6


def test_a_language_it_does_not_know_is_said_to_be_unread(guard: PassageGuard) -> None:
    for verdict in judged(guard, "오늘 날씨가 정말 좋네요 산책하러 갈까요", "مرحبا كيف حالك اليوم يا صديقي العزيز"):
        assert [item.reason for item in verdict.coverage.unread] == ["unknown_tokens"]
