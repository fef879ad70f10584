"""What is known of a guard family, and the pieces that several of them share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from guard_runtime.conversation import Direction, Role
from guard_runtime.verdict import CATEGORIES, Category

QUESTION = "\ue000question\ue000"
ANSWER = "\ue000answer\ue000"
"""Marks that stand for the untrusted words while a template is rendered: private-use characters, which no checkpoint's
template contains."""


Categories = tuple[Category, ...]
HARMS: Categories = tuple(category for category in CATEGORIES if category is not Category.PROMPT_ATTACK)


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Word:
    """An answer as the guard writes it after the forced prefix. `first` is what the first token of it must read (the
    whole word unless given; None where it is a piece of a character and only its being unlike the others counts)."""

    name: str
    text: str
    first: str | None = ""

    @property
    def expected(self) -> str | None:
        return self.text if self.first == "" else self.first


@dataclass(frozen=True, slots=True)
class Kinds:
    """The second question: what is forced after the verdict, and which word means which harms."""

    forced: str
    words: tuple[Word, ...]
    categories: Mapping[str, Categories]


@dataclass(frozen=True, slots=True)
class Question:
    """One rendering of the template: its variables (a risk, a guideline), and the harms this one is about."""

    name: str
    categories: Categories
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Head:
    """What a guard's own head says about a token: one of `risks`, and of which of `kinds`, in the order of its outputs.
    `prefix` begins the names of its weights. A flag takes `run` risky tokens in a row."""

    prefix: str
    risks: tuple[str, ...]
    kinds: tuple[Categories, ...]
    run: int


@dataclass(frozen=True, slots=True)
class Family:
    """A published guard's contract, as its model card and code give it.

    `messages` go through the checkpoint's own chat template (`wrapper` where the family brings its own); `forced` is
    what the guard always says before its verdict, so that the verdict is one token; `risky` names the words that mean
    unsafe when reading strictly. `published` tells how the whole answer reads, for the generate-and-parse fallback:
    a JSON key, or "" where the answer is found by its words. `heads`: those of a guard that writes nothing and
    classifies every token instead.
    """

    name: str
    messages: Mapping[Direction, tuple[Message, ...]]
    questions: Mapping[Direction, tuple[Question, ...]]
    forced: str
    words: tuple[Word, ...]
    risky: frozenset[str]
    kinds: Mapping[Direction, Kinds] = field(default_factory=dict)
    wrapper: str = ""
    generation_prompt: bool = True
    json_key: str = ""
    rationale: str = ""
    heads: Mapping[Direction, Head] = field(default_factory=dict)


def once(categories: Categories = HARMS, **variables: object) -> tuple[Question, ...]:
    return (Question("harm", categories, variables),)


PROMPT, RESPONSE = Direction.PROMPT, Direction.RESPONSE
_USER = (Message(Role.USER, QUESTION),)
TURNS: Mapping[Direction, tuple[Message, ...]] = {
    PROMPT: _USER,
    RESPONSE: (*_USER, Message(Role.ASSISTANT, ANSWER)),
}
"""Question and answer as the turns of a chat, for a template of the checkpoint's own."""

WITH_ATTACK: Mapping[Direction, tuple[Question, ...]] = {PROMPT: once(CATEGORIES), RESPONSE: once(HARMS)}
"""One question about everything; only a prompt can be an attack."""
