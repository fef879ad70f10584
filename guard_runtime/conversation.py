"""What a guard reads: a conversation, whatever API it came in by."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

Path = tuple[str | int, ...]


class Direction(StrEnum):
    """Which way the words that are judged travel: to the model, or back to the caller."""

    PROMPT = "prompt"
    RESPONSE = "response"


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Kind(StrEnum):
    """What a piece of content is. A guard may read kinds differently; none may be skipped."""

    TEXT = "text"
    REASONING = "reasoning"
    REFUSAL = "refusal"
    NAME = "name"
    TOOL_DEFINITION = "tool_definition"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"
    SCHEMA = "schema"
    MEDIA = "media"
    SEAL = "seal"
    """What the provider has encrypted or signed for itself: it has no text."""


class Source(StrEnum):
    """What a text is to the model that will read it. What is harmful differs: giving orders is what a system
    prompt is for, in a document it is an attack."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"
    TOOL_DEFINITION = "tool_definition"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"
    DOCUMENT = "document"
    """Text that somebody pasted or retrieved, code too."""


def source_of(role: Role, kind: Kind) -> Source:
    """What a part of this kind is, in a turn of this role."""
    match kind:
        case Kind.TOOL_DEFINITION | Kind.SCHEMA:
            return Source.TOOL_DEFINITION
        case Kind.TOOL_CALL:
            return Source.TOOL_CALL
        case Kind.TOOL_RESULT:
            return Source.TOOL_RESULT
        case Kind.TEXT | Kind.REASONING | Kind.REFUSAL | Kind.NAME | Kind.MEDIA | Kind.SEAL:
            return _SPOKEN_BY[role]


class MediaKind(StrEnum):
    IMAGE = "image"
    AUDIO = "audio"
    FILE = "file"


_SPOKEN_BY: Mapping[Role, Source] = MappingProxyType(
    {
        Role.SYSTEM: Source.SYSTEM,
        Role.USER: Source.USER,
        Role.ASSISTANT: Source.ASSISTANT,
        Role.TOOL: Source.TOOL_RESULT,
    }
)


@dataclass(frozen=True, slots=True)
class Media:
    """What is in a part that is no text, where the body itself holds it: its MIME type, and its bytes in base64, to the
    letter as the model gets them. It is content: never logged. `read_by` names who has put it into words."""

    kind: MediaKind
    type: str
    data: str = field(repr=False)
    read_by: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a turn, and where it sits in the body.

    `text` is None where a text guard cannot read the piece (an image, a sound, an unknown field). Such a part is
    kept, never dropped: the policy's `on_unreadable` answers for it. A part of kind MEDIA with a text was read by a
    reader, or is a file of plain text; the text stands nowhere in the body.
    `path` leads to the string in the body. Where the string itself is JSON (tool-call arguments), the path goes on
    inside it behind the marker "$json": `("messages", 2, ..., "arguments", "$json", "city")`.
    `before` is what came before `text` in a piece that grows, and was judged then: a guard that remembers what it has
    read goes on from there, the others judge `text` alone.
    """

    path: Path
    text: str | None
    kind: Kind = Kind.TEXT
    media: Media | None = field(default=None, repr=False, compare=False)
    before: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Turn:
    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.parts if part.text)


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns in order. With direction PROMPT every turn is judged; with RESPONSE the last turn is judged, and the
    turns before it are context only. `scope` says whose it is: what a guard remembers of one scope's texts is used, and
    shows, in that scope alone."""

    turns: tuple[Turn, ...]
    direction: Direction = Direction.PROMPT
    scope: str = ""

    @property
    def judged(self) -> tuple[Part, ...]:
        """The parts that are judged, in order."""
        turns = self.turns if self.direction is Direction.PROMPT else self.turns[-1:]
        return tuple(part for turn in turns for part in turn.parts)

    @property
    def unreadable(self) -> tuple[Part, ...]:
        return tuple(part for part in self.judged if part.text is None and part.kind is not Kind.SEAL)

    @property
    def sealed(self) -> tuple[Part, ...]:
        """What only the provider can read."""
        return tuple(part for part in self.judged if part.kind is Kind.SEAL)

    @property
    def question(self) -> str:
        """What the caller asked last: the context an answer is judged in."""
        for turn in reversed(self.turns):
            if turn.role is Role.USER:
                return turn.text
        return ""

    def reply(self, *parts: Part) -> "Conversation":
        """This conversation with an assistant's answer at its end, to be judged."""
        return Conversation((*self.turns, Turn(Role.ASSISTANT, parts)), Direction.RESPONSE, self.scope)
