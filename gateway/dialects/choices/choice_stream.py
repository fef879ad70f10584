"""A stream of choices, as chat and completions send it: reads its chunks, and ends it in every way the API allows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from gateway.dialects.choices.choices import ANSWER_KNOWN, ANSWER_NAMES, BESIDE, NO_USAGE
from gateway.dialects.dialect import Channel, Delta, Event, Json, Refusal
from gateway.dialects.fields import (
    MAX_INDEX,
    is_index,
    only_names,
    provider_failed,
    require_event_name,
    strings,
    unread,
)
from gateway.dialects.openai_errors import error_body
from gateway.errors import GatewayError, GuardUnavailable, UpstreamError
from guard_runtime.conversation import Kind

STAMP = frozenset({"id", "object", "created", "model", "system_fingerprint", "service_tier"})


class ChoiceFormat(Protocol):
    """How one choice of a chunk is written."""

    def read(self, choice: Json, index: int) -> Iterator[Delta]: ...

    def edited(self, choice: Json, index: int, texts: Mapping[Channel, str]) -> Json: ...

    def refusal_fields(self, refusal: Refusal, *, begun: bool) -> Json:
        """The fields of a choice with the refusal. `begun`: the caller has received something of this choice."""

    def closing_fields(self) -> Json:
        """The fields of a choice without further text."""


class ChoiceStream:
    """`expected` choices are open until their finish reason has left for the caller. `stamp` holds the fields of every
    chunk (id, model) until the upstream has sent its own."""

    def __init__(self, format: ChoiceFormat, stamp: Json, *, expected: int, usage: bool) -> None:
        self._format = format
        self._stamp = dict(stamp)
        self._open = set(range(expected))
        self._waiting = set(range(expected))
        self._begun: set[int] = set()
        self._closed: set[int] = set()
        self._wants_usage = usage
        self._usage: Json | None = None
        self._usage_sent = False
        self._done_sent = False

    @property
    def finished(self) -> bool:
        return not self._waiting

    def read(self, event: Event) -> Sequence[Delta]:
        if event.data is None:
            return ()
        if event.data.get("error") is not None:
            raise provider_failed(event.data["error"])
        require_event_name(event.name, None)
        if isinstance(event.data.get("usage"), Mapping) and only_names(event.data["usage"]):
            self._usage = event.data["usage"]
        deltas = [Delta(("chunk", key), None) for key in unread(event.data, ANSWER_KNOWN, ANSWER_NAMES)]
        deltas += joined_texts(event.data, dict.fromkeys(BESIDE, Kind.TEXT), ("chunk",))
        indices: set[int] = set()
        for choice in objects(event.data.get("choices"), "choices"):
            index = choice.get("index")
            if not is_index(index):
                raise UpstreamError(f"The model's provider sent a choice without an index from 0 to {MAX_INDEX - 1}.")
            if index in indices:
                raise UpstreamError(f"The model's provider sent choice {index} twice in one chunk.")
            indices.add(index)
            deltas += self._format.read(choice, index)
            if choice.get("finish_reason") is not None:
                self._waiting.discard(index)
        return deltas

    def edited(self, event: Event, texts: Mapping[Channel, str]) -> Event:
        if event.data is None or not texts:
            return event
        choices = [self._format.edited(choice, choice["index"], texts) for choice in event.data.get("choices") or ()]
        kept = {key: value for key, value in event.data.items() if ("chunk", key) not in texts}
        return Event({**kept, "choices": choices}, event.name)

    def sent(self, event: Event) -> None:
        if event.data is None:
            self._done_sent = True
            return
        self._stamp |= {key: value for key, value in event.data.items() if key in STAMP and only_names(value)}
        choices = event.data.get("choices")
        if event.data.get("usage") and not choices:
            self._usage_sent = True
        for choice in choices or ():
            index = choice["index"]
            self._begun.add(index)
            if choice.get("finish_reason") is not None:
                self._closed.add(index)
        self._open = (self._open | self._begun) - self._closed

    def begin(self, refusal: Refusal) -> Sequence[Event]:
        self._open = {0}
        self._stamp |= {"id": f"{self._stamp['id']}{refusal.id}", "created": refusal.created}
        return self.replace(refusal)

    def stop(self, refusal: Refusal) -> Sequence[Event]:
        """Closes every open choice, index 0 first. Choices the caller has received nothing of also get the refusal."""
        if refusal.code != "content_filter":  # an outage, not a verdict: SDKs would take a finish reason for one
            return self.fail(GuardUnavailable(refusal.text))
        events: list[Event] = []
        for index in sorted(self._open):
            if index not in self._begun:
                events.append(self._chunk(index, self._format.refusal_fields(refusal, begun=False)))
            events.append(self._chunk(index, self._format.closing_fields(), "content_filter"))
        return [*events, *self._closing()]

    def replace(self, refusal: Refusal) -> Sequence[Event]:
        events: list[Event] = []
        for index in sorted(self._open):
            fields = self._format.refusal_fields(refusal, begun=index in self._begun)
            events += [self._chunk(index, fields), self._chunk(index, self._format.closing_fields(), "stop")]
        return [*events, *self._closing()]

    def fail(self, error: GatewayError) -> Sequence[Event]:
        return [] if self._done_sent else [Event(error_body(error)), Event(None)]

    def close(self) -> Sequence[Event]:
        return [] if self._done_sent else [Event(None)]

    def _chunk(self, index: int, fields: Json, finish: str | None = None) -> Event:
        return Event({**self._stamp, "choices": [{"index": index, **fields, "finish_reason": finish}]})

    def _closing(self) -> Iterator[Event]:
        if self._done_sent:
            return
        if self._wants_usage and not self._usage_sent:
            yield Event({**self._stamp, "choices": [], "usage": self._usage or NO_USAGE})
        yield Event(None)


def objects(value: object, name: str) -> Sequence[Any]:
    """The objects of a list, none for null. Raises `UpstreamError` for anything else."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise UpstreamError(f"The model's provider sent {name} that are not a list of objects.")
    return value


def texts(holder: Json, fields: Mapping[str, Kind], channel: Channel) -> Iterator[Delta]:
    """A delta for each of these fields, which hold strings; one that cannot be read where they do not."""
    for field, kind in fields.items():
        value = holder.get(field)
        if value is not None and value != "":
            yield Delta((*channel, field), value if isinstance(value, str) else None, kind)


def joined_texts(holder: Json, fields: Mapping[str, Kind], channel: Channel) -> Iterator[Delta]:
    """A delta for each of these fields, with all the strings in it, a line each."""
    for field, kind in fields.items():
        lines = "\n".join(filter(None, strings(holder.get(field))))
        if lines:
            yield Delta((*channel, field), lines + "\n", kind)
