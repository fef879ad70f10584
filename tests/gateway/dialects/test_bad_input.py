"""The same wrong requests in every dialect: a 4xx in its own error's shape that names the field; nothing is asked."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.tenants.limits import Limits
from tests.openapi.everything import everything
from tests.support.gateway_server import KEY, served

HEADERS = {"authorization": f"Bearer {KEY}"}
SAY = [{"role": "user", "content": "hello"}]
GOOD: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "m", "messages": SAY},
    "/v1/completions": {"model": "m", "prompt": "hello"},
    "/v1/responses": {"model": "m", "input": "hello"},
    "/v1/messages": {"model": "m", "max_tokens": 5, "messages": SAY},
    "/v1/embeddings": {"model": "m", "input": "hello"},
    "/v1/moderations": {"model": "m", "input": "hello"},
}
CONTENT = {path: next(key for key in ("messages", "prompt", "input") if key in body) for path, body in GOOD.items()}
ASKS = [path for path in GOOD if path != "/v1/moderations"]
TURNS = {
    "/v1/chat/completions": "messages",
    "/v1/responses": "input",
    "/v1/messages": "messages",
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    parts = everything()
    parts.limits = Limits(messages=50)
    with served(parts.gateway) as address:
        yield address


def refused(url: str, path: str, body: Any, status: int, param: str | None) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = httpx.post(f"{url}{path}", content=data, headers=HEADERS, timeout=30)
    assert answer.status_code == status, answer.text
    said = answer.json()
    error = said["error"]
    assert isinstance(error["message"], str) and error["message"]
    assert (error["param"], answer.headers["x-request-id"] != "") == (param, True)
    if path == "/v1/messages":
        assert said["type"] == "error"
        assert error["type"] == {400: "invalid_request_error", 403: "permission_error", 404: "not_found_error"}[status]
    else:
        assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", GOOD)
def test_a_good_request_is_answered_in_every_dialect(url: str, path: str) -> None:
    answer = httpx.post(f"{url}{path}", json=GOOD[path], headers=HEADERS, timeout=30)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", GOOD)
def test_json_that_can_be_read_in_two_ways_is_refused(url: str, path: str) -> None:
    good = json.dumps(GOOD[path])[1:-1]
    content = CONTENT[path]
    refused(url, path, f'{{{good}, "{content}": "other"}}'.encode(), 400, content)
    refused(url, path, f'{{{good}, "temperature": NaN}}'.encode(), 400, "temperature")
    refused(url, path, f'{{{good}, "seed": {"9" * 5000}}}'.encode(), 400, None)
    refused(url, path, b"", 400, None)
    refused(url, path, b"[]", 400, None)
    refused(url, path, b'{"model": "\xff"}', 400, None)


@pytest.mark.parametrize("wrong", [None, [], {}, 7, True])
@pytest.mark.parametrize("path", GOOD)
def test_content_that_is_missing_empty_or_of_another_type_is_named(url: str, path: str, wrong: Any) -> None:
    refused(url, path, {**GOOD[path], CONTENT[path]: wrong}, 400, CONTENT[path])


@pytest.mark.parametrize("path", ASKS)
def test_a_model_that_is_missing_unknown_or_not_allowed_is_named(url: str, path: str) -> None:
    without = {key: value for key, value in GOOD[path].items() if key != "model"}
    refused(url, path, without, 400, "model")
    refused(url, path, {**GOOD[path], "model": 7}, 400, "model")
    refused(url, path, {**GOOD[path], "model": "gpt-9"}, 404, "model")
    refused(url, path, {**GOOD[path], "model": "big"}, 403, "model")


@pytest.mark.parametrize("path", TURNS)
def test_a_role_or_a_part_that_nobody_knows_is_named(url: str, path: str) -> None:
    field = TURNS[path]
    for role in ("root", 7, None):
        turn = {"type": "message", "role": role, "content": "x"} if field == "input" else {"role": role, "content": "x"}
        refused(url, path, {**GOOD[path], field: [turn]}, 400, f"{field}[0].role")
    part = {"type": "hologram", "text": "x"}
    turn = {"role": "user", "content": [part]}
    refused(url, path, {**GOOD[path], field: [turn]}, 400, f"{field}[0].content[0].type")
    refused(url, path, {**GOOD[path], field: ["hello"]}, 400, f"{field}[0]")


@pytest.mark.parametrize("path", GOOD)
def test_a_field_that_nobody_knows_is_named_where_it_has_text(url: str, path: str) -> None:
    refused(url, path, {**GOOD[path], "whisper": "psst"}, 400, "whisper")


@pytest.mark.parametrize("path", ASKS)
def test_options_out_of_range_and_the_callers_own_host_are_named(url: str, path: str) -> None:
    refused(url, path, {**GOOD[path], "api_base": "http://127.0.0.1:1"}, 400, "api_base")
    if path != "/v1/embeddings":
        refused(url, path, {**GOOD[path], "temperature": 99}, 400, "temperature")
        refused(url, path, {**GOOD[path], "temperature": "hot"}, 400, "temperature")
        refused(url, path, {**GOOD[path], "stream": "yes"}, 400, "stream")


@pytest.mark.parametrize("path", TURNS)
def test_more_turns_than_the_gateway_takes_are_named(url: str, path: str) -> None:
    refused(url, path, {**GOOD[path], TURNS[path]: SAY * 51}, 400, TURNS[path])
