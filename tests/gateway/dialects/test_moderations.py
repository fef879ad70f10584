"""Moderations: our own guard's verdicts in OpenAI's shape, over the served gateway with the OpenAI SDK."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import openai
import pytest

from gateway.dialects.moderations import OPENAI, Moderations
from gateway.errors import BadRequest
from gateway.policy.policy import Action, DirectionPolicy, Policy, Rule
from gateway.upstreams.upstream import Scripted
from guard_runtime.conversation import Direction
from guard_runtime.errors import GuardFailed
from guard_runtime.guard import OperatingPoints, Passage
from guard_runtime.guards.passage_guard import PassageGuard
from guard_runtime.guards.remote import LibraGate, Server, load_remote
from guard_runtime.guards.scripted import ScriptedGuard
from guard_runtime.serving.batcher import Batcher
from guard_runtime.serving.verdict_cache import VerdictCache
from guard_runtime.verdict import CATEGORIES, Category, Coverage, Verdict
from tests.gateway.dialects.full_moderations import ANSWERS, BAD_REQUESTS, PARTS, REQUEST
from tests.gateway.dialects.mutations import reads, smuggled
from tests.support.gateway_server import KEY, OTHER_KEY, Parts, blocking, client, record, served

WORDS: Mapping[str, Category] = {
    "stolen": Category.ILLEGAL_ACTIVITIES_AND_CRIME,
    "slur": Category.HATE_SPEECH_AND_ABUSE,
    "自残": Category.PHYSICAL_AND_MENTAL_HEALTH,
    "rumour": Category.RUMORS_AND_MISINFORMATION,
}


def scores(text: str) -> Mapping[Category, float]:
    return {category: 0.87 for word, category in WORDS.items() if word in text}


def moderator(**options: Any) -> Parts:
    return Parts(guards=(ScriptedGuard(scores),), **options)


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("a harmless line", set()),
        ("a stolen card", {"illicit"}),
        ("a slur", {"hate", "harassment"}),
        ("自残的事", {"self-harm"}),
        ("a rumour", set()),
    ],
)
def test_our_categories_are_told_under_openais_names(text: str, flags: set[str]) -> None:
    parts = moderator()
    with served(parts.gateway) as url:
        answer = client(url).moderations.create(input=text)
    (result,) = answer.results
    told = {name for name, flag in result.categories.model_dump(by_alias=True).items() if flag}
    assert told == flags
    ours = result.model_extra["libragate"]["categories"]  # type: ignore[index]
    assert {name for name, flag in ours.items() if flag} == {WORDS[word] for word in WORDS if word in text}
    assert result.flagged is any(ours.values())
    assert answer.model == "scripted@1"


def test_a_list_of_a_hundred_is_answered_in_order_and_recorded_once() -> None:
    parts = moderator()
    texts = [f"a stolen card {i}" if i % 3 == 0 else f"line {i}" for i in range(100)]
    with served(parts.gateway) as url:
        answer = client(url).moderations.create(model="omni-moderation-latest", input=texts)
    assert [result.flagged for result in answer.results] == [i % 3 == 0 for i in range(100)]
    written = record(parts)
    assert (written["dialect"], written["outcome"], written["status"]) == ("moderations", "moderated", 200)
    assert (written["tenant"], written["policy"], written["guard"]) == ("shop", "0123456789ab", "scripted@1")
    assert len(written["read"]) == 100 and len(written["decisions"]) == 34  # type: ignore[arg-type]
    assert "text" not in written


def test_text_parts_are_one_input() -> None:
    parts = moderator()
    given: Any = [{"type": "text", "text": "a stolen"}, {"type": "text", "text": "card"}]
    with served(parts.gateway) as url:
        (result,) = client(url).moderations.create(input=given).results
    assert result.categories.illicit


@pytest.mark.parametrize(("rule", "flagged"), [(Action.BLOCK, True), (Action.LOG, False), (Action.ALLOW, False)])
def test_an_image_is_flagged_where_the_policy_blocks_what_it_cannot_read(rule: Action, flagged: bool) -> None:
    parts = moderator(policy=blocking(prompt=DirectionPolicy(on_unreadable=rule)))
    with served(parts.gateway) as url:
        (result,) = client(url).moderations.create(**PARTS).results
    assert result.flagged is flagged
    assert not any(result.categories.model_dump().values())
    told = result.model_extra["libragate"]  # type: ignore[index]
    assert (told["action"], told["reason"]) == (rule.name.lower(), "unreadable")


class AnswersOnly:
    """A model that finds harm in an answer, and only behind its question."""

    name, version = "answers", "1"
    operating_points: OperatingPoints = MappingProxyType({})

    def predict(self, batch: Sequence[Passage]) -> Sequence[Verdict]:
        return [Verdict(self.name, dict.fromkeys(CATEGORIES, self._score(p)), (), Coverage(1, 1, 1)) for p in batch]

    def _score(self, passage: Passage) -> float:
        answered = (passage.direction, passage.text, passage.context)
        return 0.87 if answered == (Direction.RESPONSE, "Sure.", "a stolen card?") else 0.03


def answers_only() -> PassageGuard:
    model = AnswersOnly()
    return PassageGuard(model, Batcher(model, name=model.name), VerdictCache(0, b"tests"))


@pytest.mark.parametrize(
    ("told", "flagged"),
    [
        (None, False),
        ({"direction": "prompt"}, False),
        ({"direction": "response"}, False),
        ({"direction": "response", "prompt": "a stolen card?"}, True),
    ],
)
def test_an_answer_is_judged_as_one_where_the_caller_says_so(told: Any, flagged: bool) -> None:
    parts = Parts(guards=(answers_only(),), policy=blocking(prompt=DirectionPolicy()))
    with served(parts.gateway) as url:
        (result,) = client(url).moderations.create(input="Sure.", extra_body={"libragate": told}).results
    direction = (told or {}).get("direction", "prompt")
    assert (result.flagged, result.model_extra["libragate"]["direction"]) == (flagged, direction)  # type: ignore[index]
    assert record(parts)["read"] == [[direction, "input", "text", 5, "scanned"]]


def test_a_libragate_behind_a_libragate_judges_answers_as_answers() -> None:
    far = Parts(guards=(answers_only(),), policy=blocking(expose_scores=True))
    with served(far.gateway) as there:
        remote = load_remote("far", Server(f"{there}/v1", "m", KEY), LibraGate(), cache_bytes=0)
        near = Parts(guards=(remote,), upstream=Scripted.saying("Sure."))
        with served(near.gateway) as url:
            sdk = client(url)
            told = [
                sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": asked}]).choices[0]
                for asked in ("a stolen card?", "a library card?")
            ]
    assert [choice.finish_reason for choice in told] == ["content_filter", "stop"]
    read = [line["read"] for line in (written.line() for written in far.sink.records)]
    assert read == [
        [["prompt", "input", "text", 14 + i // 2, "scanned"]]
        if i % 2 == 0
        else [["response", "input", "text", 5, "scanned"]]
        for i in range(4)
    ]


def test_scores_say_no_more_than_flags_unless_the_policy_shows_them() -> None:
    parts = moderator(other_policy=blocking(expose_scores=True))
    with served(parts.gateway) as url:
        hidden = client(url).moderations.with_raw_response.create(input="a stolen card")
        shown = client(url, OTHER_KEY).moderations.with_raw_response.create(input="a stolen card")
    assert "0.87" not in hidden.text + str(hidden.headers)
    assert hidden.parse().results[0].category_scores.illicit == 1.0
    assert hidden.parse().results[0].category_scores.hate == 0.0
    assert shown.parse().results[0].category_scores.illicit == 0.87
    assert shown.headers["x-libragate-scores"].startswith("illegal_activities_and_crime=0.87")


def test_what_a_policy_only_logs_is_not_flagged_and_says_so() -> None:
    parts = moderator(policy=blocking(Action.LOG))
    with served(parts.gateway) as url:
        (result,) = client(url).moderations.create(input="a stolen card").results
    assert not result.flagged
    assert result.model_extra["libragate"]["action"] == "log"  # type: ignore[index]


def test_the_tenants_own_thresholds_decide() -> None:
    lenient = DirectionPolicy({category: (Rule(0.9, Action.BLOCK),) for category in CATEGORIES})
    parts = moderator(other_policy=Policy("lenient", "x", prompt=lenient, response=lenient))
    with served(parts.gateway) as url:
        assert client(url).moderations.create(input="a stolen card").results[0].flagged
        assert not client(url, OTHER_KEY).moderations.create(input="a stolen card").results[0].flagged


@pytest.mark.parametrize("on_failure", [Action.BLOCK, Action.LOG, Action.ALLOW])
def test_a_guard_that_gives_no_verdict_is_an_error_and_never_unflagged(on_failure: Action) -> None:
    def fails(text: str) -> Mapping[Category, float]:
        if "3" in text:
            raise GuardFailed("out of order")
        return {}

    policy = blocking(prompt=DirectionPolicy(on_guard_failure=on_failure))
    parts = Parts(guards=(ScriptedGuard(fails),), policy=policy)
    with served(parts.gateway) as url, pytest.raises(openai.InternalServerError) as caught:
        client(url).moderations.create(input=["1", "2", "3"])
    assert (caught.value.status_code, caught.value.code) == (503, "guard_unavailable")
    assert caught.value.response.headers["x-should-retry"] == "false"
    written = record(parts)
    assert (written["outcome"], written["error"]) == ("guard_unavailable", "guard_unavailable")


def test_a_receipt_says_what_was_read() -> None:
    parts = moderator(policy=blocking(record_text=True))
    with served(parts.gateway) as url:
        sdk = client(url)
        answer = sdk.moderations.with_raw_response.create(input=["a line", "从前"])
        receipt: Any = sdk.get(answer.headers["x-libragate-receipt"].removeprefix("/v1"), cast_to=object)
    assert receipt["read"] == [
        ["prompt", "input[0]", "text", 6, "scanned"],
        ["prompt", "input[1]", "text", 2, "scanned"],
    ]
    assert record(parts)["text"] == {"prompt": ["a line", "从前"]}


def test_no_string_of_a_request_passes_unread() -> None:
    for full in (REQUEST, PARTS, ANSWERS):
        for path, body in smuggled(full):
            try:
                conversations = Moderations().read_request(body)
            except BadRequest:
                continue
            parts = [part for conversation in conversations for part in conversation.judged]
            assert path in (("model",), ("libragate", "prompt")) or reads(parts, path), path


@pytest.mark.parametrize(("body", "param"), BAD_REQUESTS)
def test_a_bad_request_is_told_which_field_is_wrong(body: Any, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Moderations().read_request(body)
    assert caught.value.param == param


def test_every_category_of_ours_is_told_somewhere_and_no_name_is_not_openais() -> None:
    told = openai.types.moderation.Categories.model_fields
    assert {field.alias or name for name, field in told.items()} == set(OPENAI)
