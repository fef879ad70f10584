"""Earlier turns of a conversation: those that were let through before, and those that would be blocked now."""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace

from gateway.judging.judge import Judgement
from gateway.policy.policy import Action
from guard_runtime.conversation import Conversation, Part, Path, Role, Turn
from guard_runtime.guards.passage_guard import ReadLimits
from guard_runtime.serving.bounded_lru import BoundedLRU
from guard_runtime.serving.keyed_hash import keyed_hash

KEPT = 100_000
"""Turns one process remembers; the oldest go first. Some 10 MB."""

RECENT = 4
"""The last turns are judged in every request: guards read them joined, and a request may be split over them."""


class PassedTurns:
    """Turns that were judged and let through. Holds no text, only hashes of it, keyed with a secret of this process."""

    def __init__(self, kept: int = KEPT) -> None:
        self._key = secrets.token_bytes(32)
        self._turns: BoundedLRU[bytes, bool] = BoundedLRU(kept, lambda _: 1)

    def split(self, conversation: Conversation, scope: str) -> tuple[Conversation, tuple[Part, ...]]:
        """The conversation without those turns, before the last four, that were let through in this scope before; and
        their parts. What the user said shortly stays: guards read it joined, however far apart. `scope` says who asked,
        under which policy and which guards: another one knows none of them."""
        old, recent = conversation.turns[:-RECENT], conversation.turns[-RECENT:]
        passed = tuple(turn for turn in old if not _is_short(turn) and self._turns.get(self._digest(turn, scope)))
        if not passed:
            return conversation, ()
        turns = (*(turn for turn in old if turn not in passed), *recent)
        return replace(conversation, turns=turns), tuple(part for turn in passed for part in turn.parts)

    def add(self, conversation: Conversation, scope: str) -> None:
        """Every turn of a conversation that was let through, but for those with a part that nobody can read."""
        for turn in conversation.turns:
            if all(part.text is not None for part in turn.parts):
                self._turns.put(self._digest(turn, scope), True)

    def _digest(self, turn: Turn, scope: str) -> bytes:
        return keyed_hash(self._key, _fields(turn, scope))


def _is_short(turn: Turn) -> bool:
    return turn.role is Role.USER and any(len(part.text or "") <= ReadLimits().short for part in turn.parts)


def _fields(turn: Turn, scope: str) -> Iterator[bytes]:
    yield scope.encode()
    yield turn.role.encode()
    for part in turn.parts:
        yield part.kind.encode()
        yield b"" if part.text is None else b"+" + part.text.encode("utf-8", "surrogatepass")


def offending_parts(judgement: Judgement, conversation: Conversation) -> tuple[Part, ...]:
    """The parts of earlier turns, before the last thing the user said, that a blocked prompt is blocked for; () where
    anything else blocks it too, or a guard does not say where. Where the last turns block it only when they are read
    joined, what the user said in the earlier ones of them."""
    earlier = {part.path: part for turn in _earlier(conversation) for part in turn.parts}
    offending: dict[Path, Part] = {}
    for decision in judgement.decisions:
        if decision.action is not Action.BLOCK:
            continue
        if decision.window is None:
            return ()
        path = decision.window.path
        parts = {path: earlier[path]} if path in earlier else _joined(conversation, earlier) if path == () else {}
        if not parts:
            return ()
        offending |= parts
    return tuple(offending.values())


def _joined(conversation: Conversation, earlier: Mapping[Path, Part]) -> dict[Path, Part]:
    user_parts = (part for turn in conversation.turns[-RECENT:] if turn.role is Role.USER for part in turn.parts)
    return {part.path: part for part in user_parts if part.path in earlier}


def _earlier(conversation: Conversation) -> tuple[Turn, ...]:
    """The turns before the user's last; leading system turns are no part of the history."""
    users = [number for number, turn in enumerate(conversation.turns) if turn.role is Role.USER]
    first = next((number for number, turn in enumerate(conversation.turns) if turn.role is not Role.SYSTEM), 0)
    return conversation.turns[first : users[-1]] if users else ()


def without(conversation: Conversation, parts: tuple[Part, ...]) -> Conversation:
    """The conversation without these parts."""
    turns = (Turn(turn.role, tuple(part for part in turn.parts if part not in parts)) for turn in conversation.turns)
    return replace(conversation, turns=tuple(turn for turn in turns if turn.parts))
