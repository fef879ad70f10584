"""The protocol of an API dialect: everything that depends on how one vendor's API is written."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.dialects.json_schema import NamedSchema
from gateway.dialects.request_fields import RequestFields
from gateway.errors import GatewayError
from gateway.policy.policy import Decision
from gateway.strict.strict_json import Json as Json
from guard_runtime.conversation import Conversation, Kind, Part

Channel = tuple[str | int, ...]
"""Which text a piece of a stream belongs to: the choice, the field, and for tool calls their index."""


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event, as the upstream sent it. `data` is None for the closing [DONE]."""

    data: Json | None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """What an event adds to one channel of the answer. `text` is None for something no guard can read (an unknown
    field): it is held, and the policy's `on_unreadable` applies."""

    channel: Channel
    text: str | None
    kind: Kind = Kind.TEXT


@dataclass(frozen=True, slots=True)
class Refusal:
    """A block or a rewrite (its decision's action says which), for a dialect to put into its format. `text` is what the
    caller reads; `id` and `created` (seconds since 1970) are for an answer that no model gave."""

    decision: Decision
    text: str
    id: str = ""
    created: int = 0
    code: str = "content_filter"
    results: Json | None = None
    """Azure's filter results, where they were asked for."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice of a plain answer: its place in the body's list, and its parts (paths into the body)."""

    position: int
    parts: tuple[Part, ...]


class Documented(Protocol):
    """What every endpoint says about itself; the published document is made of it."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str:
        """Where callers post, and where the upstream is asked."""

    @property
    def summary(self) -> str:
        """What it does, in a few words."""

    @property
    def error_schema(self) -> NamedSchema: ...

    def error(self, error: GatewayError) -> Json:
        """The body of a reply that reports an error."""


class Dialect(Documented, Protocol):
    @property
    def fields(self) -> RequestFields:
        """Every field of a request."""

    @property
    def azure(self) -> bool:
        """Whether it is also served under Azure's paths, which name the model."""

    @property
    def speaks(self) -> bool:
        """Whether an answer is text, so that it can hold a refusal."""

    @property
    def annotates(self) -> bool:
        """Whether its answers are choices, which can carry Azure's filter results."""

    @property
    def forwarded(self) -> frozenset[str]:
        """The headers of a request that its upstream needs: which version of the API is meant, and what of it."""

    def read_request(self, body: Json) -> Conversation:
        """Every string a model can see. Raises `BadRequest` naming the field that is wrong."""

    def read_answer(self, answer: Json, request: Json | None = None) -> tuple[Choice, ...]:
        """Every string a caller can receive, but for what only repeats the `request`. Raises `UpstreamError` when
        it is not an answer of this dialect."""

    def normalised(self, answer: Json) -> Json:
        """A plain answer, before it is read, with what the provider writes otherwise written as the API has it."""

    def choices(self, body: Json) -> int:
        """How many choices a request asks for."""

    def usage(self, data: Json) -> Json:
        """What an answer, or an event of a stream, says it has cost; empty where it says nothing."""

    def blocked_prompt(self, refusal: Refusal) -> Json:
        """The body of the 400 for a prompt that is blocked."""

    def completion(self, body: Json, refusal: Refusal) -> Json:
        """A whole 200 answer made of the refusal, for a prompt that never reached the model."""

    def refused(self, body: Json, answer: Json, position: int, refusal: Refusal) -> Json:
        """`answer` with that choice replaced by the refusal, the others untouched."""

    def instructed(self, body: Json, instruction: str) -> Json:
        """The request again for one answer, with the policy's instruction to the model at its end (`regenerate`)."""

    def with_choice(self, answer: Json, position: int, other: Json) -> Json:
        """`answer` with that choice taken from the first of `other`, its index kept; usage added up."""

    def streams(self, body: Json) -> bool: ...

    def stream(self, body: Json) -> "DialectStream": ...


class DialectStream(Protocol):
    """One streamed answer in this dialect. Remembers what has left, because that decides how it can end."""

    def normalised(self, event: Event) -> Event:
        """The event, before it is read, with what the provider writes otherwise written as the API has it."""

    def without(self, event: Event, unknown: Collection[Channel]) -> Event | None:
        """An event that was just read, without what these channels stand for: fields that nobody knows. None where
        nothing of it can be relayed."""

    def read(self, event: Event) -> Sequence[Delta]:
        """What an event adds. Raises `UpstreamError` when it is no event of this dialect; an event that carries the
        upstream's own error raises it as `UpstreamError` too."""

    def edited(self, event: Event, texts: Mapping[Channel, str]) -> Event:
        """The event as it leaves, with the text of these channels replaced. Called for every event in the order they
        leave, with no texts where nothing is replaced: where events repeat a text, they repeat it as it left."""

    def sent(self, event: Event) -> None:
        """Note an event that has left for the caller."""

    def begin(self, refusal: Refusal) -> Sequence[Event]:
        """A whole stream made of the refusal, for a prompt that never reached the model."""

    def stop(self, refusal: Refusal) -> Sequence[Event]:
        """Ends the stream for a block, given what the caller has received: closes each open choice, then sends usage if
        it was requested, then the dialect's terminator. A refusal whose code is not `content_filter` is an outage and
        ends with an error, never with a finish reason that means a verdict."""

    def replace(self, refusal: Refusal) -> Sequence[Event]:
        """Ends the stream with the safe message in place of the text that was held back."""

    def fail(self, error: GatewayError) -> Sequence[Event]:
        """Ends the stream after a failure of the upstream or a guard: the dialect's error, then its terminator."""

    def close(self) -> Sequence[Event]:
        """What a complete answer still lacks when the upstream ended without its terminator."""

    @property
    def finished(self) -> bool:
        """Whether the upstream has declared the answer complete."""
