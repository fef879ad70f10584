"""A generative guard reads ragged batches, windows and growing answers as if it read each text alone and whole."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard_runtime.conversation import Direction
from guard_runtime.errors import ArtefactRefused, GuardFailed
from guard_runtime.generative.decoder import Decoder, KVCache, KVCacheStore, Row
from guard_runtime.generative.families.published import FAMILIES
from guard_runtime.generative.prefill import PrefillLimits
from guard_runtime.generative.prompt import Label, Slot, label_tokens, words
from guard_runtime.guard import Passage
from guard_runtime.guards.generative import Contract, GenerativeModel
from guard_runtime.verdict import CATEGORIES, Category
from tests.guard_runtime.generative.guards import CALIBRATION, END, VOCABULARY_SIZE, guard, probes, qwen, vocabulary
from tests.guard_runtime.generative.twin import SHAPE, Twin

PROMPT, RESPONSE = Direction.PROMPT, Direction.RESPONSE
FAMILY_NAMES = [name for name, family in FAMILIES.items() if not family.heads]
TEXT = "先把米洗干净，再加水。Then bring it to a boil。水开以后，转小火煮二十分钟！\n最后焖十分钟，😀就好了。"
QUESTION = "怎么煮饭？"


def alone(family: str, passage: Passage, twin: Twin) -> float:
    """The first probe's risk from one whole prefill, with no memory of anything."""
    probe = probes(family)[passage.direction][0]
    tokens = vocabulary(family).tokens(probe.segments, words(passage))
    decoder = Decoder(twin, SHAPE)
    (reading,) = decoder.read([Row(tokens, decoder.empty)])
    logits = dict(zip(label_tokens(probes(family)), map(float, reading.labels), strict=True))
    risky = sum(math.exp(logits[label.token]) for label in probe.labels if label.name in probe.risky)
    return risky / sum(math.exp(logits[label.token]) for label in probe.labels)


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("direction", list(Direction))
def test_every_family_scores_as_one_whole_prefill_would(family: str, direction: Direction) -> None:
    model, twin = guard(family)
    passage = Passage(direction, TEXT, QUESTION if direction is RESPONSE else None)
    (verdict,) = model.predict([passage])
    first = probes(family)[direction][0]
    expected = alone(family, passage, twin)
    if len(probes(family)[direction]) == 1:
        assert verdict.risk == pytest.approx(expected, abs=1e-5)
    else:
        assert max(verdict.scores[category] for category in first.categories) >= expected - 1e-5
    assert set(verdict.scores) == set(CATEGORIES)


def test_a_ragged_batch_scores_every_row_as_if_it_were_alone() -> None:
    model, twin = guard(limits=PrefillLimits(rows=8))
    passages = [Passage(RESPONSE, TEXT[:n], QUESTION[: n % 5]) for n in (0, 1, 3, 7, 20, 30, 41)]
    passages += [Passage(PROMPT, TEXT[n:]) for n in (2, 9)]
    for passage, verdict in zip(passages, model.predict(passages), strict=True):
        assert verdict.risk == pytest.approx(alone("libra_guard", passage, twin), abs=1e-5)


def test_the_instruction_is_read_once_and_shared() -> None:
    model, twin = guard()
    before = twin.fed
    model.predict([Passage(RESPONSE, "好", QUESTION)])
    assert twin.fed - before < 30
    assert model.health.spared >= 140


def test_questions_about_one_text_share_its_keys() -> None:
    model, twin = guard("shieldgemma")
    long = TEXT * 8
    before = twin.fed
    model.predict([Passage(PROMPT, long)])
    length = len(vocabulary("shieldgemma").text(long))
    assert length < twin.fed - before < 2 * length + 4 * 120


@settings(max_examples=40)
@given(st.data())
def test_a_growing_answer_scores_at_every_step_as_a_full_prefill_would(data: st.DataObject) -> None:
    alphabet = st.sampled_from(
        [*"好。，！？\n 的不安全“”、ab1", "<|im_end|>", "\r\n", "  ", "煮饭", "the ", "😀", "é", "\u200b"]
    )
    pieces = data.draw(st.lists(st.lists(alphabet, max_size=6).map("".join), min_size=1, max_size=8))
    model, twin = guard()
    answer = ""
    for piece in pieces:
        answer += piece
        passage = Passage(RESPONSE, answer, QUESTION)
        (verdict,) = model.predict([passage])
        assert verdict.risk == pytest.approx(alone("libra_guard", passage, twin), abs=1e-3)


def test_a_stream_costs_its_new_tokens_and_the_tail_and_not_the_whole_again() -> None:
    model, twin = guard()
    text = TEXT * 20
    step = len(text) // 20
    costs = []
    for end in range(step, len(text) + 1, step):
        before = twin.fed
        model.predict([Passage(RESPONSE, text[:end], QUESTION)])
        costs.append(twin.fed - before)
    new = len(qwen().text(text)) / 20
    assert max(costs[1:]) < new + 12 + 12
    assert len(model.caches) == 1


def test_after_eviction_the_answer_is_read_again_and_scores_the_same() -> None:
    passages = [Passage(RESPONSE, TEXT[: 10 * n], QUESTION) for n in range(1, 5)]
    plenty, _ = guard()
    none, _ = guard(limits=PrefillLimits(cache_bytes=0))
    for passage in passages:
        (one,), (other,) = plenty.predict([passage]), none.predict([passage])
        assert one.risk == pytest.approx(other.risk, abs=1e-5)
    assert len(none.caches) == 0


def test_caches_stay_within_their_budget_and_the_oldest_goes_first() -> None:
    kept = KVCacheStore(budget=3 * 2 * SHAPE.bytes_per_token)

    def cache(first: int) -> KVCache:
        states = np.zeros((2 * SHAPE.layers, SHAPE.heads, 2, SHAPE.width), np.float32)
        return KVCache((first, first * 10), states, np.zeros((2, 0), np.float32))

    for first in (1, 2, 3):
        kept.keep(cache(first))
    assert kept.recall([1, 10, 5]) is not None
    kept.keep(cache(4))
    assert kept.recall([2, 20]) is None
    assert kept.nbytes == 3 * 2 * SHAPE.bytes_per_token
    assert kept.evicted == 1
    found = kept.recall([1, 99])
    assert found is not None
    assert found.tokens == (1,)
    assert found.states.shape[2] == 1


def test_two_streams_at_once_do_not_lose_each_others_keys() -> None:
    model, twin = guard()
    for end in range(5, len(TEXT), 5):
        for question in ("怎么煮饭？", "怎么蒸鱼？"):
            passage = Passage(RESPONSE, TEXT[:end], question)
            (verdict,) = model.predict([passage])
            assert verdict.risk == pytest.approx(alone("libra_guard", passage, twin), abs=1e-4)
    assert len(model.caches) == 2


def test_a_text_longer_than_the_context_is_read_in_windows_and_what_is_left_is_said() -> None:
    model, _ = guard(limits=PrefillLimits(tokens=300, overlap=20, windows=3))
    (verdict,) = model.predict([Passage(RESPONSE, TEXT * 30, QUESTION, ("messages", 1, "content"))])
    assert verdict.coverage.windows == 3
    (unread,) = verdict.coverage.unread
    assert unread.reason == "too_long"
    assert unread.path == ("messages", 1, "content")
    assert 1_000 < unread.characters < len(TEXT) * 30


def test_windows_hold_every_character_between_them() -> None:
    model, twin = guard(limits=PrefillLimits(tokens=300, overlap=20, windows=50))
    (verdict,) = model.predict([Passage(RESPONSE, TEXT * 12, QUESTION)])
    assert verdict.coverage.windows > 3
    assert not verdict.coverage.unread
    assert all(tokens <= 300 for _, tokens in twin.runs)


def test_a_prompt_that_leaves_no_room_for_text_is_a_failure() -> None:
    model, _ = guard(limits=PrefillLimits(tokens=200))
    with pytest.raises(GuardFailed, match="no room"):
        model.predict([Passage(RESPONSE, TEXT, QUESTION)])


class Broken(Twin):
    def run(self, inputs):  # type: ignore[no-untyped-def]
        outputs = dict(super().run(inputs))
        outputs["label_logits"] = np.full_like(outputs["label_logits"], np.nan)
        return outputs


def test_logits_that_are_no_numbers_are_a_failure_and_never_a_verdict() -> None:
    asked = probes("libra_guard")
    twin = Broken(label_tokens(asked), VOCABULARY_SIZE)
    with pytest.raises(GuardFailed, match="finite"):
        GenerativeModel(Contract("g", asked, CALIBRATION), qwen(), Decoder(twin, SHAPE)).predict([Passage(PROMPT, "a")])


def test_a_manifest_whose_label_is_another_token_is_refused() -> None:
    asked = probes("libra_guard")
    (probe,) = asked[RESPONSE]
    swapped = tuple(Label(label.name, 100 + n, label.word) for n, label in enumerate(probe.labels))
    wrong = {**asked, RESPONSE: (type(probe)(**{f: getattr(probe, f) for f in probe.__slots__} | {"labels": swapped}),)}
    twin = Twin(label_tokens(wrong), VOCABULARY_SIZE)
    with pytest.raises(ArtefactRefused, match="is not token"):
        GenerativeModel(Contract("g", wrong, CALIBRATION), qwen(), Decoder(twin, SHAPE))


def favoured(word: str, then: int = END) -> dict[int, float]:
    """Head logits under which the guard writes nothing but this token."""
    return {qwen().text(word)[0]: 1e6} | {then: -1e9}


def test_an_answer_in_form_is_not_written_out() -> None:
    labels = {label.token: 1e6 for label in probes("libra_guard")[RESPONSE][0].labels}
    model, _ = guard(head=labels)
    model.predict([Passage(RESPONSE, TEXT, QUESTION)])
    assert model.health.written == 0


def test_a_guard_that_loses_its_form_and_writes_nonsense_gives_no_verdict() -> None:
    model, _ = guard(head=favoured("啊"))
    with pytest.raises(GuardFailed, match="neither"):
        model.predict([Passage(RESPONSE, TEXT, QUESTION)])
    assert model.health.written == 1


def test_a_guard_that_loses_its_form_is_read_from_what_it_writes() -> None:
    model, _ = guard("granite_guardian_3_3", head=favoured("yes"))
    (verdict,) = model.predict([Passage(RESPONSE, TEXT, QUESTION)])
    assert verdict.risk == 1.0
    assert model.health.written == len(probes("granite_guardian_3_3")[RESPONSE])
    assert model.counts()["written"] == model.health.written


def test_kinds_of_harm_are_asked_for_on_the_same_keys() -> None:
    model, twin = guard("qwen3guard_gen", seed=3)
    for n in range(1, 40, 4):
        before = len(twin.runs)
        (verdict,) = model.predict([Passage(PROMPT, TEXT[:n])])
        if len(twin.runs) - before == 2:
            assert twin.runs[-1] == (1, 4)
            assert verdict.scores[max(verdict.scores, key=lambda c: verdict.scores[c])] == verdict.risk
            assert min(verdict.scores.values()) < verdict.risk
            return
    pytest.fail("no text was risky enough to be asked about")


def test_an_answer_is_never_blamed_for_attacking_the_guard() -> None:
    model, _ = guard()
    (verdict,) = model.predict([Passage(RESPONSE, TEXT, QUESTION)])
    assert verdict.scores[Category.PROMPT_ATTACK] == 0


def test_an_explanation_is_written_after_the_verdict_on_the_same_keys() -> None:
    model, _ = guard(head=favoured("因为"))
    assert model.explain(Passage(RESPONSE, TEXT, QUESTION), limit=3) == "因为" * 3
    steps = list(model.explaining(Passage(RESPONSE, TEXT * 5, QUESTION), limit=3))
    assert steps == [""] * (len(steps) - 1) + ["因为" * 3]
    assert len(steps) > 3 + 3, "a long text is read in pieces, too, so that nobody waits for all of it"
    assert model.explains
    silent, _ = guard("llama_guard_3", head={})
    assert not silent.explains
    assert silent.explain(Passage(RESPONSE, TEXT, QUESTION)) == ""


def test_slots_are_filled_by_direction() -> None:
    assert words(Passage(RESPONSE, "a", None)) == {Slot.QUESTION: "", Slot.ANSWER: "a"}
    assert words(Passage(PROMPT, "a")) == {Slot.QUESTION: "a", Slot.ANSWER: "a"}


def test_a_masked_past_token_where_there_is_none_changes_no_score() -> None:
    """An engine takes no empty tensor."""
    twin = Twin([3, 5], VOCABULARY_SIZE)
    plain, padded = Decoder(twin, SHAPE), Decoder(twin, SHAPE, least_past=1)
    for rows in ([[7, 8, 9]], [[1], [2, 3, 4]]):
        one = plain.read([Row(row, plain.empty) for row in rows])
        other = padded.read([Row(row, padded.empty) for row in rows])
        for a, b in zip(one, other, strict=True):
            assert a.labels == pytest.approx(b.labels, abs=1e-5)
            assert a.cache.states == pytest.approx(b.cache.states, abs=1e-5)
