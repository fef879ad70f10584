"""Completion bodies with every field there is, and requests with one thing wrong in each."""

from typing import Any

from gateway.dialects.dialect import Event

REQUEST: dict[str, Any] = {
    "model": "demo",
    "prompt": ["once upon a time", "从前"],
    "suffix": "the end",
    "stop": ["END", "。"],
    "echo": True,
    "n": 1,
    "best_of": 2,
    "logprobs": 2,
    "max_tokens": 5,
    "temperature": 0,
    "stream": True,
    "stream_options": {"include_usage": True},
    "logit_bias": {"50256": -100},
    "user": "u1",
    "metadata": {"ticket": "77"},
}
LOGPROBS = {
    "tokens": ["there", " was"],
    "token_logprobs": [-0.1, None],
    "top_logprobs": [{"there": -0.1, "here": -2.0}, None],
    "text_offset": [0, 5],
}
HEAD = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "demo"}
ANSWER: dict[str, Any] = {
    **HEAD,
    "system_fingerprint": "fp",
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    "choices": [
        {"index": 0, "text": "there was", "logprobs": LOGPROBS, "finish_reason": "stop", "stop_reason": "END"},
        {"index": 1, "text": "有个人", "logprobs": None, "finish_reason": "length"},
    ],
}


def chunk(index: int, text: str, finish: str | None = None, **fields: Any) -> Event:
    return Event({**HEAD, "choices": [{"index": index, "text": text, "finish_reason": finish, **fields}]})


EVENTS: tuple[Event, ...] = (
    chunk(0, "there was", logprobs=LOGPROBS),
    chunk(1, "有个人"),
    chunk(0, "", "stop", stop_reason="END"),
    chunk(1, "", "length", content_filter_results={"hate": {"severity": "safe"}}),
    Event({**HEAD, "choices": [], "system_fingerprint": "fp"}),
    Event({**HEAD, "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}),
)

BAD_REQUESTS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"prompt": "x"}, "model"),
    ({"model": "demo"}, "prompt"),
    ({"model": "demo", "prompt": None}, "prompt"),
    ({"model": "demo", "prompt": []}, "prompt"),
    ({"model": "demo", "prompt": {}}, "prompt"),
    ({"model": "demo", "prompt": 7}, "prompt"),
    ({"model": "demo", "prompt": [1, 2]}, "prompt"),
    ({"model": "demo", "prompt": [[1, 2]]}, "prompt[0]"),
    ({"model": "demo", "prompt": ["a", 7]}, "prompt[1]"),
    ({"model": "demo", "prompt": ["a", ["b"]]}, "prompt[1]"),
    ({"model": "demo", "prompt": ["a", None]}, "prompt[1]"),
    ({"model": "demo", "prompt": [True]}, "prompt[0]"),
    ({"model": "demo", "prompt": ["a"] * 65}, "prompt"),
    ({"model": "demo", "prompt": "x", "suffix": 7}, "suffix"),
    ({"model": "demo", "prompt": "x", "suffix": ["a"]}, "suffix"),
    ({"model": "demo", "prompt": "x", "stop": {}}, "stop"),
    ({"model": "demo", "prompt": "x", "echo": "yes"}, "echo"),
    ({"model": "demo", "prompt": "x", "best_of": 0}, "best_of"),
    ({"model": "demo", "prompt": "x", "logprobs": True}, "logprobs"),
    ({"model": "demo", "prompt": "x", "n": 1.5}, "n"),
    ({"model": "demo", "prompt": "x", "messages": [{"role": "user", "content": "x"}]}, "messages"),
    ({"model": "demo", "prompt": "x", "stream_options": 7}, "stream_options"),
    ({"model": "demo", "prompt": "x", "user": "two\nlines"}, "user"),
)
