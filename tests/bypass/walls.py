"""What every test here needs: doors with a place for one text each, an upstream that says exactly what it is told, and
everything that reached the caller, read as a client would read it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import httpx
import orjson

from gateway.dialects.dialect import Event
from gateway.upstreams.upstream import Pause, Scripted, Step
from guard_runtime.guard import OperatingPoints, Passage
from guard_runtime.guards.passage_guard import PassageGuard
from guard_runtime.serving.batcher import Batcher
from guard_runtime.serving.verdict_cache import VerdictCache
from guard_runtime.verdict import CATEGORIES, Coverage, Verdict
from tests.support.gateway_server import CRIME, KEY

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES, EMBEDDINGS = "/v1/messages", "/v1/embeddings"
BAD_WORD = "forbidden"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
Json = dict[str, Any]


def asking(content: Any, **fields: Any) -> Json:
    """A chat request whose user says this."""
    return {"model": "m", "messages": [{"role": "user", "content": content}], **fields}


def after(*turns: Json, **fields: Any) -> Json:
    """A chat request of a greeting and these turns."""
    return {"model": "m", "messages": [*HELLO, *turns], **fields}


DOORS: Mapping[str, Json] = {
    CHAT: asking("something forbidden"),
    COMPLETIONS: {"model": "m", "prompt": "something forbidden"},
    RESPONSES: {"model": "m", "input": "something forbidden"},
    f"{RESPONSES}/compact": {"model": "m", "input": "something forbidden"},
    MESSAGES: {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "something forbidden"}]},
    f"{MESSAGES}/count_tokens": {"model": "m", "messages": [{"role": "user", "content": "something forbidden"}]},
    EMBEDDINGS: {"model": "m", "input": "something forbidden"},
    "/openai/deployments/m/chat/completions": asking("something forbidden"),
    "/openai/deployments/m/completions": {"model": "m", "prompt": "something forbidden"},
}
"""Every path that is served, with a request that a guard must stop."""


def post(url: str, body: Any, path: str = CHAT, key: str = KEY, **headers: str) -> httpx.Response:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    told = {"authorization": f"Bearer {key}", "content-type": "application/json", **headers}
    return httpx.post(f"{url}{path}", content=data, headers=told, timeout=60, verify=False)


def code(answer: httpx.Response) -> tuple[int, str]:
    """The status and the error's code: `content_filter` says that a guard has read it."""
    return answer.status_code, answer.json()["error"]["code"]


def plain(*choices: Json, **fields: Any) -> Scripted:
    """An upstream whose plain answer has these choices."""
    head = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", **fields}
    listed = [{"index": i, "finish_reason": "stop", **choice} for i, choice in enumerate(choices)]
    return Scripted("plain", lambda body: {**head, "choices": listed}, lambda body: [])


def message(content: Any = None, **fields: Any) -> Json:
    return {"message": {"role": "assistant", "content": content, **fields}}


def chunk(delta: Json, index: int = 0, finish: str | None = None, **fields: Any) -> Event:
    choice = {"index": index, "delta": delta, "finish_reason": finish, **fields}
    return Event({"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]})


def said(text: str, size: int = 1, index: int = 0, field: str = "content") -> list[Step]:
    """The chunks that say it, so many characters at a time."""
    return [chunk({field: text[i : i + size]}, index) for i in range(0, len(text), size)]


def streaming(*steps: Step, done: bool = True) -> Scripted:
    """An upstream that streams these steps, then the end of choice 0 and [DONE] unless told otherwise."""
    script = [*steps, *([chunk({}, finish="stop"), Event(None)] if done else [])]
    return Scripted("streaming", lambda body: {}, lambda body: dripped(script))


def dripped(steps: Iterable[Step]) -> Iterator[Step]:
    """Each event in a turn of the loop of its own, so that the gate works between them, as it does behind a socket."""
    for step in steps:
        yield step
        if isinstance(step, Event):
            yield Pause(0)


def events(raw: str) -> list[Json]:
    """The data of each event that reached the caller, [DONE] aside."""
    lines = [line.removeprefix("data: ") for line in raw.splitlines() if line.startswith("data: ")]
    return [orjson.loads(line) for line in lines if line != "[DONE]"]


def heard(raw: str) -> str:
    """Every string of every choice that reached the caller, the pieces of each field put together again."""
    fields: dict[tuple[Any, ...], str] = {}
    for event in events(raw):
        for choice in event.get("choices") or ():
            for path, text in _strings(choice, (choice.get("index"),)):
                fields[path] = fields.get(path, "") + text
    return "\n".join(fields.values())


def _strings(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    match value:
        case str():
            yield path, value
        case dict():
            for key, inner in value.items():
                yield from _strings(inner, (*path, key))
        case list():
            for i, inner in enumerate(value):
                yield from _strings(inner, (*path, i))


def finishes(raw: str) -> list[tuple[int, str]]:
    """Which choice was closed how, in order."""
    choices = [choice for event in events(raw) for choice in event.get("choices") or ()]
    return [(choice["index"], choice["finish_reason"]) for choice in choices if choice.get("finish_reason")]


class WordModel:
    """A guard's model that knows one word, behind the same reader, batcher and cache as a real one."""

    name = "words"

    def __init__(self, word: str = BAD_WORD, version: str = "1") -> None:
        self.version = version
        self.operating_points: OperatingPoints = {}
        self.batches: list[str] = []
        self._word = word

    def predict(self, batch: Sequence[Passage]) -> Sequence[Verdict]:
        self.batches += [passage.text for passage in batch]
        return [self._verdict(passage.text) for passage in batch]

    def _verdict(self, text: str) -> Verdict:
        scores = dict.fromkeys(CATEGORIES, 0.0) | {CRIME: 0.99 * (self._word in text)}
        return Verdict(self.name, scores, (), Coverage(1, len(text), 1))

    def guard(self, cache: VerdictCache | None = None) -> PassageGuard:
        return PassageGuard(
            self, Batcher(self, name=self.name), VerdictCache(1 << 20, b"tests") if cache is None else cache
        )
