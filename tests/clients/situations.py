"""The situations a caller can find itself in, a gateway in which each comes about, and what a caller saw, in words."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import orjson

from gateway.dialects.dialect import Json
from gateway.policy.policy import OnBlock
from guard_runtime.errors import GuardFailed
from guard_runtime.guards.scripted import ScriptedGuard
from guard_runtime.verdict import Category
from tests.clients.provider import Speaker
from tests.support.gateway_server import BAD, KEY, OTHER_KEY, Parts, blocking, served

GOOD = "A harmless answer, and a long one. "
FULL = GOOD * 12
REFUSAL = "Sorry, this content goes against the usage policy"


class Situation(StrEnum):
    ALLOWED = "allowed"
    PROMPT = "prompt blocked"
    COMPLETION = "prompt blocked, `on_block: completion`"
    ANSWER = "answer blocked"
    STREAM = "blocked mid-stream"
    DOWN = "guard down"
    DOWN_LATER = "guard down mid-stream"

    @property
    def prompt(self) -> str:
        """The request in which this comes about."""
        return _PROMPTS[self]

    @property
    def key(self) -> str:
        return OTHER_KEY if self is Situation.COMPLETION else KEY

    @property
    def streamed(self) -> bool:
        """Whether it comes about in streams alone."""
        return self in (Situation.STREAM, Situation.DOWN_LATER)


_PROMPTS: Mapping[Situation, str] = {
    Situation.ALLOWED: "Say hello.",
    Situation.PROMPT: "Say something forbidden.",
    Situation.COMPLETION: "Say something forbidden.",
    Situation.ANSWER: "Answer badly.",
    Situation.STREAM: "Begin well.",
    Situation.DOWN: "Say it in an outage.",
    Situation.DOWN_LATER: "Begin before it.",
}
_ANSWERS: Mapping[str, str] = {
    "Answer badly.": "A forbidden answer.",
    "Begin well.": FULL + "And then something forbidden. " + GOOD,
    "Begin before it.": FULL + "And then an outage. " + GOOD,
}


def _says(body: Json) -> str:
    asked = orjson.dumps(body).decode()
    return next((answer for prompt, answer in _ANSWERS.items() if prompt in asked), FULL)


def _script(text: str) -> Mapping[Category, float]:
    if "outage" in text:
        raise GuardFailed("out of order")
    return BAD(text)


def cases(calls: Iterable[str], streams: Collection[str]) -> list[tuple[str, Situation]]:
    """Every call with every situation it can meet."""
    return [(call, s) for call in calls for s in Situation if call in streams or not s.streamed]


@contextmanager
def gateway() -> Iterator[str]:
    """The address of a gateway with the model `m`, in which every situation comes about."""
    parts = Parts(
        guards=(ScriptedGuard(_script),),
        upstream=Speaker(_says),
        other_policy=blocking(on_block=OnBlock.COMPLETION),
    )
    with served(parts.gateway) as url:
        yield url


@dataclass(frozen=True, slots=True)
class Seen:
    """What one call gave its caller: the text (or a tool call's arguments, or a parsed object), the refusal, what it
    says of its end, the error that was raised."""

    text: str = ""
    refusal: str = ""
    end: str = ""
    error: str = ""

    def __str__(self) -> str:
        """A cell of reference/clients.md. Raises `AssertionError` for text that should not be there."""
        if "forbidden" in "".join((self.text, self.refusal, self.end, self.error)):
            raise AssertionError(f"a caller was told what was to be withheld: {self!r}")
        said = [_text(self.text), "the sentence in `refusal`" if self.refusal else ""]
        said += [self.end and f"`{self.end}`", self.error and f"raises `{self.error}`"]
        if self.refusal and not self.refusal.startswith(REFUSAL):
            raise AssertionError(f"no refusal of ours: {self.refusal!r}")
        return ", ".join(word for word in said if word) or "nothing"


def _text(text: str) -> str:
    plain = text.removeprefix('{"answer":').lstrip(' "').removesuffix('"}')
    if not text or plain in ("{}", "{"):
        return ""
    if plain.startswith(REFUSAL):
        return "the sentence as text"
    if plain == FULL:
        return "the answer"
    if len(plain) >= len(GOOD) and (FULL + "And then ").startswith(plain):
        return "the beginning"
    raise AssertionError(f"neither the answer nor a sentence of ours: {text!r}")
