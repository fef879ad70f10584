"""Libra Guard, and any chat model that is asked with its prompt."""

from collections.abc import Mapping

from guard_runtime.conversation import Direction, Role
from guard_runtime.generative.families.family import (
    ANSWER,
    PROMPT,
    QUESTION,
    RESPONSE,
    WITH_ATTACK,
    Family,
    Message,
    Word,
)
from guard_runtime.generative.prompt import LIBRA_ANSWER, libra_message

_LIBRA_TURNS: Mapping[Direction, tuple[Message, ...]] = {
    PROMPT: (Message(Role.USER, libra_message("", ANSWER)),),
    RESPONSE: (Message(Role.USER, libra_message(QUESTION, ANSWER)),),
}


def _libra(name: str, *words: Word) -> Family:
    return Family(
        name=name,
        messages=_LIBRA_TURNS,
        questions=WITH_ATTACK,
        forced=LIBRA_ANSWER,
        words=words,
        risky=frozenset({"unsafe"}),
        json_key="答案",
        rationale='",\n  "分析": "',
    )


LIBRA_GUARD = _libra("libra_guard", Word("safe", "安全"), Word("unsafe", "不安全", first="不"))
"""`不安全` is two tokens, `不` then `安全`, and the first decides: P(不安全) = P(不) P(安全|不), and P(安全|不) ~ 1."""

INSTRUCT = _libra("instruct", Word("safe", "安全", first=None), Word("unsafe", "不安全", first=None))
"""Any chat model asked with Libra's prompt. In a small vocabulary either word may begin with a piece of a character."""
