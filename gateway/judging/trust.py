"""What a policy lets through unread because the tenant wrote it: its own system prompt, its own tool definitions."""

from collections.abc import Iterator
from dataclasses import replace

from gateway.policy.sources import Trusted
from guard_runtime.conversation import Conversation, Kind, Part, Role, Turn

_DEFINITIONS = frozenset({Kind.TOOL_DEFINITION, Kind.SCHEMA})


def split_trusted(
    conversation: Conversation, trust: frozenset[Trusted], system_fields: frozenset[str]
) -> tuple[Conversation, tuple[Part, ...]]:
    """Splits off the parts the policy trusts: the conversation that is still to be judged, and those parts.

    Only the system turns before the first other turn can be trusted, and only text in the dialect's `system_fields`: a
    system message further on may have come from anywhere, as may tool results and messages said to be the model's."""
    if not trust:
        return conversation, ()
    trusted = tuple(_trusted(conversation, trust, system_fields))
    turns = (Turn(turn.role, tuple(p for p in turn.parts if p not in trusted)) for turn in conversation.turns)
    return replace(conversation, turns=tuple(turn for turn in turns if turn.parts)), trusted


def _trusted(conversation: Conversation, trust: frozenset[Trusted], system_fields: frozenset[str]) -> Iterator[Part]:
    leading = True
    for turn in conversation.turns:
        leading = leading and turn.role is Role.SYSTEM
        for part in turn.parts:
            instruction = leading and part.kind is Kind.TEXT and part.path[0] in system_fields
            if (instruction and Trusted.SYSTEM in trust) or (part.kind in _DEFINITIONS and Trusted.TOOLS in trust):
                yield part
