"""The same guards behind an OpenAI-compatible server (vLLM, SGLang, llama.cpp), and another LibraGate's own guard."""

import json
import math
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp
import anyio

from guard_runtime.conversation import Direction
from guard_runtime.errors import GuardError, GuardFailed, GuardOverloaded, GuardTimeout
from guard_runtime.generative.families.family import ANSWER, QUESTION, Family, Word
from guard_runtime.generative.prompt import Label, Slot, words
from guard_runtime.generative.scoring import probability, spread, together
from guard_runtime.guard import OperatingPoints, Passage
from guard_runtime.guards.generative import parsed
from guard_runtime.guards.passage_guard import PassageGuard
from guard_runtime.serving.batcher import Priority
from guard_runtime.serving.breaker import Breaker
from guard_runtime.serving.verdict_cache import VerdictCache
from guard_runtime.verdict import CATEGORIES, Coverage, Verdict

MAX_REPLY = 1 << 20
FIRST_TOKENS = 24
"""Tokens asked for at first: enough for every family's words before its verdict."""

WRITTEN_TOKENS = 256
TOP = 20
HEALTH = 0.95
ROUNDING = 0.01
"""Probabilities that sum to more than this above 1 are not believed."""

_CONTROL = re.compile(r"<(?=[|/]?[A-Za-z_|][\w| .-]{0,40}>)|\[(?=/?INST\]|gMASK\])")


@dataclass(frozen=True, slots=True)
class Server:
    """`url` ends before `/chat/completions` or `/moderations`. `deadline` in seconds, for one passage in all: below the
    gateway's own, or the breaker never learns that the server does not answer. `queue`: passages in progress."""

    url: str
    model: str
    key: str = field(default="", repr=False)
    deadline: float = 8.0
    connections: int = 32
    queue: int = 512


class Dialogue(Protocol):
    """What is said to one kind of server, and what its answers mean."""

    @property
    def path(self) -> str: ...

    def question(self, passage: Passage, model: str) -> dict[str, Any]: ...

    def again(self, body: dict[str, Any], reply: Mapping[str, Any]) -> dict[str, Any] | None:
        """What to ask next where the reply does not decide; None where it does."""

    def verdict(self, name: str, passage: Passage, reply: Mapping[str, Any]) -> Verdict:
        """Raises `GuardFailed` for an answer that gives no verdict."""


@dataclass(frozen=True, slots=True)
class ChatGuard:
    """A guard family through `/chat/completions`. The verdict is read off the log-probabilities at the position where
    the family's words before it end; a server that gives none, or a guard that leaves its form, is read in words.

    `temperature` and `bias` calibrate log P(risky) - log P(safe). Families that ask several questions are not served
    this way: their questions need template variables no server takes in a standard way.
    """

    family: Family
    temperature: float = 1.0
    bias: float = 0.0
    path = "/chat/completions"

    def __post_init__(self) -> None:
        if self.family.heads or any(len(some) > 1 or some[0].variables for some in self.family.questions.values()):
            raise GuardFailed(f"family {self.family.name} is not served by a chat endpoint: export it")

    def question(self, passage: Passage, model: str) -> dict[str, Any]:
        filled = words(passage)
        messages = [
            {"role": message.role.value, "content": _filled(message.content, filled)}
            for message in self.family.messages[passage.direction]
        ]
        request = {"model": model, "messages": messages, "temperature": 0, "max_tokens": FIRST_TOKENS}
        return {**request, "logprobs": True, "top_logprobs": TOP, "stream": False}

    def again(self, body: dict[str, Any], reply: Mapping[str, Any]) -> dict[str, Any] | None:
        if body["max_tokens"] >= WRITTEN_TOKENS or self._margin(reply) is not None or self._read(reply) is not None:
            return None
        return {**body, "max_tokens": WRITTEN_TOKENS}

    def verdict(self, name: str, passage: Passage, reply: Mapping[str, Any]) -> Verdict:
        margin = self._margin(reply)
        if margin is not None:
            risk = probability(margin, self.temperature, self.bias)
        elif (label := self._read(reply)) is not None:
            risk = 1.0 if label.name in self.family.risky else 0.0
        else:
            raise GuardFailed(f"{name}: neither log-probabilities nor an answer that can be read")
        scores = together([spread(risk, self.family.questions[passage.direction][0].categories, {})])
        return Verdict(name, scores, (), Coverage(1, len(passage.text), 1))

    def _read(self, reply: Mapping[str, Any]) -> Label | None:
        labels = [Label(word.name, n, word.text) for n, word in enumerate(self.family.words)]
        return parsed(_content(reply), labels, self.family.json_key)

    def _margin(self, reply: Mapping[str, Any]) -> float | None:
        """log P(risky) - log P(safe) at the verdict's position, if the labels have all but 5 % of the probability."""
        before = ""
        for position in _positions(reply):
            shares = {word.name: 0.0 for word in self.family.words}
            if before.strip() == self.family.forced.strip():
                for text, logprob in _tops(position):
                    if (word := self._word(text)) is not None:
                        shares[word.name] += math.exp(logprob)
            if HEALTH <= sum(shares.values()) <= 1 + ROUNDING:
                return self._odds(shares)
            before += str(position.get("token", ""))
        return None

    def _word(self, text: str) -> Word | None:
        """The one label that begins with this token."""
        bare = text.strip()
        starts = [word for word in self.family.words if bare and word.text.strip().startswith(bare)]
        return starts[0] if len(starts) == 1 else None

    def _odds(self, shares: Mapping[str, float]) -> float:
        risky = sum(part for name, part in shares.items() if name in self.family.risky)
        safe = sum(part for name, part in shares.items() if name not in self.family.risky)
        return math.log(max(risky, 1e-12)) - math.log(max(safe, 1e-12))


@dataclass(frozen=True, slots=True)
class LibraGate:
    """Another LibraGate's guard, through its `/moderations`: a score for every category of ours, or a failure. It is
    told whether the text is a prompt or an answer, and must confirm that it judged it as such; it gives scores where
    its tenant's policy says `expose_scores: true`."""

    path = "/moderations"

    def question(self, passage: Passage, model: str) -> dict[str, Any]:
        told = {"direction": str(passage.direction)}
        if passage.direction is Direction.RESPONSE and passage.context:
            told["prompt"] = passage.context
        return {"model": model, "input": passage.text, "libragate": told}

    def again(self, body: dict[str, Any], reply: Mapping[str, Any]) -> dict[str, Any] | None:
        return None

    def verdict(self, name: str, passage: Passage, reply: Mapping[str, Any]) -> Verdict:
        try:
            (result,) = reply["results"]
            stored, direction = result["libragate"]["category_scores"], result["libragate"]["direction"]
            scores = {category: stored[category.value] for category in CATEGORIES}
        except (KeyError, TypeError, ValueError) as exc:
            advice = "is it LibraGate's, and does its policy say `expose_scores: true`?"
            raise GuardFailed(f"{name}: the reply has no score for every category ({exc!r}): {advice}") from exc
        if direction != passage.direction:
            raise GuardFailed(f"{name}: the text is a {passage.direction}, and the server judged it as something else")
        return Verdict(name, scores, (), Coverage(1, len(passage.text), 1))


class Remote:
    """A `Scorer` that asks another server about each passage. Every call has a deadline, redirects are refused, and
    after failures in a row the breaker answers at once. `queued` counts the calls under way."""

    def __init__(self, name: str, server: Server, dialogue: Dialogue, breaker: Breaker | None = None) -> None:
        self.name = name
        self.version = f"{server.model}@{dialogue.path}"
        self.operating_points: OperatingPoints = {}
        self.queued = 0
        self._server = server
        self._dialogue = dialogue
        self._breaker = breaker or Breaker()
        self._session: aiohttp.ClientSession | None = None

    @property
    def ready(self) -> bool:
        """Running, and not left alone: once the breaker's pause is over somebody must be let in to try."""
        return self._session is not None and self._breaker.ready

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Remote"]:
        connector = aiohttp.TCPConnector(limit=self._server.connections)
        headers = {"authorization": f"Bearer {self._server.key}"} if self._server.key else {}
        async with aiohttp.ClientSession(connector=connector, headers=headers, trust_env=False) as session:
            self._session = session
            try:
                yield self
            finally:
                self._session = None

    async def check(self, passage: Passage, priority: Priority = Priority.PROMPT) -> Verdict:
        """Raises `GuardTimeout` at the deadline, `GuardOverloaded` where the server says so, else `GuardFailed`."""
        del priority
        if self.queued >= self._server.queue:
            raise GuardOverloaded(f"{self.name}: {self.queued} passages are under way already")
        self._breaker.enter()
        self.queued += 1
        try:
            verdict = await self._within_deadline(passage)
        except GuardOverloaded:
            self._breaker.left()
            raise
        except GuardError:
            self._breaker.failed()
            raise
        except BaseException:
            self._breaker.left()
            raise
        finally:
            self.queued -= 1
        self._breaker.succeeded()
        return verdict

    async def _within_deadline(self, passage: Passage) -> Verdict:
        try:
            with anyio.fail_after(self._server.deadline):
                body: dict[str, Any] | None = self._dialogue.question(passage, self._server.model)
                while body is not None:
                    reply = await self._ask(body)
                    body = self._dialogue.again(body, reply)
        except TimeoutError as exc:
            raise GuardTimeout(f"{self.name}: no verdict within {self._server.deadline:g} s") from exc
        return self._dialogue.verdict(self.name, passage, reply)

    async def _ask(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._session is None:
            raise GuardFailed(f"{self.name}: is not running")
        url = self._server.url.rstrip("/") + self._dialogue.path
        try:
            async with self._session.post(url, json=body, allow_redirects=False) as response:
                if response.status == 429:
                    raise GuardOverloaded(f"{self.name}: the server asks for patience")
                if response.status != 200:
                    raise GuardFailed(f"{self.name}: the server answered {response.status}")
                content = await response.content.read(MAX_REPLY + 1)
                while len(content) <= MAX_REPLY and (more := await response.content.read(MAX_REPLY)):
                    content += more
        except (aiohttp.ClientError, OSError) as exc:
            raise GuardFailed(f"{self.name}: the server cannot be reached: {type(exc).__name__}") from exc
        return _object(self.name, content)


def load_remote(
    name: str, server: Server, dialogue: Dialogue, breaker: Breaker | None = None, *, cache_bytes: int = 16 << 20
) -> PassageGuard:
    """The guard behind this server, reading conversations. Nothing is asked of the server before the first check."""
    remote = Remote(name, server, dialogue, breaker)
    return PassageGuard(remote, remote, VerdictCache(cache_bytes, os.urandom(32)))


def _object(name: str, content: bytes) -> Mapping[str, Any]:
    if len(content) > MAX_REPLY:
        raise GuardFailed(f"{name}: the reply is larger than {MAX_REPLY} bytes")
    try:
        reply = json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise GuardFailed(f"{name}: the reply is not JSON") from exc
    if not isinstance(reply, dict):
        raise GuardFailed(f"{name}: the reply is not an object")
    return reply


def _filled(content: str, filled: Mapping[Slot, str]) -> str:
    for mark, slot in ((QUESTION, Slot.QUESTION), (ANSWER, Slot.ANSWER)):
        content = content.replace(mark, neutral(filled[slot]))
    return content


def neutral(text: str) -> str:
    """Text in which nothing reads as a control token. The server's tokenizer would take `<|im_end|>` for one: a
    zero-width space after the bracket makes it plain letters."""
    return _CONTROL.sub(lambda control: control.group() + "\u200b", text)


def _choice(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = reply.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _content(reply: Mapping[str, Any]) -> str:
    message = _choice(reply).get("message")
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""


def _positions(reply: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    logprobs = _choice(reply).get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    return [item for item in content if isinstance(item, dict)] if isinstance(content, list) else ()


def _tops(position: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Tokens and their log-probabilities: finite and at most 0, or they are not believed."""
    top = position.get("top_logprobs")
    pairs = [(item.get("token"), item.get("logprob")) for item in top if isinstance(item, dict)] if top else []
    return [
        (token, float(logprob))
        for token, logprob in pairs
        if isinstance(token, str) and isinstance(logprob, int | float) and math.isfinite(logprob) and logprob <= 1e-6
    ]
