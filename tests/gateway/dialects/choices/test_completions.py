"""The older completions: token ids, several prompts, and how they end when refused."""

from collections.abc import Sequence

import pytest
from openai.types import Completion

from gateway.dialects.choices.completions import Completions
from gateway.dialects.dialect import Event
from gateway.errors import BadRequest
from tests.gateway.dialects.choices.full_completions import ANSWER, EVENTS, REQUEST, chunk
from tests.gateway.dialects.refusals import BLOCKED, OUTAGE, REWRITTEN

BODY = {"model": "demo", "prompt": "once"}


def decode(ids: Sequence[int]) -> str:
    return " ".join(["zero", "one", "two"][number] for number in ids)


def test_token_ids_are_read_where_the_models_tokenizer_is_known() -> None:
    dialect = Completions({"demo": decode})
    for prompt in ([1, 2], [[1, 2], "three"]):
        texts = [part.text for part in dialect.read_request({"model": "demo", "prompt": prompt}).judged]
        assert texts[0] == "one two"
    with pytest.raises(BadRequest, match="token id"):
        dialect.read_request({"model": "demo", "prompt": [3]})
    with pytest.raises(BadRequest, match="Send the text as a string"):
        dialect.read_request({"model": "other", "prompt": [1]})


def test_asking_again_puts_the_instruction_before_the_first_prompt() -> None:
    dialect = Completions({"demo": decode})
    for prompt, text in (("once", "once"), (["once", "twice"], "once"), ([1, 2], "one two"), ([[1], [2]], "one")):
        again = dialect.instructed({"model": "demo", "prompt": prompt, "n": 3}, "be kind")
        assert (again["prompt"], again["n"]) == (f"be kind\n\n{text}", 1)


def test_a_blocked_choice_says_the_sentence_and_why_it_ended() -> None:
    refused = Completion.model_validate(Completions().refused(BODY, ANSWER, 0, BLOCKED))
    assert [choice.text for choice in refused.choices] == ["抱歉。", "有个人"]
    assert [choice.finish_reason for choice in refused.choices] == ["content_filter", "length"]
    assert refused.choices[0].logprobs is None
    assert Completion.model_validate(Completions().completion(BODY, REWRITTEN)).choices[0].text == "换个话题。"


def test_two_prompts_twice_over_are_four_choices() -> None:
    stream = Completions().stream({**REQUEST, "n": 2})
    for index in range(4):
        assert not stream.finished
        stream.read(chunk(index, "", "stop"))
    assert stream.finished


def test_a_stream_is_stopped_replaced_or_failed_as_its_clients_expect() -> None:
    body = {**BODY, "stream": True}

    def after(*sent: Event, how: str) -> list[tuple[str, str | None]]:
        stream = Completions().stream(body)
        for event in sent:
            stream.read(event)
            stream.sent(event)
        events = {"stop": stream.stop, "replace": stream.replace}[how](BLOCKED)
        assert events[-1].data is None
        choices = [choice for event in events if event.data for choice in event.data["choices"]]
        return [(choice["text"], choice["finish_reason"]) for choice in choices]

    assert after(how="stop") == [("抱歉。", None), ("", "content_filter")]
    assert after(chunk(0, "there"), how="stop") == [("", "content_filter")]
    assert after(chunk(0, "there"), how="replace") == [("抱歉。", None), ("", "stop")]
    assert after(*EVENTS[:1], chunk(0, "", "stop"), how="stop") == []
    failed = Completions().stream(body).fail(OUTAGE)
    assert failed[0].data and failed[0].data["error"]["code"] == "guard_unavailable"
