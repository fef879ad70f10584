"""Moderation bodies with every field there is, and requests with one thing wrong in each."""

from typing import Any

PARTS: dict[str, Any] = {
    "model": "omni-moderation-latest",
    "input": [
        {"type": "text", "text": "once upon a time"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "text", "text": "从前"},
    ],
}
REQUEST: dict[str, Any] = {"model": "omni-moderation-latest", "input": ["once upon a time", "从前", "the end"]}
ANSWERS: dict[str, Any] = {"input": ["the end", "从前"], "libragate": {"direction": "response", "prompt": "and then?"}}

BAD_REQUESTS: tuple[tuple[dict[str, Any], str], ...] = (
    ({}, "input"),
    ({"input": None}, "input"),
    ({"input": []}, "input"),
    ({"input": {}}, "input"),
    ({"input": 7}, "input"),
    ({"input": ["a", 7]}, "input[1]"),
    ({"input": ["a", None]}, "input[1]"),
    ({"input": ["a", {"type": "text", "text": "x"}]}, "input[1]"),
    ({"input": [1, 2]}, "input[0]"),
    ({"input": ["a"] * 101}, "input"),
    ({"input": [{"type": "text", "text": "x"}, "a"]}, "input[1]"),
    ({"input": [{"text": "x"}]}, "input[0].type"),
    ({"input": [{"type": "hologram", "text": "x"}]}, "input[0].type"),
    ({"input": [{"type": ["text"], "text": "x"}]}, "input[0].type"),
    ({"input": [{"type": "text"}]}, "input[0].text"),
    ({"input": [{"type": "text", "text": 7}]}, "input[0].text"),
    ({"input": [{"type": "text", "text": "x", "caption": "psst"}]}, "input[0].caption"),
    ({"model": 7, "input": "x"}, "model"),
    ({"input": "x", "policy": "none of them"}, "policy"),
    ({"input": "x", "libragate": "response"}, "libragate"),
    ({"input": "x", "libragate": {}}, "libragate.direction"),
    ({"input": "x", "libragate": {"direction": "sideways"}}, "libragate.direction"),
    ({"input": "x", "libragate": {"direction": ["response"]}}, "libragate.direction"),
    ({"input": "x", "libragate": {"direction": "response", "prompt": 7}}, "libragate.prompt"),
    ({"input": "x", "libragate": {"direction": "prompt", "prompt": "why?"}}, "libragate.prompt"),
    ({"input": "x", "libragate": {"direction": "response", "policy": None}}, "libragate.policy"),
)
