"""What every client program does: read what is to be asked, ask it by each call, print what came of it, a JSON line
each. It knows nothing of the gateway: a program runs where only its client is installed."""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

Seen = dict[str, str]
"""`text`, `refusal`, `end`, `error`: tests/clients/situations.py."""


def run(calls: Mapping[str, Callable[[str, str, str], Seen]]) -> None:
    """`calls` take the gateway's address, a key and a prompt. Asked is, on standard input: {"url", "asked": [{"key",
    "prompt", "situation", "streamed"}]}, `streamed` being what only streams can meet."""
    given = json.load(sys.stdin)
    for call, ask in calls.items():
        for asked in given["asked"]:
            if asked["streamed"] and "stream" not in call:
                continue
            seen = ask(given["url"], asked["key"], asked["prompt"])
            sys.stdout.write(json.dumps({"call": call, "situation": asked["situation"], **seen}) + "\n")


def named(exc: BaseException) -> str:
    """The exception as its catcher tells it from others: its class, its status, its code."""
    found: Any = getattr(exc, "body", None)
    fields = found if isinstance(found, dict) else {}
    parts = (getattr(exc, "status_code", None), getattr(exc, "code", None) or fields.get("code"))
    return " ".join(map(str, (type(exc).__name__, *(part for part in parts if part))))
