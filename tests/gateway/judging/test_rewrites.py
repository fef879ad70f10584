"""Masks and refusals: what is put in the place of what may not be said."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.judging.masks import masked
from gateway.judging.rewrites import CannotMask, edited, refusal, with_masks
from gateway.policy.policy import Action, Decision, Policy, Reason
from guard_runtime.conversation import Direction, Part, Path
from guard_runtime.verdict import Category, Span

PRIVACY = Category.PRIVACY_AND_PROPERTY


def span(start: int, end: int, path: Path = ("t",), label: str = "email") -> Span:
    return Span(path, start, end, PRIVACY, label)


@given(st.text(min_size=1), st.lists(st.tuples(st.integers(0, 50), st.integers(1, 10))))
def test_no_character_inside_a_span_is_left_and_every_one_outside_is(text: str, found: list[tuple[int, int]]) -> None:
    spans = [span(start, min(start + size, len(text))) for start, size in found if start < len(text)]
    hidden = {i for s in spans for i in range(s.start, s.end)}
    outside = "".join(c for i, c in enumerate(text) if i not in hidden)
    assert masked(text, spans, "en").replace("[redacted:email]", "") == outside.replace("[redacted:email]", "")


def test_a_mask_says_what_was_there_in_the_callers_language() -> None:
    assert masked("mail a@b.cn now", [span(5, 11)], "en") == "mail [redacted:email] now"
    assert masked("发到 a@b.cn 吧", [span(3, 9)], "zh") == "发到 [已隐去:email] 吧"


BODY: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "user", "content": "mail a@b.cn"},
        {"tool_calls": [{"function": {"arguments": '{"to": "a@b.cn", "n": 3, "deep": ["x", "a@b.cn"]}'}}]},
    ],
}
ARGUMENTS: Path = ("messages", 1, "tool_calls", 0, "function", "arguments", "$json")


def test_an_edit_replaces_one_string_and_shares_the_rest() -> None:
    path: Path = ("messages", 0, "content")
    changed = edited(BODY, {path: "mail X"}, {path: "mail a@b.cn"})
    assert changed["messages"][0]["content"] == "mail X"
    assert changed["messages"][1] is BODY["messages"][1]
    assert BODY["messages"][0]["content"] == "mail a@b.cn"


def test_tool_arguments_are_edited_at_their_leaves_and_stay_json() -> None:
    edits: dict[Path, str] = {(*ARGUMENTS, "to"): "X", (*ARGUMENTS, "deep", 1): "Y"}
    changed = edited(BODY, edits, dict.fromkeys(edits, "a@b.cn"))
    text = changed["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert text == '{"to":"X","n":3,"deep":["x","Y"]}'


@pytest.mark.parametrize(
    "path",
    [("messages", 0, "$keys"), ("tools", 0), ("messages", 0), ("messages", 9, "content"), ("messages", 0, "role")],
)
def test_what_cannot_be_edited_in_place_is_never_let_through_unmasked(path: Path) -> None:
    with pytest.raises(CannotMask):
        edited(BODY, {path: "X"}, {path: "joined\ntext"})


def test_a_span_in_something_that_no_text_can_replace_gives_no_body() -> None:
    part = Part(("messages", 0, "$keys"), "mail a@b.cn")
    assert with_masks(BODY, [span(5, 11, part.path)], [part], "en") is None
    words = Part(("messages", 0, "content"), "a picture put into words")
    assert with_masks(BODY, [span(0, 9, words.path)], [words], "en") is None


def test_a_refusal_speaks_the_callers_language_and_tells_no_score() -> None:
    policy = Policy("p", "h", refusal={"zh": "不行。", "en": "No."})
    decision = Decision(
        Action.BLOCK, Reason.RULE, Direction.PROMPT, PRIVACY, 0.987654, 0.654321, guard="g", place="x:1"
    )
    zh = refusal(policy, decision, "zh", id="K7Q3").text
    en = refusal(policy, decision, "en", id="K7Q3").text
    assert (zh, en) == ("不行。（编号 K7Q3）", "No. (case K7Q3)")
    failed = Decision(Action.BLOCK, Reason.GUARD_FAILURE, Direction.PROMPT, detail="secret")
    assert refusal(policy, failed, "en", id="1").code == "guard_unavailable"
    assert "secret" not in refusal(policy, failed, "en", id="1").text
