"""A generative guard behind the gateway: a streamed answer is read once, from its start."""

import itertools
from dataclasses import replace

import pytest

from gateway.policy.policy import DirectionPolicy, StreamSettings
from gateway.upstreams.upstream import Scripted
from guard_runtime.conversation import Conversation, Direction, Part, Role, Turn
from guard_runtime.guard import Passage
from guard_runtime.guards.passage_guard import PassageGuard, ReadLimits
from guard_runtime.serving.batcher import Batcher
from guard_runtime.serving.verdict_cache import VerdictCache
from tests.guard_runtime.generative.guards import guard, qwen
from tests.support.gateway_server import Parts, blocking, client, served

ANSWER = "".join(f"第{n}，把水烧开再放面，煮三分钟。" for n in range(40))
TAIL = 12
"""Tokens behind the text in Libra's prompt."""


def streamed(before: int) -> tuple[list[str], int]:
    """What the guard was given of ANSWER, check by check, and how many tokens its decoder was fed."""
    model, twin = guard()
    fed = twin.fed
    texts: list[str] = []
    predict = model.predict

    def noted(batch: list[Passage]) -> object:
        texts.extend(passage.text for passage in batch if passage.direction is Direction.RESPONSE)
        return predict(batch)

    model.predict = noted  # type: ignore[method-assign,assignment]
    reader = PassageGuard(model, Batcher(model, name="g"), VerdictCache(0, b"k"), limits=ReadLimits(before=before))
    policy = blocking(prompt=DirectionPolicy({}), response=DirectionPolicy({}), stream=StreamSettings(release_after=60))
    parts = Parts(guards=[reader], upstream=Scripted.saying(ANSWER, size=8, pause=0.002), policy=policy)
    with served(parts.gateway) as url:
        events = client(url).chat.completions.create(
            model="m", messages=[{"role": "user", "content": "怎么煮面？"}], stream=True
        )
        assert "".join(event.choices[0].delta.content or "" for event in events) == ANSWER
    return texts, twin.fed - fed


def test_a_guard_that_remembers_reads_an_answer_on_from_where_it_was() -> None:
    texts, fed = streamed(before=8_000)
    assert len(texts) > 4
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert texts[-1] == ANSWER
    prompts = 2 * len(qwen().text("怎么煮面？")) + 60
    assert fed < len(qwen().text(ANSWER)) + len(texts) * (TAIL + TAIL) + prompts


def test_a_guard_that_does_not_is_given_windows() -> None:
    texts, _ = streamed(before=0)
    assert max(map(len, texts)) < len(ANSWER) // 2
    assert ANSWER.startswith(texts[0])
    assert ANSWER.endswith(texts[-1])


@pytest.mark.anyio
async def test_where_an_answer_grows_too_long_reading_starts_at_a_place_that_stays() -> None:
    model, _ = guard()
    seen: list[str] = []
    answered = Conversation((Turn(Role.USER, (Part((), "问"),)),))

    class Listener(Batcher):
        async def check(self, passage: Passage, priority: object = None) -> object:  # type: ignore[override]
            seen.append(passage.text)
            return model.predict([replace(passage, text="水")])[0]

    reader = PassageGuard(model, Listener(model, name="g"), VerdictCache(0, b"k"), limits=ReadLimits(before=10))
    for length in (4, 9, 10, 14, 23):
        await reader.check(answered.reply(Part((), "新的", before="0123456789abcdefghijklmn"[:length])))
    assert seen == ["0123新的", "012345678新的", "新的", "abcd新的", "klm新的"]
