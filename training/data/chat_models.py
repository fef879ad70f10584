"""Chat models by way of litellm: asked at a steady pace, each answer kept on disk, so that none is paid for twice."""

import hashlib
import importlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from training.data.rows import BadInput

RETRIES = 3
TIMEOUT = 120.0
"""Seconds for one answer."""

CHARACTERS_PER_TOKEN = 2.0
"""For estimates only: between English (about 4) and Chinese (about 1.5)."""


class CallFailed(Exception):
    """A model gave no answer; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Call:
    """One question to one model. `most` is the number of tokens its answer may have."""

    model: str
    system: str
    user: str
    most: int

    @property
    def key(self) -> str:
        """What makes two calls the same call."""
        return hashlib.sha256("\0".join((self.model, self.system, self.user, str(self.most))).encode()).hexdigest()


class Chat(Protocol):
    """Models that answer: litellm's, or a script."""

    def ask(self, call: Call) -> str:
        """The answer's text. Raises `CallFailed`."""

    def price(self, call: Call) -> float | None:
        """US dollars the call costs at most, by estimate; None where the model's price is not known."""


class LiteLLM:
    """Any model litellm knows, by its name there (`openai/gpt-4o-mini`, `ollama/qwen3`); keys from the environment."""

    def __init__(self) -> None:
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or importing it asks the network for prices
        try:
            self._litellm: ModuleType = importlib.import_module("litellm")
        except ImportError as exc:
            raise BadInput("chat models need litellm: pip install 'libragate[litellm]'") from exc

    def ask(self, call: Call) -> str:
        messages = [{"role": "system", "content": call.system}, {"role": "user", "content": call.user}]
        try:
            reply = self._litellm.completion(
                model=call.model, messages=messages, max_tokens=call.most, num_retries=RETRIES, timeout=TIMEOUT
            )
        except Exception as exc:  # what litellm raises shares no other base across its providers
            raise CallFailed(f"{call.model}: {type(exc).__name__}: {exc}") from exc
        said = reply.choices[0].message.content
        if not isinstance(said, str) or not said.strip():
            raise CallFailed(f"{call.model}: an answer without text")
        return said.strip()

    def price(self, call: Call) -> float | None:
        prices = self._litellm.model_cost
        known = prices.get(call.model) or prices.get(call.model.split("/", 1)[-1]) or {}
        asked, said = known.get("input_cost_per_token"), known.get("output_cost_per_token")
        if asked is None or said is None:
            return None
        tokens = (len(call.system) + len(call.user)) / CHARACTERS_PER_TOKEN
        return float(tokens * asked + call.most * said)


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds now, and waiting."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Pace:
    """At most so many calls a minute, evenly spread, whatever the number of threads."""

    def __init__(self, per_minute: float, clock: Clock) -> None:
        self._gap = 60 / per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self) -> None:
        """Returns when it is this caller's turn."""
        with self._lock:
            now = self._clock.now()
            turn = max(now, self._next)
            self._next = turn + self._gap
        if turn > now:
            self._clock.sleep(turn - now)


class Kept:
    """Answers by call, in a JSONL file that grows with every one: an interrupted run asks only what it has not asked.

    Raises BadInput when the file is not one of these.
    """

    def __init__(self, path: Path, chat: Chat, pace: Pace) -> None:
        self._path = path
        self._chat = chat
        self._pace = pace
        self._lock = threading.Lock()
        self._answers: dict[str, str] = dict(_lines(path))

    def __contains__(self, call: Call) -> bool:
        return call.key in self._answers

    def ask(self, call: Call) -> str:
        """The answer, from the file or else from the model. Raises `CallFailed`, which is not kept."""
        with self._lock:
            if call.key in self._answers:
                return self._answers[call.key]
        self._pace.wait()
        said = self._chat.ask(call)
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": call.key, "model": call.model, "said": said}, ensure_ascii=False) + "\n")
            self._answers[call.key] = said
        return said


def _lines(path: Path) -> Sequence[tuple[str, str]]:
    """What the file holds; a line that a crash cut off is removed from it."""
    if not path.exists():
        return ()
    *whole, cut = path.read_bytes().split(b"\n")
    if cut:
        path.write_bytes(b"\n".join([*whole, b""]))
    try:
        found: Sequence[Mapping[str, Any]] = [json.loads(line) for line in whole if line]
        return [(line["key"], line["said"]) for line in found]
    except (ValueError, KeyError, TypeError) as exc:
        raise BadInput(f"{path}: not a file of kept answers ({exc})") from exc
