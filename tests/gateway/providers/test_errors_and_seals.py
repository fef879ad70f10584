"""What is no answer, what only the provider can read, and what a mask hid."""

from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway.errors import UpstreamError
from gateway.policy.policy import Action, DirectionPolicy, Rewrite
from gateway.upstreams.errors import provider_error
from gateway.upstreams.upstream import Scripted
from guard_runtime.guards.personal_data import PersonalData
from tests.gateway.providers.rows import ROWS, SEAL, Row
from tests.gateway.providers.test_providers import ASKED, asked, plain
from tests.support.gateway_server import KEY, Parts, blocking, served


def post(url: str, body: dict[str, Any], key: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=30)


@pytest.mark.parametrize(
    "answer", [{"error": {"message": "quota", "code": 429}}, {"error": "overloaded"}, {"detail": "no such model"}]
)
def test_a_200_that_holds_an_error_is_an_error_without_its_unread_words(answer: dict[str, Any]) -> None:
    got, line = asked(answer, [], stream=False)
    assert (line["outcome"], line["status"]) == ("upstream_failed", 502)
    assert not any(word in str(got) for word in ("quota", "overloaded", "no such model"))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("words", "passes"), [("The context is too long.", True), ("forbidden words", False)])
def test_a_providers_own_words_are_judged_before_they_are_passed_on(stream: bool, words: str, passes: bool) -> None:
    def failing(_: object) -> UpstreamError:
        return provider_error("p", 400, {"error": {"message": words}})

    parts = Parts(upstream=Scripted("s", failing, lambda body: [failing(body)]))
    with served(parts.gateway) as url:
        reply = post(url, {"model": "m", "stream": stream, "messages": [ASKED]}, KEY)
    assert reply.status_code == 400
    assert (words in reply.text) is passes


def test_a_stream_with_nothing_in_it_is_an_error() -> None:
    for events in ([], [{"choices": [], "usage": {"total_tokens": 1}}]):
        _, line = asked({}, events, stream=True)
        assert (line["outcome"], line["status"]) == ("upstream_failed", 502)


def test_an_answer_that_was_paid_for_is_not_asked_for_again() -> None:
    parts = Parts(upstream=Scripted("s", lambda body: {"choices": "none"}, lambda body: []))
    with served(parts.gateway) as url:
        reply = post(url, {"model": "m", "messages": [ASKED]}, KEY)
    assert (reply.status_code, reply.headers["x-should-retry"]) == (502, "false")


@pytest.mark.parametrize(("action", "content"), [(Action.LOG, "It is Paris."), (Action.BLOCK, None)])
def test_a_seal_is_what_its_own_rule_says(action: Action, content: str | None) -> None:
    policy = blocking(response=DirectionPolicy(on_sealed=action))
    body = plain(ROWS["Gemini"])
    parts = Parts(upstream=Scripted("s", lambda _: body, lambda _: []), policy=policy)
    with served(parts.gateway) as url:
        message = post(url, {"model": "m", "messages": [ASKED]}, KEY).json()["choices"][0]["message"]
    assert message["content"] == content
    assert (SEAL in str(message)) is (action is Action.LOG)


def test_a_word_in_a_field_of_seals_is_read() -> None:
    row = Row(message={"extra_content": {"google": {"thought_signature": "zqxbad"}}})
    got, line = asked(plain(row), [], stream=False)
    assert line["outcome"] == "blocked" and "zqxbad" not in str(got)


def test_token_ids_do_not_repeat_what_a_mask_hid() -> None:
    row = Row(choice={"token_ids": [49, 51, 56]}, message={"content": "Mail ann@example.com, please."})
    policy = blocking(Action.REWRITE, Rewrite.MASK)
    parts = Parts(
        guards=(PersonalData("rules"),), upstream=Scripted("s", lambda _: plain(row), lambda _: []), policy=policy
    )
    with served(parts.gateway) as url:
        choice = post(url, {"model": "m", "messages": [ASKED]}, KEY).json()["choices"][0]
    assert "token_ids" not in choice and "ann@" not in str(choice)


@pytest.mark.parametrize("drop", [True, False])
def test_a_tenant_may_let_a_named_field_pass(drop: bool) -> None:
    policy = replace(blocking(), passed_fields=frozenset({"x_groq"}), drop_unknown=drop)
    body = plain(ROWS["Groq"])
    parts = Parts(upstream=Scripted("s", lambda _: body, lambda _: []), policy=policy)
    with served(parts.gateway) as url:
        assert post(url, {"model": "m", "messages": [ASKED]}, KEY).json() == body
