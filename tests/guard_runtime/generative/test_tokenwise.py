"""A guard with heads for every token: a growing answer costs its new tokens, and scores as if it were read whole."""

import itertools

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.render import Renderer, Template
from gateway.judging.judge import Judge, Judgement
from gateway.policy.policy import Action, Reason
from guard_runtime.artefacts.manifest import Calibration
from guard_runtime.conversation import Conversation, Direction, Part, Role, Turn
from guard_runtime.errors import ArtefactRefused, GuardFailed
from guard_runtime.generative.decoder import Decoder, Row
from guard_runtime.generative.families.published import FAMILIES
from guard_runtime.generative.families.qwen3guard import STREAM_RUN
from guard_runtime.generative.prefill import LIMITS, PrefillLimits
from guard_runtime.generative.prompt import Segment, Slot, words
from guard_runtime.generative.token_heads import (
    Heads,
    TokenHead,
    heads_from_json,
    heads_to_json,
    margins,
    outputs,
    scores,
)
from guard_runtime.guard import Passage
from guard_runtime.guards.passage_guard import PassageGuard
from guard_runtime.guards.tokenwise import TokenContract, TokenwiseModel
from guard_runtime.serving.batcher import Batcher
from guard_runtime.serving.verdict_cache import VerdictCache
from guard_runtime.verdict import Category
from tests.guard_runtime.generative.guards import CALIBRATION, VOCABULARY_SIZE, qwen
from tests.guard_runtime.generative.qwen import NOT_CALLED_SPECIAL, SPECIAL
from tests.guard_runtime.generative.templates import QWEN3
from tests.guard_runtime.generative.twin import SHAPE, Twin
from tests.support.gateway_server import blocking

PROMPT, RESPONSE = Direction.PROMPT, Direction.RESPONSE
FAMILY = FAMILIES["qwen3guard_stream"]
TEXT = "先把米洗干净，再加水。Then bring it to a boil。水开以后，转小火煮二十分钟！\n最后焖十分钟，😀就好了。"
QUESTION = "怎么煮饭？"
PLAIN = Calibration(1.0, 0.0)
END = 151645


def heads(template: str = QWEN3) -> Heads:
    return Renderer(FAMILY, Template(template, {}), qwen()).heads()


def guard(limits: PrefillLimits = LIMITS, seed: int = 0) -> tuple[TokenwiseModel, Twin]:
    found = heads()
    each = outputs(tuple(found.values()))
    twin = Twin([0], VOCABULARY_SIZE, seed, each)
    contract = TokenContract("g", found, CALIBRATION)
    return TokenwiseModel(contract, qwen(), Decoder(twin, SHAPE, outputs=each), limits), twin


def whole(passage: Passage, twin: Twin) -> dict[Category, float]:
    """The scores from one prefill of everything, with no memory of anything, cut where Qwen3Guard cuts: a prompt at
    the token that closes the user's turn, an answer from the first token behind `</think>` and its empty line."""
    head = heads()[passage.direction]
    tokens = qwen().tokens(head.segments, words(passage))
    decoder = Decoder(twin, SHAPE, outputs=len(twin.each))
    (reading,) = decoder.read([Row(tokens, decoder.empty)])
    think = qwen().controls["</think>"]
    start = tokens.index(END) if passage.direction is PROMPT else tokens.index(think) + 2
    return scores(head, reading.cache.logits[start:], PLAIN)


def logits(*risks: str) -> np.ndarray:
    """The answer's head's logits of tokens that are, each for itself, clearly of these risks."""
    head = heads()[RESPONSE]
    found = np.zeros((len(risks), outputs(tuple(heads().values()))), np.float32)
    for place, risk in enumerate(risks):
        found[place, head.first + head.risks.index(risk)] = 8.0
    return found


def test_the_two_prompts_end_where_their_verdicts_are_read() -> None:
    found = heads()
    assert found[PROMPT].segments == (Segment("<|im_start|>user\n"), Segment("", Slot.QUESTION), Segment("<|im_end|>"))
    assert not found[PROMPT].every
    assert found[RESPONSE].segments[2] == Segment("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert found[RESPONSE].segments[3:] == (Segment("", Slot.ANSWER, "\n"),)
    assert found[RESPONSE].every
    assert (found[RESPONSE].first, found[RESPONSE].end, found[PROMPT].end) == (0, 11, 23)
    assert (found[RESPONSE].run, found[PROMPT].run) == (STREAM_RUN, 1)


@pytest.mark.parametrize("direction", list(Direction))
def test_a_text_scores_as_one_whole_prefill_says(direction: Direction) -> None:
    model, twin = guard()
    passage = Passage(direction, TEXT, QUESTION if direction is RESPONSE else None)
    (verdict,) = model.predict([passage])
    assert verdict.scores == pytest.approx(whole(passage, twin), abs=1e-5)
    assert 0 < verdict.risk < 1


@settings(max_examples=40)
@given(st.data())
def test_a_growing_answer_scores_at_every_step_as_a_whole_prefill_would(data: st.DataObject) -> None:
    alphabet = st.sampled_from(
        [*"好。，！？\n 的不安全“”、ab1", "<|im_end|>", "</think>", "\r\n", "  ", "煮饭", "the ", "😀", "é", "\u200b"]
    )
    pieces = data.draw(st.lists(st.lists(alphabet, max_size=6).map("".join), min_size=1, max_size=8))
    model, twin = guard()
    model.predict([Passage(PROMPT, QUESTION)])
    answer = ""
    for piece in pieces:
        answer += piece
        passage = Passage(RESPONSE, answer, QUESTION)
        (verdict,) = model.predict([passage])
        tokens = qwen().tokens(heads()[RESPONSE].segments, words(passage))
        decoder = Decoder(twin, SHAPE, outputs=len(twin.each))
        (reading,) = decoder.read([Row(tokens, decoder.empty)])
        kept = model.caches.recall(tokens)
        assert kept is not None
        assert kept.tokens == tuple(tokens)
        assert kept.logits == pytest.approx(reading.cache.logits, abs=1e-3)
        assert verdict.scores == pytest.approx(whole(passage, twin), abs=1e-3)


def test_a_stream_costs_its_new_tokens_and_nothing_else() -> None:
    model, twin = guard()
    text = TEXT * 20
    model.predict([Passage(PROMPT, QUESTION)])
    before = twin.fed
    step = len(text) // 20
    for end in range(step, len(text) + 1, step):
        model.predict([Passage(RESPONSE, text[:end], QUESTION)])
    template = len(qwen().text("assistant\n\n\n\n\n")) + 6
    assert twin.fed - before <= len(qwen().text(text)) + 20 * 4 + template
    read = twin.fed
    model.predict([Passage(RESPONSE, text[:end], QUESTION)])
    assert twin.fed == read


def test_the_answer_goes_on_from_the_keys_of_its_prompt() -> None:
    model, twin = guard()
    question = TEXT * 10
    model.predict([Passage(PROMPT, question)])
    before = twin.fed
    model.predict([Passage(RESPONSE, "好", question)])
    assert twin.fed - before < 12


def test_after_eviction_the_answer_is_read_again_and_scores_the_same() -> None:
    passages = [Passage(RESPONSE, TEXT[: 10 * n], QUESTION) for n in range(1, 5)]
    plenty, _ = guard()
    none, _ = guard(PrefillLimits(cache_bytes=0))
    for passage in passages:
        (one,), (other,) = plenty.predict([passage]), none.predict([passage])
        assert one.scores == pytest.approx(other.scores, abs=1e-5)
    assert len(none.caches) == 0
    assert plenty.counts()["spared"] > none.counts()["spared"] == 0


def test_a_ragged_batch_scores_every_row_as_if_it_were_alone() -> None:
    model, twin = guard(PrefillLimits(rows=8))
    passages = [Passage(RESPONSE, TEXT[:n], QUESTION[: n % 5]) for n in (1, 3, 7, 20, 30, 41)]
    passages += [Passage(PROMPT, TEXT[n:]) for n in (2, 9)]
    for passage, verdict in zip(passages, model.predict(passages), strict=True):
        assert verdict.scores == pytest.approx(whole(passage, twin), abs=1e-5)


def test_a_flag_takes_two_risky_tokens_in_a_row() -> None:
    head = heads()[RESPONSE]
    safe, unsafe, other = "Safe", "Unsafe", "Controversial"
    assert max(scores(head, logits(safe, unsafe, safe, unsafe, safe), PLAIN).values()) < 0.01
    assert max(scores(head, logits(safe, unsafe, unsafe, safe), PLAIN).values()) > 0.99
    assert max(scores(head, logits(safe, other, other), PLAIN).values()) > 0.99
    assert max(scores(head, logits(unsafe), PLAIN).values()) > 0.99, "an answer of one token is judged by it"
    assert max(scores(head, logits(), PLAIN).values()) == 0.0


def published(risks: list[int]) -> str:
    """QwenLM/Qwen3Guard's `consecutive_unsafe`: two in a row Unsafe, then Controversial."""
    for risk in (1, 2):
        if any(one == other == risk for one, other in itertools.pairwise(risks)):
            return ("", "Unsafe", "Controversial")[risk]
    return "Safe"


@settings(max_examples=200)
@given(st.lists(st.tuples(*[st.floats(-5, 5, width=32)] * 3), min_size=2, max_size=12))
def test_what_the_published_script_flags_scores_at_least_a_half(risks: list[tuple[float, ...]]) -> None:
    found = np.zeros((len(risks), 23), np.float32)
    found[:, :3] = risks
    if published([int(np.argmax(row)) for row in found[:, :3]]) != "Safe":
        assert max(scores(heads()[RESPONSE], found, PLAIN).values()) >= 0.5


def test_the_risk_goes_to_the_kind_that_the_flagged_token_is_of() -> None:
    head = heads()[RESPONSE]
    found = logits("Unsafe", "Unsafe", "Safe", "Unsafe", "Unsafe")
    found[1, head.first + 3 + 4] = 9.0
    found[4, head.first + 3 + 2] = 9.0
    said = scores(head, found, PLAIN)
    assert said[Category.PRIVACY_AND_PROPERTY] > 0.99
    assert said[Category.PHYSICAL_AND_MENTAL_HEALTH] > 0.99
    assert said[Category.HATE_SPEECH_AND_ABUSE] < 0.01
    assert said[Category.PROMPT_ATTACK] == 0.0


def test_calibration_moves_the_probability_and_never_the_order() -> None:
    head = heads()[RESPONSE]
    found = logits("Unsafe", "Unsafe")
    cold = max(scores(head, found, Calibration(8.0, 0.0)).values())
    moved = max(scores(head, found, Calibration(1.0, 7.0)).values())
    margin = float(margins(head, found).min())
    assert cold == pytest.approx(1 / (1 + np.exp(-margin / 8)))
    assert moved == pytest.approx(1 / (1 + np.exp(-(margin - 7))))


@pytest.mark.parametrize("word", [*SPECIAL, *NOT_CALLED_SPECIAL])
def test_a_control_word_in_a_text_is_judged_as_text(word: str) -> None:
    found = heads()
    for direction, text in ((PROMPT, f"好{word}吗"), (RESPONSE, f"好{word}的")):
        plain = qwen().tokens(found[direction].segments, words(Passage(direction, "好", "问")))
        tokens = qwen().tokens(found[direction].segments, words(Passage(direction, text, "问")))
        controls = set(qwen().controls.values())
        assert [t for t in tokens if t in controls] == [t for t in plain if t in controls]


def test_an_answer_longer_than_the_context_is_read_in_windows_and_what_is_left_is_said() -> None:
    model, twin = guard(PrefillLimits(tokens=300, overlap=20, windows=3))
    (verdict,) = model.predict([Passage(RESPONSE, TEXT * 30, QUESTION, ("choices", 0))])
    assert verdict.coverage.windows == 3
    (unread,) = verdict.coverage.unread
    assert (unread.reason, unread.path) == ("too_long", ("choices", 0))
    assert 300 < unread.characters < len(TEXT) * 30
    assert all(tokens <= 300 for _, tokens in twin.runs)


class Broken(Twin):
    """Says something that is no number about one token in the middle."""

    def run(self, inputs):  # type: ignore[no-untyped-def]
        found = dict(super().run(inputs))
        found["token_logits"][:, 1, 0] = np.nan
        return found


def test_one_logit_that_is_no_number_is_a_failure_and_never_a_verdict() -> None:
    found = heads()
    twin = Broken([0], VOCABULARY_SIZE, outputs=23)
    model = TokenwiseModel(TokenContract("g", found, CALIBRATION), qwen(), Decoder(twin, SHAPE, outputs=23))
    with pytest.raises(GuardFailed, match="finite"):
        model.predict([Passage(RESPONSE, TEXT, QUESTION)])


def test_a_graph_without_a_verdict_for_every_token_is_a_failure() -> None:
    model = TokenwiseModel(
        TokenContract("g", heads(), CALIBRATION), qwen(), Decoder(Twin([0], VOCABULARY_SIZE), SHAPE, outputs=23)
    )
    with pytest.raises(GuardFailed, match="not those of a decoder guard"):
        model.predict([Passage(PROMPT, TEXT)])
    few = Decoder(Twin([0], VOCABULARY_SIZE, outputs=11), SHAPE, outputs=23)
    with pytest.raises(GuardFailed, match="not 23 for every token"):
        TokenwiseModel(TokenContract("g", heads(), CALIBRATION), qwen(), few).predict([Passage(PROMPT, TEXT)])


def test_heads_survive_the_manifest() -> None:
    assert heads_from_json(heads_to_json(heads())) == heads()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"risky": []}, "not some of"),
        ({"risky": ["Safe", "Unsafe", "Controversial"]}, "not some of"),
        ({"first": 1}, "begin at"),
        ({"run": 0}, "run of 1"),
        ({"kinds": [["no_such_category"]]}, "cannot be read"),
        ({"kinds": []}, "needs outputs"),
        ({"segments": [{"text": "a"}]}, "no words to judge"),
        ({"segments": [{"slot": "answer", "left": "", "right": ""}, {"text": "a"}]}, "goes on after"),
    ],
)
def test_heads_that_make_no_sense_are_refused(change: dict[str, object], message: str) -> None:
    stored = heads_to_json(heads())
    stored["response"] |= change
    with pytest.raises(ArtefactRefused, match=message):
        heads_from_json(stored)


def test_a_guard_without_a_head_for_a_direction_is_refused() -> None:
    found = {RESPONSE: heads()[RESPONSE]}
    with pytest.raises(ArtefactRefused, match="no head for a prompt"):
        TokenwiseModel(TokenContract("g", found, CALIBRATION), qwen(), Decoder(Twin([0], 10), SHAPE, outputs=11))


def test_a_template_that_closes_no_turn_is_refused() -> None:
    with pytest.raises(ArtefactRefused, match="closes the user's turn"):
        heads("{{ messages[0].content }}\n{%- if messages|length > 1 %}{{ messages[1].content }}{%- endif %}")


def test_a_head_is_a_value() -> None:
    head = heads()[PROMPT]
    assert head == TokenHead(head.segments, head.first, head.risks, head.risky, head.kinds, head.run)


@pytest.mark.parametrize("direction", list(Direction))
def test_a_logit_that_is_no_number_blocks_and_never_allows(direction: Direction) -> None:
    twin = Broken([0], VOCABULARY_SIZE, outputs=23)
    model = TokenwiseModel(TokenContract("g", heads(), CALIBRATION), qwen(), Decoder(twin, SHAPE, outputs=23))
    guard = PassageGuard(model, Batcher(model, name="g"), VerdictCache(0, b"k"))
    conversation = Conversation((Turn(Role.USER, (Part(("messages", 0, "content"), TEXT),)),))
    if direction is RESPONSE:
        conversation = conversation.reply(Part(("choices", 0), TEXT))

    async def judged() -> Judgement:
        async with guard.running():
            return await Judge([guard]).judge(blocking(), conversation)

    found = anyio.run(judged)
    assert found.decision.action is Action.BLOCK
    assert found.decision.reason is Reason.GUARD_FAILURE
    assert not found.verdicts
