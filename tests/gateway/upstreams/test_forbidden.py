"""What a caller may not tell a provider, and what is left alone."""

import json

import pytest

from gateway.dialects.choices.chat_fields import FIELDS
from gateway.errors import BadRequest
from gateway.upstreams.errors import provider_error
from gateway.upstreams.forbidden import FORBIDDEN, refuse_forbidden
from gateway.upstreams.openai import encoded


@pytest.mark.parametrize("option", [*sorted(FORBIDDEN), "litellm_params", "litellm_metadata", "API_BASE", "api-key"])
@pytest.mark.parametrize(
    ("place", "hide"),
    [
        ("", lambda option: {option: "x"}),
        ("metadata.", lambda option: {"metadata": {option: None}}),
        ("a.0.b.", lambda option: {"a": [{"b": {option: []}}]}),
        ("fallbacks.1.", lambda option: {"fallbacks": ["x", {option: {}}]}),
        ("stream_options.messages.", lambda option: {"stream_options": {"messages": {option: 1}}}),
    ],
)
def test_an_option_that_chooses_host_key_or_guards_is_refused_by_name(option, place, hide) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadRequest) as raised:
        refuse_forbidden({"model": "m", "messages": [], **hide(option)}, FIELDS.free_keys)
    assert raised.value.param == place + option
    assert option in raised.value.message


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "my api_key is x", "api_key": "text is the dialect's to read"}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"api_key": {}}}}}]},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"properties": {"base_url": {}}}}}},
        {"metadata": {"team": "api_key", "api_keys": 1}, "user": "guardrails"},
        {"unknown": {"deep": [[[{"er": None}]]]}},
    ],
)
def test_content_and_other_options_are_left_alone(body: dict[str, object]) -> None:
    refuse_forbidden(body, FIELDS.free_keys)
    assert json.loads(encoded(body)) == body


def test_a_body_as_deep_and_long_as_a_body_can_be_is_searched() -> None:
    deep: object = {"api_key": 1}
    for _ in range(1000):
        deep = {"k" * 4000: [deep]}
    with pytest.raises(BadRequest) as raised:
        refuse_forbidden({"options": deep}, frozenset())
    assert len(raised.value.param or "") <= 200
    refuse_forbidden({"wide": [0] * 1_000_000}, frozenset())


def test_a_body_too_deep_to_write_is_the_callers_error() -> None:
    deep: object = 1
    for _ in range(600):
        deep = [deep]
    with pytest.raises(BadRequest):
        encoded({"a": deep})


@pytest.mark.parametrize("code", ["a b", "x\r\ny", "", "z" * 200, 7, None, {"a": 1}])
def test_a_code_that_is_no_word_is_not_passed_on(code: object) -> None:
    error = provider_error("p", 400, {"error": {"message": "m", "code": code, "type": code, "param": code}})
    assert (error.code, error.type, error.param) == ("upstream_error", "upstream_error", None)
