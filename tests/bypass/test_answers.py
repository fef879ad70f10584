"""The ways round a guard on the way out, line by line: whatever the model says, in whichever field, cut anyhow."""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
import orjson
import pytest

from gateway.errors import UpstreamError
from gateway.policy.policy import Action, Rewrite, StreamSettings
from gateway.upstreams.openai import Endpoint, OpenAICompatible
from gateway.upstreams.upstream import Pause, Scripted, Step
from guard_runtime.guards.personal_data import PersonalData
from tests.bypass.walls import (
    BAD_WORD,
    CHAT,
    COMPLETIONS,
    HELLO,
    MESSAGES,
    RESPONSES,
    Json,
    asking,
    chunk,
    dripped,
    events,
    finishes,
    heard,
    message,
    plain,
    post,
    said,
    streaming,
)
from tests.clients.provider import Speaker
from tests.support.faulty_provider import chunks, faulty_thread, raw_sse
from tests.support.gateway_server import KEY, Parts, blocking, record, served

CLEAN = "A harmless beginning, and a long one. "
ID_NUMBER = "11010519491231002X"


def answered(upstream: Any, path: str = CHAT, parts: Parts | None = None, **fields: Any) -> httpx.Response:
    """What the caller gets when this upstream is asked."""
    parts = parts or Parts()
    parts.upstream = upstream
    with served(parts.gateway) as url:
        return post(url, asking("hello", **fields), path)


def streamed(*steps: Step, parts: Parts | None = None, done: bool = True, **fields: Any) -> str:
    return answered(streaming(*steps, done=done), parts=parts, stream=True, **fields).text


@pytest.mark.parametrize("size", [1, 3, 9, 64, 4096])
def test_wire_02_stream_true_is_guarded_on_the_way_out(size: int) -> None:
    raw = streamed(*said(CLEAN * 5 + "then forbidden things. " + CLEAN, size))
    assert BAD_WORD not in heard(raw) and finishes(raw) == [(0, "content_filter")]


@pytest.mark.parametrize("path", [COMPLETIONS, RESPONSES, MESSAGES])
@pytest.mark.parametrize("stream", [False, True])
def test_wire_02_stream_true_or_not_every_dialect_is_guarded_on_the_way_out(path: str, stream: bool) -> None:
    bodies: Mapping[str, Json] = {
        COMPLETIONS: {"prompt": "hi"},
        RESPONSES: {"input": "hi"},
        MESSAGES: {"max_tokens": 9, "messages": HELLO},
    }
    with served(Parts(upstream=Speaker(lambda body: "something forbidden")).gateway) as url:
        answer = post(url, {"model": "m", **bodies[path], "stream": stream}, path)
    assert answer.status_code == 200
    assert BAD_WORD not in answer.text and "bidden" not in answer.text and "Sorry" in answer.text


def test_wire_02_a_caller_who_leaves_in_the_middle_is_recorded_and_the_upstream_closed() -> None:
    upstream = streaming(*said(CLEAN * 5, 8), Pause(30), *said("forbidden"))
    parts = Parts(upstream=upstream)
    with served(parts.gateway) as url, httpx.Client(verify=False) as client:
        body, headers = asking("hello", stream=True), {"authorization": f"Bearer {KEY}"}
        with client.stream("POST", f"{url}{CHAT}", json=body, headers=headers) as answer:
            next(answer.iter_text())
        written = record(parts)
    assert (written["outcome"], upstream.open) == ("client_left", 0)
    assert written["decisions"] == [] and written["characters"]["unguarded"] == 0  # type: ignore[index]


def test_wire_02_an_upstream_that_fails_in_the_middle_releases_nothing_unread() -> None:
    raw = streamed(*said("Then forbidden words. And more", 7), UpstreamError("gone"), done=False)
    assert BAD_WORD not in heard(raw) and "bidden" not in heard(raw)


def test_wire_02_a_stream_without_its_end_is_guarded_and_ends_in_an_error() -> None:
    raw = streamed(*said(CLEAN), done=False)
    assert heard(raw).startswith(CLEAN.strip()[:20]) and events(raw)[-1]["error"]["code"] == "upstream_error"
    raw = streamed(*said("Then forbidden"), done=False)
    assert BAD_WORD not in heard(raw)


def test_wire_03_choices_in_any_order_are_each_judged() -> None:
    odd = {"index": 1, **message("a forbidden thing")}
    answer = answered(plain(odd, {"index": 0, **message("fine")}), n=2).json()
    assert [choice["message"]["content"] for choice in answer["choices"]] == [None, "fine"]
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["content_filter", "stop"]


def test_wire_03_a_block_closes_every_choice_the_first_one_first() -> None:
    steps = [*said(CLEAN, 4, index=1), *said(CLEAN, 4, index=0), *said("forbidden", 3, index=2)]
    raw = streamed(*steps, done=False, n=3)
    assert BAD_WORD not in heard(raw) and raw.rstrip().endswith("data: [DONE]")
    assert finishes(raw) == [(index, "content_filter") for index in (0, 1, 2)]


LOGPROBS: Json = {"content": [{"token": "forbidden", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
CHOSEN: Json = {"content": [{"token": "for", "top_logprobs": [{"token": "forbidden"}]}, {"token": "mal"}]}
BYTES: Json = {"content": [{"token": "?", "bytes": list(b"forbid")}, {"token": "?", "bytes": list(b"den")}]}


@pytest.mark.parametrize("logprobs", [LOGPROBS, CHOSEN, BYTES])
def test_wire_03_logprobs_tell_nothing_that_the_text_may_not(logprobs: Json) -> None:
    answer = answered(plain({**message("formal"), "logprobs": logprobs}), logprobs=True)
    assert BAD_WORD not in answer.text and answer.json()["choices"][0]["finish_reason"] == "content_filter"
    raw = streamed(chunk({"content": "formal"}, logprobs=logprobs))
    assert BAD_WORD not in raw and finishes(raw) == [(0, "content_filter")]


def test_wire_03_echoed_prompts_and_best_of_are_judged_as_they_come() -> None:
    choices = [
        {"index": i, "text": text, "finish_reason": "stop"} for i, text in enumerate(("hi: forbidden", "hi: ok"))
    ]
    answer = {"id": "x", "object": "text_completion", "created": 0, "model": "m", "choices": choices}
    parts = Parts(upstream=Scripted("s", lambda body: answer, lambda body: []))
    with served(parts.gateway) as url:
        body = {"model": "m", "prompt": "hi", "echo": True, "n": 2, "best_of": 2}
        found = post(url, body, COMPLETIONS).json()["choices"]
    assert [choice["finish_reason"] for choice in found] == ["content_filter", "stop"]
    assert BAD_WORD not in found[0]["text"]


CALL: Json = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"q": "\\u0066orbidden"}'}}


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_calls": [CALL]},
        {"tool_calls": [{**CALL, "function": {"name": "forbidden", "arguments": "{}"}}]},
        {"function_call": {"name": "f", "arguments": '{"q": "forbidden"}'}},
        {"tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "f", "input": "forbidden"}}]},
    ],
)
def test_wire_06_tool_calls_are_read_as_they_are_meant(fields: Json) -> None:
    answer = answered(plain(message(**fields)))
    assert answer.json()["choices"][0]["finish_reason"] == "content_filter"
    assert BAD_WORD not in answer.text and "orbidden" not in answer.text


@pytest.mark.parametrize("arguments", ['{"q": "a forbidden thing"}', '{"q": "\\u0066\\u006frbid\\u0064en"}'])
@pytest.mark.parametrize("size", [1, 5])
def test_wire_06_tool_call_arguments_are_read_while_split_over_deltas(arguments: str, size: int) -> None:
    pieces = [arguments[i : i + size] for i in range(0, len(arguments), size)]
    head = chunk({"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": ""}}]})
    deltas = [chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}) for piece in pieces]
    raw = streamed(head, *deltas)
    assert "orbid" not in heard(raw) and "rbid\\u" not in heard(raw) and finishes(raw) == [(0, "content_filter")]


TEXTS: Sequence[Json] = (
    {"reasoning_content": "forbidden"},
    {"reasoning": "forbidden"},
    {"content": "<think>forbidden</think>"},
    {"refusal": "forbidden"},
    {"reasoning_details": [{"type": "reasoning.text", "text": "forbidden"}]},
    {"annotations": [{"type": "url_citation", "url_citation": {"title": "forbidden", "url": "u"}}]},
    {"audio": {"id": "a", "transcript": "forbidden"}},
)


@pytest.mark.parametrize("fields", TEXTS)
def test_wire_07_reasoning_thinking_annotations_and_transcripts_are_read(fields: Json) -> None:
    answer = answered(plain(message(**fields)))
    assert BAD_WORD not in answer.text and answer.json()["choices"][0]["finish_reason"] == "content_filter"
    raw = streamed(chunk(fields))
    assert BAD_WORD not in raw and finishes(raw) == [(0, "content_filter")]


@pytest.mark.parametrize("costume", ["\u200b".join(ID_NUMBER), "".join(chr(ord(c) + 0xFEE0) for c in ID_NUMBER)])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_wire_08_unicode_costumes_hide_no_number_in_a_stream(costume: str, size: int) -> None:
    parts = Parts(guards=(PersonalData(),), policy=blocking(Action.REWRITE, Rewrite.MASK))
    raw = streamed(*said(f"His number is {costume}, that is all. And more.", size), parts=parts)
    assert heard(raw).startswith("His number is [redacted:cn_resident_id], that is all. And more.")


def patterns() -> list[list[int]]:
    """256 ways to cut a text, the same in every run."""
    dice = random.Random(20261121)
    return [[dice.randint(1, dice.choice((2, 9, 30))) for _ in range(200)] for _ in range(256)]


def test_wire_10_stream_edges_whatever_way_the_text_is_cut_the_word_stays_in() -> None:
    text = CLEAN * 10 + "then forbidden, and on. "
    scripts = iter(patterns())

    def cut(body: Mapping[str, Any]) -> Iterator[Step]:
        pieces, at = [], 0
        for length in next(scripts):
            pieces.append(text[at : at + length])
            at += length
        begun = (chunk({"content": piece}) for piece in pieces if piece)
        return dripped([*begun, *said(text[at:], 7), chunk({}, finish="stop")])

    parts = Parts(upstream=Scripted("cut", lambda body: {}, cut))
    with served(parts.gateway) as url, httpx.Client(verify=False, timeout=60) as client:
        for _ in range(256):
            body, headers = asking("hello", stream=True), {"authorization": f"Bearer {KEY}"}
            raw = client.post(f"{url}{CHAT}", json=body, headers=headers).text
            assert BAD_WORD not in heard(raw) and finishes(raw) == [(0, "content_filter")]


DRIBBLE = StreamSettings(release_after=0.02)


@pytest.mark.parametrize(("word", "at"), [*((BAD_WORD, at) for at in range(1, 9)), ("禁忌", 1)])
def test_wire_10_stream_edges_a_word_split_over_a_release_is_found(word: str, at: int) -> None:
    """`threat 07`: the pause forces what came before it out; the check of the rest reads it again."""
    parts = Parts(policy=blocking(stream=DRIBBLE))
    raw = streamed(*said(f"{CLEAN}和{word[:at]}", 5), Pause(0.2), *said(f"{word[at:]} words", 5), parts=parts)
    assert word not in heard(raw) and finishes(raw) == [(0, "content_filter")]


def test_wire_10_stream_edges_text_across_choices_is_kept_apart() -> None:
    one, other = "a forbidden word", CLEAN[:16]
    steps = [step for pair in zip(said(other), said(one, index=1), strict=True) for step in pair]
    raw = streamed(*steps, done=False, n=2)
    assert BAD_WORD not in heard(raw) and "orbidde" not in heard(raw)


@pytest.mark.parametrize("half", ["\ud83d", "\ude00"])
def test_wire_10_stream_edges_half_a_character_leaves_nothing_unread(half: str) -> None:
    parts = Parts()
    raw = streamed(chunk({"content": "forbid" + half}), chunk({"content": "den"}), parts=parts)
    assert "forbid" not in heard(raw) and record(parts)["outcome"] == "upstream_failed"


NEW_KEYS = [
    chunk({"content": "a", "whisper": "forbidden"}),
    chunk({"whisper": {"deep": ["forbidden"]}}),
    chunk({"content": "a"}, murmur="forbidden"),
    chunk({"content": "a", "role": "assistant forbidden"}),
    chunk({"tool_calls": [{"index": 0, "extra": {"content": "forbidden"}}]}),
    chunk({"content": ["forbidden"]}),
    chunk({"content": "a", "two words forbidden": 1}),
]


@pytest.mark.parametrize("event", NEW_KEYS)
def test_threat_06_unread_shapes_of_new_fields_are_held_and_answered_for(event: Any) -> None:
    raw = streamed(event)
    assert BAD_WORD not in raw


@pytest.mark.parametrize(
    "fields", [{"whisper": "forbidden"}, {"whisper": {"deep": ["forbidden"]}}, {"x": {"forbidden words": 1}}]
)
def test_threat_06_unread_shapes_in_a_plain_answer_are_answered_for(fields: Json) -> None:
    answer = answered(plain(message("fine", **fields)))
    assert BAD_WORD not in answer.text and answer.json()["choices"][0]["message"]["content"] == "fine"


def test_threat_18_one_event_in_is_one_event_out() -> None:
    forged = 'fine\n\ndata: {"choices": [{"index": 0, "delta": {"content": "forged"}}]}\n\ndata: [DONE]\r\n\r\n'
    raw = streamed(*said(forged, 200))
    assert heard(raw).startswith(forged) and finishes(raw) == [(0, "stop")]
    assert raw.count("data: [DONE]\n\n") == 1 and raw.rstrip().endswith("data: [DONE]")


def _behind(address: str) -> httpx.Response:
    """A streamed answer of the provider at this address."""
    return answered(OpenAICompatible("far", Endpoint(address)), stream=True)


def _ended() -> list[bytes]:
    return [b"data: " + orjson.dumps(chunks("")[-1]) + b"\n\n", b"data: [DONE]\n\n"]


def test_wire_13_a_huge_event_ends_the_stream_and_is_not_kept() -> None:
    from_far = raw_sse(b'data: {"choices": [{"index": 0, "delta": {"content": "forbidden ' + b"x" * 5_000_000)
    with faulty_thread(from_far) as provider:
        raw = _behind(provider.url)
    assert BAD_WORD not in raw.text and "more than 4194304 bytes" in raw.json()["error"]["message"]


def test_wire_13_a_key_twice_in_an_event_is_sent_on_as_it_was_read() -> None:
    twice = b'data: {"choices": [{"index": 0, "delta": {"content": "forbidden", "content": "fine"}}]}\n\n'
    with faulty_thread(raw_sse(twice, *_ended())) as provider:
        raw = _behind(provider.url)
    assert BAD_WORD not in raw.text and heard(raw.text).startswith("fine")
