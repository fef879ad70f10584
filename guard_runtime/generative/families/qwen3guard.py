"""Qwen3Guard: one model that writes its verdict, and one that judges every token."""

from collections.abc import Mapping

from guard_runtime.generative.families.family import (
    HARMS,
    PROMPT,
    RESPONSE,
    TURNS,
    WITH_ATTACK,
    Categories,
    Family,
    Head,
    Kinds,
    Word,
    once,
)
from guard_runtime.verdict import CATEGORIES
from guard_runtime.verdict import Category as C

_QWEN_KINDS: Mapping[str, Categories] = {
    "Violent": (C.ILLEGAL_ACTIVITIES_AND_CRIME,),
    "Non-violent Illegal Acts": (C.ILLEGAL_ACTIVITIES_AND_CRIME,),
    "Sexual Content or Sexual Acts": (C.ILLEGAL_ACTIVITIES_AND_CRIME,),
    "PII": (C.PRIVACY_AND_PROPERTY,),
    "Suicide & Self-Harm": (C.PHYSICAL_AND_MENTAL_HEALTH,),
    "Unethical Acts": (C.ETHICS_AND_MORALITY, C.BIAS_AND_DISCRIMINATION, C.HATE_SPEECH_AND_ABUSE),
    "Politically Sensitive Topics": (C.RUMORS_AND_MISINFORMATION,),
    "Copyright Violation": (C.PRIVACY_AND_PROPERTY,),
    "Jailbreak": (C.PROMPT_ATTACK,),
    "None": (),
}
_QWEN_FIRST: Mapping[str, str] = {
    "Violent": " Viol",
    "Non-violent Illegal Acts": " Non",
    "Sexual Content or Sexual Acts": " Sexual",
    "PII": " P",
    "Suicide & Self-Harm": " Suicide",
    "Unethical Acts": " Un",
    "Politically Sensitive Topics": " Polit",
    "Copyright Violation": " Copyright",
    "Jailbreak": " Jail",
    "None": " None",
}


def _qwen_kinds(*, jailbreak: bool) -> Kinds:
    names = [name for name in _QWEN_KINDS if jailbreak or name != "Jailbreak"]
    return Kinds(
        forced=" Unsafe\nCategories:",
        words=tuple(Word(name, f" {name}", first=_QWEN_FIRST[name]) for name in names),
        categories={name: _QWEN_KINDS[name] for name in names},
    )


QWEN3GUARD_GEN = Family(
    name="qwen3guard_gen",
    messages=TURNS,
    questions=WITH_ATTACK,
    forced="Safety:",
    words=(Word("Safe", " Safe"), Word("Unsafe", " Unsafe"), Word("Controversial", " Controversial", first=" Cont")),
    risky=frozenset({"Unsafe", "Controversial"}),
    kinds={PROMPT: _qwen_kinds(jailbreak=True), RESPONSE: _qwen_kinds(jailbreak=False)},
    generation_prompt=False,
)

_STREAM_RISKS = ("Safe", "Unsafe", "Controversial")
_STREAM_KINDS = tuple(
    _QWEN_KINDS[name]
    for name in (
        "Violent",
        "Sexual Content or Sexual Acts",
        "Suicide & Self-Harm",
        "Politically Sensitive Topics",
        "PII",
        "Copyright Violation",
        "Non-violent Illegal Acts",
        "Unethical Acts",
    )
)
STREAM_RUN = 2
"""Qwen3Guard-Stream's published reading of an answer: unsafe once two tokens in a row are (QwenLM/Qwen3Guard,
eval/eval_stream.py, `consecutive_unsafe`). A prompt is read at one token, the last of the user's turn."""

QWEN3GUARD_STREAM = Family(
    name="qwen3guard_stream",
    messages=TURNS,
    questions={
        PROMPT: once(CATEGORIES, enable_thinking=False),
        RESPONSE: once(HARMS, enable_thinking=False),
    },
    forced="",
    words=(),
    risky=frozenset({"Unsafe", "Controversial"}),
    generation_prompt=False,
    heads={
        RESPONSE: Head("", _STREAM_RISKS, _STREAM_KINDS, STREAM_RUN),
        PROMPT: Head("query_", _STREAM_RISKS, (*_STREAM_KINDS, _QWEN_KINDS["Jailbreak"]), 1),
    },
)
