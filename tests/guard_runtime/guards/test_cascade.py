"""A cascade asks the large guard only where the small one is unsure, and its band keeps the promised loss."""

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard_runtime.conversation import Conversation, Part, Role, Turn
from guard_runtime.errors import GuardFailed
from guard_runtime.guards.cascade import Band, Cascade, Scored, tune
from guard_runtime.guards.scripted import Script, ScriptedGuard
from guard_runtime.verdict import CATEGORIES, Category, Verdict

GAMBLING, PRIVACY = Category.ILLEGAL_ACTIVITIES_AND_CRIME, Category.PRIVACY_AND_PROPERTY


def asked(cascade: Cascade, text: str) -> Verdict:
    conversation = Conversation((Turn(Role.USER, (Part(("messages", 0, "content"), text),)),))

    async def check() -> Verdict:
        async with cascade.running():
            return await cascade.check(conversation)

    return anyio.run(check)


def scores(values: dict[str, float]) -> Script:
    return lambda text: {GAMBLING: values.get(text, 0.0), PRIVACY: values.get(text, 0.0) / 2}


SMALL = {"sure": 0.95, "unsure": 0.6}


@pytest.mark.parametrize(
    ("text", "large_risk", "expected"), [("sure", 0.1, 0.95), ("unsure", 0.1, 0.1), ("calm", 0.9, 0.0)]
)
def test_the_large_guard_decides_inside_the_band_and_nowhere_else(
    text: str, large_risk: float, expected: float
) -> None:
    large = ScriptedGuard(scores({text: large_risk}), name="large")
    cascade = Cascade(ScriptedGuard(scores(SMALL)), large, Band(0.2, 0.8))
    assert asked(cascade, text).risk == expected
    assert bool(large.seen) is (text == "unsure")


def test_a_large_guard_without_kinds_of_harm_gets_the_small_ones() -> None:
    large = ScriptedGuard(lambda text: dict.fromkeys(CATEGORIES, 0.4), name="large")
    verdict = asked(Cascade(ScriptedGuard(scores(SMALL)), large, Band(0.2, 0.8)), "unsure")
    assert verdict.scores[GAMBLING] == pytest.approx(0.4)
    assert verdict.scores[PRIVACY] == pytest.approx(0.2)
    assert verdict.scores[Category.HATE_SPEECH_AND_ABUSE] == 0


def test_a_large_guard_that_fails_leaves_no_verdict() -> None:
    def fails(text: str) -> dict[Category, float]:
        raise GuardFailed("no")

    with pytest.raises(GuardFailed):
        asked(Cascade(ScriptedGuard(scores(SMALL)), ScriptedGuard(fails), Band(0.2, 0.8)), "unsure")


ROWS = st.lists(
    st.builds(Scored, st.sampled_from([n / 10 for n in range(11)]), st.floats(0, 1), st.booleans()),
    min_size=1,
    max_size=40,
)


@given(ROWS, st.sampled_from([0.0, 0.05, 0.2]))
def test_the_tuned_band_keeps_the_loss_and_no_band_asks_less(rows: list[Scored], max_loss: float) -> None:
    tuned = tune(rows, max_loss)
    assert tuned.loss <= max_loss + 1e-9
    held = [row for row in rows if tuned.band.holds(row.small)]
    assert len(held) / len(rows) == pytest.approx(tuned.escalated)
    wrong = sum((row.large if tuned.band.holds(row.small) else row.small >= 0.5) != row.unsafe
                if not tuned.band.holds(row.small) else (row.large >= 0.5) != row.unsafe for row in rows)  # fmt: skip
    assert wrong / len(rows) == pytest.approx(tuned.cascade)
    ends = sorted({row.small for row in rows} | {1.01})
    for low in ends:
        for high in (end for end in ends if end >= low):
            band = Band(low, high)
            mistakes = sum(((row.large if band.holds(row.small) else row.small) >= 0.5) != row.unsafe for row in rows)
            if mistakes / len(rows) <= tuned.large + max_loss and low < high:
                assert sum(band.holds(row.small) for row in rows) >= len(held)


def test_without_rows_there_is_no_band() -> None:
    with pytest.raises(ValueError, match="no rows"):
        tune([], 0.01)


def test_a_cascade_counts_what_it_escalates() -> None:
    cascade = Cascade(ScriptedGuard(scores(SMALL)), ScriptedGuard(scores({})), Band(0.2, 0.8))
    for text in ("sure", "unsure", "calm"):
        asked(cascade, text)
    assert cascade.counts() == {"checks": 3, "escalated": 1}
