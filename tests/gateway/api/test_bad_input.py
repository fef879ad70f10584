"""Bad requests over real sockets: each a 4xx in OpenAI's shape that names what is wrong; never a 500, never a hang."""

import gzip
import json
import socket
import time
from typing import Any

import httpx
import pytest
import zstandard

from gateway.tenants.limits import Limits
from tests.support.gateway_server import KEY, Parts, served

HEADERS = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
GOOD: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
DEEP: Any = None
for _ in range(200):
    DEEP = [DEEP]


@pytest.fixture(scope="module")
def url() -> Any:
    with served(Parts(limits=Limits(body_seconds=1, header_seconds=1)).gateway) as address:
        yield address


def message(**fields: Any) -> dict[str, Any]:
    return {**GOOD, "messages": [{"role": "user", "content": "x"} | fields]}


BODIES: list[tuple[str, Any, int, str | None]] = [
    ("no body", b"", 400, None),
    ("blanks", b" " * 100_000, 400, None),
    ("not json", b"{", 400, None),
    ("a list", b"[]", 400, None),
    ("a string", b'"x"', 400, None),
    ("two values", b"{} {}", 400, None),
    ("a byte order mark", b"\xef\xbb\xbf{}", 400, None),
    ("not UTF-8", b'{"model": "\xff"}', 400, None),
    ("UTF-16", json.dumps(GOOD).encode("utf-16"), 400, None),
    ("a lone surrogate", b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}', 400, None),
    ("a duplicate key", b'{"model": "m", "model": "n", "messages": []}', 400, "model"),
    (
        "a duplicate key within a message",
        b'{"model": "m", "messages": [{"role": "user", "content": "a", "content": "b"}]}',
        400,
        "content",
    ),
    ("NaN", b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}', 400, "temperature"),
    ("a huge number", b'{"model": "m", "seed": ' + b"9" * 5000 + b"}", 400, None),
    ("more than 64 bits", b'{"model": "m", "seed": 99999999999999999999999}', 400, None),
    ("infinity by exponent", b'{"model": "m", "temperature": 1e999}', 400, None),
    ("bottomless", b"[" * 100_000, 400, None),
    ("200 levels deep", {**GOOD, "metadata": {"a": DEEP}}, 400, None),
    ("no model", {"messages": GOOD["messages"]}, 400, "model"),
    ("a model that is no string", {**GOOD, "model": 3}, 400, "model"),
    ("an unknown model", {**GOOD, "model": "gpt-9"}, 404, "model"),
    ("a model that is not allowed", {**GOOD, "model": "big"}, 403, "model"),
    ("no messages", {"model": "m"}, 400, "messages"),
    ("empty messages", {**GOOD, "messages": []}, 400, "messages"),
    ("messages as an object", {**GOOD, "messages": {"role": "user"}}, 400, "messages"),
    ("messages as a string", {**GOOD, "messages": "hello"}, 400, "messages"),
    ("too many messages", {**GOOD, "messages": GOOD["messages"] * 10_000}, 400, "messages"),
    ("a message that is no object", {**GOOD, "messages": ["hello"]}, 400, "messages[0]"),
    ("no role", {**GOOD, "messages": [{"content": "x"}]}, 400, "messages[0].role"),
    ("an unknown role", message(role="root"), 400, "messages[0].role"),
    ("content as a number", message(content=3), 400, "messages[0].content"),
    ("content as an object", message(content={"text": "x"}), 400, "messages[0].content"),
    ("an unknown part", message(content=[{"type": "hologram", "text": "x"}]), 400, "messages[0].content[0].type"),
    ("a part without text", message(content=[{"type": "text"}]), 400, "messages[0].content[0].text"),
    ("an unknown field with text", message(whisper="psst"), 400, "messages[0].whisper"),
    ("an unknown option with text", {**GOOD, "chat_template": "{{ evil }}"}, 400, "chat_template"),
    ("a temperature as text", {**GOOD, "temperature": "hot"}, 400, "temperature"),
    ("a temperature out of range", {**GOOD, "temperature": 99}, 400, "temperature"),
    ("n of zero", {**GOOD, "n": 0}, 400, "n"),
    ("n of a half", {**GOOD, "n": 1.5}, 400, "n"),
    ("stream as text", {**GOOD, "stream": "yes"}, 400, "stream"),
    ("tools as an object", {**GOOD, "tools": {}}, 400, "tools"),
    ("the caller's own host", {**GOOD, "api_base": "http://127.0.0.1:1"}, 400, "api_base"),
    ("the caller's own host, other name", {**GOOD, "base_url": "http://127.0.0.1:1"}, 400, "base_url"),
    ("the caller's own key", {**GOOD, "api_key": "sk-1"}, 400, "api_key"),
    ("the caller's own headers", {**GOOD, "extra_headers": {"x": "y"}}, 400, "extra_headers"),
    ("the caller's own body", {**GOOD, "extra_body": {"x": 1}}, 400, "extra_body"),
    ("the caller's own provider", {**GOOD, "custom_llm_provider": "x"}, 400, "custom_llm_provider"),
    ("the caller's own answer", {**GOOD, "mock_response": "x"}, 400, "mock_response"),
    ("the caller's own guards", {**GOOD, "guardrails": []}, 400, "guardrails"),
]


@pytest.mark.parametrize(("body", "status", "param"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES])
def test_a_bad_body_is_named(url: str, body: Any, status: int, param: str | None) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = httpx.post(f"{url}/v1/chat/completions", content=data, headers=HEADERS, timeout=20)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and error["message"]
    assert error["param"] == param
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0, "top_p": 1, "n": 2, "seed": -1, "stop": ["a", "b"], "user": "someone", "logprobs": True},
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": False, "response_format": {"type": "text"}},
        {"top_k": 20, "min_p": 0.1, "ignore_eos": False, "stream_options": None, "metadata": {"run": "a b c"}},
    ],
)
def test_a_good_body_passes_with_options_nobody_has_to_know(url: str, options: dict[str, Any]) -> None:
    answer = httpx.post(f"{url}/v1/chat/completions", json=GOOD | options, headers=HEADERS)
    assert answer.status_code == 200, answer.text


def test_a_body_over_the_limit_is_refused_before_it_has_all_come(url: str) -> None:
    big = message(content="x" * (5 * 1024 * 1024))
    answer = httpx.post(f"{url}/v1/chat/completions", json=big, headers=HEADERS)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    chunks = (b"x" * 65_536 for _ in range(100))
    answer = httpx.post(f"{url}/v1/chat/completions", content=chunks, headers=HEADERS)
    assert answer.status_code == 413


def test_a_coding_that_is_not_read_here_is_refused_with_the_ones_that_are(url: str) -> None:
    headers = {**HEADERS, "content-encoding": "br"}
    answer = httpx.post(f"{url}/v1/chat/completions", content=b"x", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_content_encoding")
    assert "gzip and zstd" in answer.json()["error"]["message"]


CODINGS = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}


@pytest.mark.parametrize("coding", CODINGS)
def test_a_compressed_body_is_unpacked_and_judged(url: str, coding: str) -> None:
    headers = {**HEADERS, "content-encoding": coding}
    for content, status in (("hello", 200), ("forbidden", 400)):
        body = CODINGS[coding](json.dumps(message(content=content)).encode())
        answer = httpx.post(f"{url}/v1/chat/completions", content=body, headers=headers)
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_is_refused_before_it_is_unpacked(url: str, coding: str) -> None:
    headers = {**HEADERS, "content-encoding": coding}
    answer = httpx.post(f"{url}/v1/chat/completions", content=CODINGS[coding](b" " * 2**29), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize("coding", CODINGS)
def test_a_compressed_body_that_is_cut_followed_by_more_or_no_such_thing_is_refused(url: str, coding: str) -> None:
    headers = {**HEADERS, "content-encoding": coding}
    whole = CODINGS[coding](json.dumps(GOOD).encode())
    for body in (whole[:-5], whole + whole, b"not compressed at all"):
        answer = httpx.post(f"{url}/v1/chat/completions", content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/messages", "/v1/messages"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("/openai/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/responses", "/v1/responses"),
        ("/anthropic/v1/messages", "/v1/messages"),
    ],
)
def test_a_path_of_another_form_is_told_what_to_write(url: str, path: str, meant: str) -> None:
    answer = httpx.post(url + path, json=GOOD, headers=HEADERS)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"].endswith(f"Post to {meant}.")


def test_an_upgrade_to_a_websocket_is_answered_at_once_with_a_status_to_fall_back_from(url: str) -> None:
    for path in ("/v1/responses", "/v1/realtime"):
        upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-key": "x" * 24}
        answer = httpx.get(url + path, headers={**HEADERS, **upgrade, "sec-websocket-version": "13"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (426, "websocket_not_served")


def raw(url: str, data: bytes, *, wait: float = 5.0) -> bytes:
    """What comes back for these very bytes, until the server closes the connection or nothing more comes."""
    port = int(url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as connection:
        connection.sendall(data)
        answer = b""
        try:
            while piece := connection.recv(65_536):
                answer += piece
                if b"\r\n\r\n" in answer and b"}" in answer:
                    break
        except TimeoutError:
            pass
        return answer


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + KEY.encode() + b"\r\n"


def test_two_ways_to_frame_a_body_are_refused(url: str) -> None:
    body = json.dumps(GOOD).encode()
    both = HEAD + b"content-length: %d\r\ntransfer-encoding: chunked\r\n\r\n" % len(body)
    assert raw(url, both + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)).startswith(b"HTTP/1.1 400")
    twice = HEAD + b"content-length: 5\r\ncontent-length: %d\r\n\r\n" % len(body)
    assert raw(url, twice + body).startswith(b"HTTP/1.1 400")


def test_half_a_body_ends_with_a_408_and_half_a_head_with_a_closed_connection(url: str) -> None:
    assert raw(url, HEAD + b"content-length: 100\r\n\r\n{").startswith(b"HTTP/1.1 408")
    started = time.monotonic()
    assert raw(url, b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-slow: ", wait=10) == b""
    assert time.monotonic() - started < 8
    drip = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    assert raw(url, drip).startswith(b"HTTP/1.1 200")


def test_half_a_head_on_a_connection_that_was_used_before_is_closed_too(url: str) -> None:
    port = int(url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /healthz HTTP/1.1\r\nho")
        assert connection.recv(65_536) == b""


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Basic abc", "Bearer a b", "bearer\tx", "Bearer " + "x" * 5000, KEY]
)
def test_a_key_that_is_none_is_a_401(url: str, authorization: str) -> None:
    headers = {"authorization": authorization} if authorization else {}
    answer = httpx.post(f"{url}/v1/chat/completions", json=GOOD, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


def test_two_keys_are_a_401(url: str) -> None:
    head = HEAD + b"authorization: Bearer other\r\ncontent-length: 2\r\n\r\n{}"
    assert raw(url, head).startswith(b"HTTP/1.1 401")


def test_a_method_that_is_not_served_is_refused_in_the_same_shape(url: str) -> None:
    answer = httpx.get(f"{url}/v1/chat/completions", headers=HEADERS)
    assert answer.status_code in (404, 405)
    assert answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    "header", ["x-libragate-policy", "x-libragate-tenant", "x-tenant", "x-guardrails", "x-libragate-guard", "host"]
)
def test_no_header_of_the_callers_changes_the_policy(url: str, header: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "forbidden"}]}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers={**HEADERS, header: "off"})
    assert (answer.status_code, answer.headers["x-libragate-policy"]) == (400, "0123456789ab")
