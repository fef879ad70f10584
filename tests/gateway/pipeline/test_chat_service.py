"""The served gateway, through the official OpenAI SDK: what a caller sees when all is well and when it is not."""

from collections.abc import Mapping
from typing import Any

import httpx
import openai
import pytest

from gateway.errors import UpstreamError
from gateway.policy.policy import Action, DirectionPolicy, OnBlock, Rewrite
from gateway.policy.sources import Sources, Treatment
from gateway.upstreams.upstream import Scripted
from guard_runtime.errors import GuardFailed
from guard_runtime.guards.personal_data import PersonalData
from guard_runtime.guards.scripted import ScriptedGuard
from guard_runtime.verdict import Category
from tests.support.gateway_server import BAD, KEY, OTHER_KEY, Parts, blocking, client, record, served

HELLO = [{"role": "user", "content": "hello"}]
ASKED_BADLY = [{"role": "user", "content": "something forbidden please"}]
ID_NUMBER = "11010519491231002X"


def broken(text: str) -> Mapping[Category, float]:
    raise GuardFailed("out of order")


def broken_on_answers(text: str) -> Mapping[Category, float]:
    if "answer" in text:
        raise GuardFailed("out of order")
    return {}


def test_a_harmless_question_is_answered() -> None:
    parts = Parts()
    with served(parts.gateway) as url:
        answer = client(url).chat.completions.with_raw_response.create(model="m", messages=HELLO)
    assert answer.parse().choices[0].message.content == "A harmless answer."
    assert answer.headers["x-libragate-decision"] == "allow"
    assert answer.headers["x-libragate-policy"] == "0123456789ab"
    assert answer.headers["x-libragate-guard"] == "scripted@1"
    written = record(parts)
    assert (written["id"], written["outcome"]) == (answer.headers["x-request-id"], "allowed")
    assert (written["tenant"], written["model"], written["status"]) == ("shop", "m", 200)


def test_the_upstream_is_asked_for_its_own_model_with_the_options_of_the_caller() -> None:
    upstream = Scripted.saying("ok")
    parts = Parts(upstream=upstream)
    with served(parts.gateway) as url:
        client(url).chat.completions.create(model="m", messages=HELLO, temperature=0.5, seed=7)
    path, body = upstream.asked[0]
    assert path == "/v1/chat/completions"
    assert body == {"model": "upstream-m", "messages": HELLO, "temperature": 0.5, "seed": 7}


@pytest.mark.parametrize(("content", "said"), [("something forbidden", "Sorry"), ("这是禁忌的问题", "抱歉")])
def test_a_blocked_prompt_is_a_400_that_tells_nothing_but_the_category(content: str, said: str) -> None:
    upstream = Scripted.saying("never")
    parts = Parts(upstream=upstream)
    with served(parts.gateway) as url, pytest.raises(openai.BadRequestError) as caught:
        client(url).chat.completions.create(model="m", messages=[{"role": "user", "content": content}])
    assert caught.value.code == "content_filter"
    assert caught.value.response.headers["x-libragate-decision"] == "block"
    body = caught.value.response.text
    assert said in body
    assert content not in body
    assert "0.99" not in body and "0.5" not in body and "test.yaml" not in body
    assert upstream.asked == []
    written = record(parts)
    assert written["outcome"] == "blocked"
    assert written["decisions"][0] | {"guard": None} == {  # type: ignore[index]
        "direction": "prompt",
        "action": "block",
        "reason": "rule",
        "category": "illegal_activities_and_crime",
        "score": 0.99,
        "threshold": 0.5,
        "margin": 0.49,
        "rewrite": None,
        "guard": None,
        "rule": "test.yaml:1",
    }


@pytest.mark.parametrize("stream", [False, True])
def test_a_tenant_may_choose_a_refusal_over_an_error(stream: bool) -> None:
    parts = Parts(policy=blocking(on_block=OnBlock.COMPLETION))
    with served(parts.gateway) as url:
        answer = client(url).chat.completions.create(model="m", messages=ASKED_BADLY, stream=stream)
        if stream:
            said = [chunk.choices[0] for chunk in answer]
            assert "".join(choice.delta.refusal or "" for choice in said).startswith("Sorry")
            assert said[-1].finish_reason == "stop"
        else:
            assert answer.choices[0].message.refusal.startswith("Sorry")
            assert answer.choices[0].message.content is None
    assert record(parts)["outcome"] == "blocked"


def test_a_policy_that_only_logs_lets_the_answer_through_and_records_it() -> None:
    parts = Parts(policy=blocking(Action.LOG))
    with served(parts.gateway) as url:
        answer = client(url).chat.completions.create(model="m", messages=ASKED_BADLY)
    assert answer.choices[0].message.content == "A harmless answer."
    assert record(parts)["decisions"][0]["action"] == "log"  # type: ignore[index]


def test_of_several_choices_only_the_harmful_one_is_withheld() -> None:
    def answers(body: Any) -> dict[str, Any]:
        texts = ("fine", "a forbidden thing", "also fine")
        choices = [
            {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for i, text in enumerate(texts)
        ]
        return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices}

    parts = Parts(upstream=Scripted("s", answers, lambda body: []))
    with served(parts.gateway) as url:
        answer = client(url).chat.completions.create(model="m", messages=HELLO, n=3)
    assert [choice.message.content for choice in answer.choices] == ["fine", None, "also fine"]
    assert [choice.finish_reason for choice in answer.choices] == ["stop", "content_filter", "stop"]
    assert record(parts)["outcome"] == "blocked"


def test_a_stream_is_relayed_and_recorded() -> None:
    parts = Parts(upstream=Scripted.saying("One sentence. And one more. " * 20))
    with served(parts.gateway) as url:
        stream = client(url).chat.completions.create(model="m", messages=HELLO, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == "One sentence. And one more. " * 20
    written = record(parts)
    assert written["outcome"] == "allowed"
    assert written["characters"]["released"] == written["characters"]["cleared"] == len(text)  # type: ignore[index]
    assert written["characters"]["unguarded"] == 0  # type: ignore[index]
    assert ["response", "[0].content", "text", len(text), "scanned"] in written["read"]  # type: ignore[operator]


def test_a_stream_that_turns_harmful_is_cut_before_the_harmful_words() -> None:
    text = "A good beginning. " * 10 + "Then something forbidden comes. " + "And an end. " * 10
    parts = Parts(upstream=Scripted.saying(text, size=1))
    with served(parts.gateway) as url:
        options = {"include_usage": True}
        stream = client(url).chat.completions.create(model="m", messages=HELLO, stream=True, stream_options=options)
        chunks = list(stream)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.startswith(said)
    assert "forbidden" not in said
    finals = [chunk.choices[0] for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    assert [(final.index, final.finish_reason) for final in finals] == [(0, "content_filter")]
    assert chunks[-1].choices == [] and chunks[-1].usage is not None
    assert parts.upstream.open == 0  # type: ignore[attr-defined]
    assert record(parts)["outcome"] == "blocked"


@pytest.mark.parametrize("stream", [False, True])
def test_a_guard_that_fails_on_the_prompt_is_a_503_that_is_not_retried(stream: bool) -> None:
    guard = ScriptedGuard(broken)
    parts = Parts(guards=(guard,))
    with served(parts.gateway) as url, pytest.raises(openai.InternalServerError) as caught:
        client(url).chat.completions.create(model="m", messages=HELLO, stream=stream)
    assert (caught.value.status_code, caught.value.code) == (503, "guard_unavailable")
    assert len(parts.sink.records) == 1
    assert record(parts)["outcome"] == "guard_unavailable"


def test_a_guard_that_fails_on_the_answer_is_a_503() -> None:
    parts = Parts(guards=(ScriptedGuard(broken_on_answers),))
    with served(parts.gateway) as url, pytest.raises(openai.InternalServerError) as caught:
        client(url).chat.completions.create(model="m", messages=HELLO)
    assert caught.value.code == "guard_unavailable"


def test_a_guard_that_fails_in_the_middle_of_a_stream_ends_it_by_its_own_code() -> None:
    parts = Parts(guards=(ScriptedGuard(broken_on_answers),), upstream=Scripted.saying("Well. " * 40 + "answer " * 40))
    with served(parts.gateway) as url:
        stream = client(url).chat.completions.create(model="m", messages=HELLO, stream=True)
        chunks = []
        with pytest.raises(openai.APIError) as caught:
            for chunk in stream:
                chunks.append(chunk)
    assert caught.value.code == "guard_unavailable"
    assert chunks and [choice.finish_reason for chunk in chunks for choice in chunk.choices] == [None] * len(chunks)
    assert "answer" not in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert record(parts)["outcome"] == "guard_unavailable"


@pytest.mark.parametrize("stream", [False, True])
def test_an_id_number_is_masked_on_its_way_out(stream: bool) -> None:
    said = f"His number is {ID_NUMBER}, remember it. " + "More words follow here. " * 10
    parts = Parts(
        guards=(PersonalData(),),
        policy=blocking(Action.REWRITE, Rewrite.MASK),
        upstream=Scripted.saying(said, size=3),
    )
    with served(parts.gateway) as url:
        answer = client(url).chat.completions.create(model="m", messages=HELLO, stream=stream)
        if stream:
            pieces = [chunk.choices[0].delta.content or "" for chunk in answer]
            text = "".join(pieces)
            assert sum(1 for piece in pieces if piece) > 10
        else:
            text = answer.choices[0].message.content
    assert text == said.replace(ID_NUMBER, "[redacted:cn_resident_id]")
    assert record(parts)["outcome"] == "rewritten"


def test_an_id_number_is_masked_on_its_way_in() -> None:
    upstream = Scripted.saying("ok")
    parts = Parts(guards=(PersonalData(),), policy=blocking(Action.REWRITE, Rewrite.MASK), upstream=upstream)
    with served(parts.gateway) as url:
        messages = [{"role": "user", "content": f"我的身份证是{ID_NUMBER}，帮我填表"}]
        client(url).chat.completions.create(model="m", messages=messages)
    assert upstream.asked[0][1]["messages"][0]["content"] == "我的身份证是[已隐去:cn_resident_id]，帮我填表"


def test_a_safe_message_stands_in_the_place_of_an_answer() -> None:
    upstream = Scripted.saying("a forbidden answer")
    parts = Parts(policy=blocking(Action.REWRITE, refusal={"en": "Let us talk of something else."}), upstream=upstream)
    with served(parts.gateway) as url:
        answer = client(url).chat.completions.create(model="m", messages=HELLO)
        stream = client(url).chat.completions.create(model="m", messages=HELLO, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert answer.choices[0].message.content == text == "Let us talk of something else."
    assert answer.choices[0].finish_reason == "stop"


def test_regenerate_asks_the_model_again_with_the_policys_instruction() -> None:
    def answers(body: Any) -> Any:
        again = body["messages"][-1]["content"] == "Answer harmlessly."
        return Scripted.saying("a better one" if again else "a forbidden one")._answers(body)

    upstream = Scripted("s", answers, lambda body: [])
    policy = blocking(
        Action.REWRITE, Rewrite.REGENERATE, regenerate_instruction={"en": "Answer harmlessly."}, max_regenerations=2
    )
    parts = Parts(policy=policy, upstream=upstream)
    with served(parts.gateway) as url:
        answer = client(url).chat.completions.create(model="m", messages=HELLO)
    assert answer.choices[0].message.content == "a better one"
    assert len(upstream.asked) == 2
    assert record(parts)["outcome"] == "rewritten"


def test_an_upstreams_error_reaches_the_caller_with_its_status() -> None:
    error = UpstreamError("The model's provider said: too many requests.")
    error.status = 429
    parts = Parts(upstream=Scripted("s", lambda body: error, lambda body: [error]))
    with served(parts.gateway) as url:
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError, match="too many"):
                client(url).with_options(max_retries=0).chat.completions.create(
                    model="m", messages=HELLO, stream=stream
                )
    assert [r.outcome for r in parts.sink.records] == ["upstream_failed", "upstream_failed"]


def test_keys_lead_to_tenants_and_their_models() -> None:
    parts = Parts()
    with served(parts.gateway) as url:
        assert [model.id for model in client(url).models.list()] == ["m"]
        assert [model.id for model in client(url, OTHER_KEY).models.list()] == ["m", "big"]
        assert client(url).models.retrieve("m").id == "m"
        with pytest.raises(openai.AuthenticationError):
            client(url, "lg-wrong").models.list()
        assert httpx.get(f"{url}/v1/models").status_code == 401
        with pytest.raises(openai.PermissionDeniedError):
            client(url).chat.completions.create(model="big", messages=HELLO)
        with pytest.raises(openai.NotFoundError, match="no model"):
            client(url).chat.completions.create(model="gpt-9", messages=HELLO)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/audio/speech",
        "/v1/files",
        "/v1/batches",
        "/v1/engines/m/completions",
        "/v1/chat/completions/",
        "/",
        "/v2/x",
    ],
)
def test_nothing_else_is_relayed(path: str) -> None:
    parts = Parts()
    with served(parts.gateway) as url:
        answer = httpx.post(f"{url}{path}", json={"model": "m"}, headers={"authorization": "Bearer x"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_health_readiness_and_metrics() -> None:
    parts = Parts()
    with served(parts.gateway) as url:
        client(url).chat.completions.create(model="m", messages=HELLO)
        with pytest.raises(openai.BadRequestError):
            client(url).chat.completions.create(model="m", messages=ASKED_BADLY)
        assert httpx.get(f"{url}/healthz").text == "ok\n"
        assert httpx.get(f"{url}/readyz").json() == {"ready": True, "guard": "scripted@1", "down": []}
        page = httpx.get(f"{url}/metrics").text
        parts.guards[0].ready = False  # type: ignore[misc]
        assert httpx.get(f"{url}/readyz").status_code == 503
    assert 'libragate_requests_total{dialect="chat",outcome="allowed",tenant="shop"} 1.0' in page
    assert 'libragate_requests_total{dialect="chat",outcome="blocked",tenant="shop"} 1.0' in page
    assert 'action="block",category="illegal_activities_and_crime",direction="prompt"' in page
    assert "libragate_guard_seconds_bucket" in page and "libragate_upstream_seconds_bucket" in page


def test_no_record_holds_a_word_of_content_unless_the_policy_says_so() -> None:
    answer = Scripted.saying("canary-answer forbidden")
    silent, telling = Parts(upstream=answer), Parts(upstream=answer, policy=blocking(record_text=True))
    for parts in (silent, telling):
        with served(parts.gateway) as url:
            for stream in (False, True):
                reply = client(url).chat.completions.create(
                    model="m", messages=[{"role": "user", "content": "canary-prompt"}], stream=stream
                )
                list(reply) if stream else None
        record(parts, 2)
    assert "canary" not in str([r.line() for r in silent.sink.records])
    for written in telling.sink.records:
        assert "canary-prompt" in str(written.line()["text"]) and "canary-answer" in str(written.line()["text"])


def test_one_script_sees_every_text_of_a_request() -> None:
    guard = ScriptedGuard(BAD)
    parts = Parts(guards=(guard,))
    tool = {"type": "function", "function": {"name": "look_up", "description": "d-text", "parameters": {}}}
    call = {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": '{"q": "leaf-\\u0041"}'}}
    messages: Any = [
        {"role": "system", "content": "s-text"},
        {"role": "user", "content": [{"type": "text", "text": "u-text"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "t-text"},
    ]
    with served(parts.gateway) as url:
        client(url).chat.completions.create(model="m", messages=messages, tools=[tool])  # type: ignore[list-item]
    seen = "\n".join(guard.seen)
    assert all(text in seen for text in ("s-text", "u-text", "t-text", "leaf-A", "look_up", "d-text"))


def test_what_a_policy_trusts_is_not_read_and_the_receipt_says_so() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "forbidden tool text"}}
    asked: Any = [
        {"role": "system", "content": "You moderate forbidden things."},
        {"role": "user", "content": "hello"},
    ]
    trusting = blocking(sources=Sources(system=Treatment.TRUST, tools=Treatment.TRUST))
    parts = Parts(policy=trusting, other_policy=blocking(sources=Sources(tools=Treatment.TRUST)))
    with served(parts.gateway) as url:
        answer = client(url).chat.completions.with_raw_response.create(model="m", messages=asked, tools=[tool])  # type: ignore[list-item]
        headers = {"authorization": f"Bearer {KEY}"}
        receipt = httpx.get(f"{url}{answer.headers['x-libragate-receipt']}", headers=headers).json()
        with pytest.raises(openai.BadRequestError):
            client(url, OTHER_KEY).chat.completions.create(model="m", messages=asked)
        late = [asked[1], asked[0], asked[1]]
        with pytest.raises(openai.BadRequestError):
            client(url).chat.completions.create(model="m", messages=late)
        result = [*asked, {"role": "tool", "tool_call_id": "1", "content": "forbidden"}]
        with pytest.raises(openai.BadRequestError):
            client(url).chat.completions.create(model="m", messages=result)
    assert ["prompt", "messages[0].content", "text", 30, "trusted"] in receipt["read"]
    assert ["prompt", "messages[1].content", "text", 5, "scanned"] in receipt["read"]
    assert ["prompt", "tools[0]", "tool_definition"] in [row[:3] for row in receipt["read"]]


def test_a_receipt_is_for_the_tenant_that_asked_and_holds_no_score() -> None:
    parts = Parts()
    with served(parts.gateway) as url:
        with pytest.raises(openai.BadRequestError) as caught:
            client(url).chat.completions.create(model="m", messages=ASKED_BADLY)
        place = url + caught.value.response.headers["x-libragate-receipt"]
        mine = httpx.get(place, headers={"authorization": f"Bearer {KEY}"})
        others = httpx.get(place, headers={"authorization": f"Bearer {OTHER_KEY}"})
        unknown = httpx.get(f"{url}/v1/receipts/none", headers={"authorization": f"Bearer {KEY}"})
    assert mine.json()["category"] == "illegal_activities_and_crime"
    assert mine.json()["outcome"] == "blocked"
    assert "0.99" not in mine.text and "forbidden" not in mine.text
    assert (others.status_code, others.json()) == (unknown.status_code, unknown.json())
    assert others.status_code == 404


@pytest.mark.parametrize("exposed", [False, True])
def test_scores_are_told_only_where_the_policy_says_so(exposed: bool) -> None:
    parts = Parts(policy=blocking(expose_scores=exposed))
    with served(parts.gateway) as url, pytest.raises(openai.BadRequestError) as caught:
        client(url).chat.completions.create(model="m", messages=ASKED_BADLY)
    said = caught.value.response.headers.get("x-libragate-scores")
    assert said == ("illegal_activities_and_crime=0.990" if exposed else None)


def test_a_part_no_guard_can_read_is_stopped_or_passed_as_the_policy_says() -> None:
    image: Any = [{"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}]
    asked: Any = [{"role": "user", "content": image}]
    rules = blocking().prompt
    open_policy = blocking(prompt=DirectionPolicy(rules.rules, on_unreadable=Action.LOG))
    parts = Parts(other_policy=open_policy)
    with served(parts.gateway) as url:
        with pytest.raises(openai.BadRequestError) as caught:
            client(url).chat.completions.create(model="m", messages=asked)
        answer = client(url, OTHER_KEY).chat.completions.create(model="m", messages=asked)
    assert caught.value.code == "content_filter"
    assert answer.choices[0].message.content == "A harmless answer."
    written = record(parts, 2)
    assert written["unread"] == [
        {"direction": "prompt", "what": "media", "rule": "on_unreadable.prompt", "action": "log"}
    ]


def test_azures_client_finds_its_model_in_the_path_and_its_key_in_its_own_header() -> None:
    parts = Parts()
    with served(parts.gateway) as url:
        azure = openai.AzureOpenAI(azure_endpoint=url, api_key=KEY, api_version="2024-10-21")
        answer = azure.chat.completions.create(model="m", messages=HELLO)
        with pytest.raises(openai.BadRequestError) as caught:
            azure.chat.completions.create(model="m", messages=ASKED_BADLY)
        with pytest.raises(openai.PermissionDeniedError):
            azure.chat.completions.create(model="big", messages=HELLO)
    assert answer.choices[0].message.content == "A harmless answer."
    assert caught.value.code == "content_filter"


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": "lg-wrong"},
        {"x-api-key": "with blank"},
        {"authorization": f"Bearer {KEY}", "x-api-key": OTHER_KEY},
        {"api-key": KEY, "x-api-key": OTHER_KEY},
    ],
)
def test_one_request_presents_one_key(headers: dict[str, str]) -> None:
    parts = Parts()
    with served(parts.gateway) as url:
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 401
        assert httpx.get(f"{url}/v1/models", headers={"x-api-key": KEY}).status_code == 200
