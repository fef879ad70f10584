"""Llama Guard 3 and 4."""

from collections.abc import Mapping

from guard_runtime.generative.families.family import (
    PROMPT,
    RESPONSE,
    TURNS,
    WITH_ATTACK,
    Categories,
    Family,
    Kinds,
    Word,
)
from guard_runtime.verdict import Category as C

_LLAMA_CODES: Mapping[str, Categories] = {
    "1": (C.ILLEGAL_ACTIVITIES_AND_CRIME,),
    "2": (C.ILLEGAL_ACTIVITIES_AND_CRIME,),
    "3": (C.ILLEGAL_ACTIVITIES_AND_CRIME,),
    "4": (C.ILLEGAL_ACTIVITIES_AND_CRIME,),
    "5": (C.RUMORS_AND_MISINFORMATION, C.HATE_SPEECH_AND_ABUSE),
    "6": (C.RUMORS_AND_MISINFORMATION,),
    "7": (C.PRIVACY_AND_PROPERTY,),
    "8": (C.PRIVACY_AND_PROPERTY,),
    "9": (C.ILLEGAL_ACTIVITIES_AND_CRIME,),
    "10": (C.HATE_SPEECH_AND_ABUSE, C.BIAS_AND_DISCRIMINATION),
    "11": (C.PHYSICAL_AND_MENTAL_HEALTH,),
    "12": (C.ILLEGAL_ACTIVITIES_AND_CRIME, C.ETHICS_AND_MORALITY),
    "13": (C.RUMORS_AND_MISINFORMATION,),
    "14": (C.PROMPT_ATTACK,),
}
_LLAMA_KINDS = Kinds("unsafe\nS", tuple(Word(f"S{code}", code) for code in _LLAMA_CODES), {
    f"S{code}": categories for code, categories in _LLAMA_CODES.items()
})  # fmt: skip


def _llama(name: str) -> Family:
    """Llama Guard first writes two newlines when its template leaves them out: they are forced."""
    return Family(
        name=name,
        messages=TURNS,
        questions=WITH_ATTACK,
        forced="\n\n",
        words=(Word("safe", "safe"), Word("unsafe", "unsafe")),
        risky=frozenset({"unsafe"}),
        kinds={PROMPT: _LLAMA_KINDS, RESPONSE: _LLAMA_KINDS},
    )


LLAMA_GUARD_3, LLAMA_GUARD_4 = _llama("llama_guard_3"), _llama("llama_guard_4")
