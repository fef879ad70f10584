"""Embedding bodies with every field there is, and requests with one thing wrong in each."""

from typing import Any

from gateway.dialects.dialect import Event

REQUEST: dict[str, Any] = {
    "model": "demo",
    "input": ["once upon a time", "从前", "有一天", "the end"],
    "encoding_format": "float",
    "dimensions": 256,
    "user": "u1",
    "metadata": {"ticket": "77"},
}
ANSWER: dict[str, Any] = {
    "object": "list",
    "model": "demo",
    "id": "emb-1",
    "data": [
        {"object": "embedding", "index": 0, "embedding": [0.25, -1, 0]},
        {"object": "embedding", "index": 1, "embedding": "AACAPwAAAMA="},
    ],
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
EVENTS: tuple[Event, ...] = ()

BAD_REQUESTS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"input": "x"}, "model"),
    ({"model": 7, "input": "x"}, "model"),
    ({"model": "demo"}, "input"),
    ({"model": "demo", "input": None}, "input"),
    ({"model": "demo", "input": ""}, "input"),
    ({"model": "demo", "input": []}, "input"),
    ({"model": "demo", "input": {}}, "input"),
    ({"model": "demo", "input": 7}, "input"),
    ({"model": "demo", "input": [1, 2]}, "input"),
    ({"model": "demo", "input": [[1, 2]]}, "input[0]"),
    ({"model": "demo", "input": ["a", 7]}, "input[1]"),
    ({"model": "demo", "input": ["a", ""]}, "input[1]"),
    ({"model": "demo", "input": ["a", []]}, "input[1]"),
    ({"model": "demo", "input": ["a", ["b"]]}, "input[1]"),
    ({"model": "demo", "input": [{"type": "text", "text": "x"}]}, "input[0]"),
    ({"model": "demo", "input": ["a"] * 2049}, "input"),
    ({"model": "demo", "input": "x", "dimensions": 0}, "dimensions"),
    ({"model": "demo", "input": "x", "dimensions": 1.5}, "dimensions"),
    ({"model": "demo", "input": "x", "encoding_format": "two words"}, "encoding_format"),
    ({"model": "demo", "input": "x", "user": "two\nlines"}, "user"),
    ({"model": "demo", "input": "x", "stream": True}, "stream"),
    ({"model": "demo", "input": "x", "messages": [{"role": "user", "content": "x"}]}, "messages"),
    ({"model": "demo", "input": "x", "instruction": "represent this"}, "instruction"),
)
