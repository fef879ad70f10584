"""A stream of choices, as chat and completions send it: reads its chunks, and ends it in every way the API allows."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from gateway.dialects.choices.choices import ANSWER_KNOWN, ANSWER_NAMES, NO_USAGE
from gateway.dialects.choices.vendor_fields import BESIDE, vendor_deltas, with_vendor_texts
from gateway.dialects.dialect import Channel, Delta, Event, Json, Refusal
from gateway.dialects.fields import (
    MAX_INDEX,
    is_identifier,
    is_index,
    only_names,
    provider_failed,
    require_event_name,
    strings,
    unread_in_answer,
)
from gateway.dialects.openai_errors import error_body
from gateway.errors import GatewayError, GuardUnavailable, UpstreamError
from guard_runtime.conversation import Kind

_BESIDE = {"model": Kind.NAME, **BESIDE}
STAMP = frozenset({"id", "object", "created", "model", "system_fingerprint", "service_tier"})


class ChoiceFormat(Protocol):
    """How one choice of a chunk is written."""

    def normalised(self, choice: Any) -> Any:
        """A choice as the API has it, where the provider writes it otherwise."""

    def read(self, choice: Json, index: int) -> Iterator[Delta]: ...

    def edited(self, choice: Json, index: int, texts: Mapping[Channel, str]) -> Json: ...

    def without(self, choice: Json, index: int, unknown: Collection[Channel]) -> Json:
        """The choice without what these channels stand for: fields that nobody knows."""

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
        self._beside: dict[str, object] = {}
        self._masked: dict[str, tuple[object, object]] = {}
        self._answered = False

    @property
    def finished(self) -> bool:
        return not self._waiting

    def normalised(self, event: Event) -> Event:
        choices = event.data.get("choices") if event.data is not None else None
        if event.data is None or not isinstance(choices, list):
            return event
        new = [self._format.normalised(choice) for choice in choices]
        same = all(one is other for one, other in zip(new, choices, strict=True))
        return event if same else Event({**event.data, "choices": new}, event.name)

    def read(self, event: Event) -> Sequence[Delta]:
        if event.data is None:
            if not self._answered:
                raise UpstreamError("The model's provider sent an answer with nothing in it.")
            return ()
        if event.data.get("error") is not None:
            raise provider_failed(event.data["error"])
        if event.name != "message":
            require_event_name(event.name, None)
        if isinstance(event.data.get("usage"), Mapping) and only_names(event.data["usage"]):
            self._usage = event.data["usage"]
        deltas = [Delta(("chunk", key), None) for key in unread_in_answer(event.data, ANSWER_KNOWN, ANSWER_NAMES)]
        deltas += self._beside_choices(event.data)
        indices: set[int] = set()
        for choice in objects(event.data.get("choices"), "choices"):
            index = choice.get("index")
            if not is_index(index):
                raise UpstreamError(f"The model's provider sent a choice without an index from 0 to {MAX_INDEX - 1}.")
            if index in indices:
                raise UpstreamError(f"The model's provider sent choice {index} twice in one chunk.")
            indices.add(index)
            self._answered = True
            deltas += self._format.read(choice, index)
            if choice.get("finish_reason") is not None:
                self._waiting.discard(index)
        return deltas

    def _beside_choices(self, data: Json) -> Iterator[Delta]:
        """What stands beside the choices. Providers repeat it in every chunk: it is read once."""
        for key in _BESIDE:
            if data.get(key) is None or self._beside.get(key) == data[key]:
                continue
            self._beside[key] = data[key]
            if key in BESIDE:
                yield from vendor_deltas(data, {key: BESIDE[key]}, ("chunk",))
            elif not is_identifier(data[key]):
                yield Delta(("chunk", key), data[key] if isinstance(data[key], str) else None, Kind.NAME)

    def edited(self, event: Event, texts: Mapping[Channel, str]) -> Event:
        """Chunks that repeat a field beside the choices repeat it as it left the first time."""
        if event.data is None or not (texts or self._masked):
            return event
        new = dict(event.data)
        for key, (raw, left) in self._masked.items():
            if new.get(key) == raw:
                new[key] = left
        new = with_vendor_texts(new, _BESIDE, ("chunk",), texts)
        for key in _BESIDE:
            if key in new and new[key] != event.data[key]:
                self._masked[key] = (event.data[key], new[key])
        if texts and new.get("choices"):
            new["choices"] = [self._format.edited(choice, choice["index"], texts) for choice in new["choices"]]
        return Event(new, event.name)

    def without(self, event: Event, unknown: Collection[Channel]) -> Event | None:
        if event.data is None:
            return event
        beside = {at[1] for at in unknown if at[0] == "chunk"}
        kept = {key: value for key, value in event.data.items() if key not in beside}
        if kept.get("choices"):
            kept["choices"] = [self._format.without(choice, choice["index"], unknown) for choice in kept["choices"]]
        return Event(kept, event.name) if kept.keys() & (ANSWER_KNOWN | {"usage"}) else None

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
