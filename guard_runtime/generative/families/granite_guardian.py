"""Granite Guardian, which is asked about one risk at a time."""

from collections.abc import Mapping
from types import MappingProxyType

from guard_runtime.conversation import Direction
from guard_runtime.generative.families.family import HARMS, PROMPT, RESPONSE, TURNS, Categories, Family, Question, Word
from guard_runtime.verdict import Category as C

_GRANITE_RISKS: Mapping[str, Categories] = {
    "harm": HARMS,
    "social_bias": (C.BIAS_AND_DISCRIMINATION,),
    "violence": (C.ILLEGAL_ACTIVITIES_AND_CRIME,),
    "profanity": (C.HATE_SPEECH_AND_ABUSE,),
    "unethical_behavior": (C.ETHICS_AND_MORALITY,),
}


def _risks(key: str) -> Mapping[Direction, tuple[Question, ...]]:
    risks = {**_GRANITE_RISKS, "jailbreak": (C.PROMPT_ATTACK,)}
    questions = tuple(
        Question(name, about, {"guardian_config": {key: name}, "think": False}) for name, about in risks.items()
    )
    return MappingProxyType({PROMPT: questions, RESPONSE: questions[:-1]})


GRANITE_GUARDIAN = Family(
    name="granite_guardian",
    messages=TURNS,
    questions=_risks("risk_name"),
    forced="",
    words=(Word("Yes", "Yes"), Word("No", "No")),
    risky=frozenset({"Yes"}),
)
GRANITE_GUARDIAN_3_3 = Family(
    name="granite_guardian_3_3",
    messages=TURNS,
    questions=_risks("criteria_id"),
    forced="<think>\n</think>\n<score>",
    words=(Word("yes", " yes"), Word("no", " no")),
    risky=frozenset({"yes"}),
)
