"""A prompt as its policy has it judged: what is trusted, what was judged before, what earlier turns are left out."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from gateway.dialects.dialect import Json
from gateway.judging.history import PassedTurns, offending_parts, without
from gateway.judging.judge import Judgement
from gateway.judging.media import MediaReaders
from gateway.judging.rewrites import CannotMask, edited
from gateway.judging.trust import split_trusted
from gateway.policy.sources import BlockedTurn, History, Sources
from guard_runtime.conversation import Conversation, Direction, Kind, Part

MOST_DROPPED = 16
"""How often a prompt is judged again without an earlier turn that blocks it."""
DROPPED = {"zh": "[此前的内容已移除]", "en": "[earlier content removed]"}


class Seen(StrEnum):
    """What became of a piece of content: guards read it, a policy trusts it, it was let through in an earlier request,
    it would have blocked this one and was taken out or not judged, no guard could read it, or only the provider can."""

    SCANNED = "scanned"
    JUDGED_BEFORE = "judged before"
    DROPPED = "dropped"
    IGNORED = "ignored"
    TRUSTED = "trusted"
    UNREAD = "unread"
    SEALED = "sealed"


def seen_as(text: str | None, kind: Kind) -> Seen:
    """What became of a piece that was given to the guards."""
    if kind is Kind.SEAL:
        return Seen.SEALED
    return Seen.UNREAD if text is None else Seen.SCANNED


@dataclass(frozen=True, slots=True)
class PromptRequest:
    """What was asked, and how its policy reads it. `scope` says who asks, under which policy and guards; `language` is
    the one in which the model is told that something was taken out; the leading system prompt of this dialect stands in
    one of `system_fields`."""

    conversation: Conversation
    body: Json
    sources: Sources
    language: str
    scope: str
    system_fields: frozenset[str]


@dataclass(frozen=True, slots=True)
class JudgedPrompt:
    """What was judged of a request, and the body that it stands in. `dropped`: how often something was taken out of an
    earlier turn."""

    conversation: Conversation
    judgement: Judgement
    body: Json
    dropped: int = 0


class PromptNotes(Protocol):
    """Is told what becomes of a prompt while it is judged."""

    def saw(self, direction: Direction, parts: Sequence[Part], how: Seen = Seen.SCANNED) -> None:
        """What became of these parts."""

    def judged(self, judgement: Judgement) -> None: ...

    def judge_again(self) -> None:
        """The last judgement does not count: a smaller prompt is judged in its place."""


class PromptJudge:
    """Judges prompts as their policies say, and remembers the turns that were let through."""

    def __init__(self, readers: MediaReaders) -> None:
        self._readers = readers
        self._passed = PassedTurns()

    async def judge(
        self, request: PromptRequest, ask: Callable[[Conversation], Awaitable[Judgement]], notes: PromptNotes
    ) -> JudgedPrompt:
        """The prompt without what its policy trusts, without earlier turns that were let through before, and without
        earlier turns that would block it, where the policy says that they are not to. `ask` has the guards judge."""
        conversation, trusted = split_trusted(request.conversation, request.sources.trusted, request.system_fields)
        notes.saw(Direction.PROMPT, trusted, Seen.TRUSTED)
        if request.sources.history is History.ONCE:
            conversation, passed = self._passed.split(conversation, request.scope)
            notes.saw(Direction.PROMPT, passed, Seen.JUDGED_BEFORE)
        conversation = await self._readers.read(conversation)
        notes.saw(Direction.PROMPT, conversation.judged)
        judgement = await ask(conversation)
        notes.judged(judgement)
        prompt = JudgedPrompt(conversation, judgement, request.body)
        if request.sources.blocked_turn is BlockedTurn.BLOCK:
            return prompt
        return await _without_blocked_turns(prompt, request, ask, notes)

    def let_through(self, conversation: Conversation, scope: str) -> None:
        """This prompt went on to the model."""
        self._passed.add(conversation, scope)


async def _without_blocked_turns(
    prompt: JudgedPrompt,
    request: PromptRequest,
    ask: Callable[[Conversation], Awaitable[Judgement]],
    notes: PromptNotes,
) -> JudgedPrompt:
    for _ in range(MOST_DROPPED):
        smaller = _without_offending(prompt, request)
        if smaller is None:
            break
        conversation, parts, body = smaller
        edits = body is not prompt.body
        notes.saw(Direction.PROMPT, parts, Seen.DROPPED if edits else Seen.IGNORED)
        notes.judge_again()
        judgement = await ask(conversation)
        notes.judged(judgement)
        prompt = JudgedPrompt(conversation, judgement, body, prompt.dropped + edits)
    return prompt


def _without_offending(
    prompt: JudgedPrompt, request: PromptRequest
) -> tuple[Conversation, tuple[Part, ...], Json] | None:
    """The prompt without the parts of earlier turns that block it, those parts, and the body, where the policy drops
    them without their text. None where nothing of the kind blocks it, or their text cannot be replaced."""
    parts = offending_parts(prompt.judgement, prompt.conversation)
    if not parts:
        return None
    body = prompt.body
    if request.sources.blocked_turn is BlockedTurn.DROP:
        originals = {part.path: part.text or "" for part in parts}
        note = DROPPED.get(request.language, DROPPED["en"])
        try:
            body = edited(body, dict.fromkeys(originals, note), originals)
        except CannotMask:
            return None
    return without(prompt.conversation, parts), parts, body
