"""A streamed response: reads its events, and ends it in every way the API allows.

Each text comes more than once: in deltas, then in full in the events that close a part, an item and the response. A
channel is where a text stands in the response object. Text that only repeats a channel is not read again, and leaves
the way the deltas left.
"""

import copy
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.dialects.dialect import Channel, Delta, Event, Json, Refusal
from gateway.dialects.fields import JSON_MARK, provider_failed, removed, require_event_name, strings, unread_in_answer
from gateway.dialects.logprobs import spelled
from gateway.dialects.responses.response_events import (
    EVENT_NAMES,
    HOLDERS,
    JOINED,
    MEDIA,
    PIECES,
    TERMINAL,
    Piece,
    error_of,
    is_whole,
    known_fields,
)
from gateway.dialects.responses.response_items import item_parts, piece_parts
from gateway.dialects.responses.response_refusal import blank_response, is_structured, refusal_events, refusal_message
from gateway.errors import BadRequest, GatewayError, GuardUnavailable, UpstreamError
from guard_runtime.conversation import Kind, Part, Path


@dataclass(slots=True)
class _ChannelText:
    """What the upstream has sent in one channel, and what of that has left for the caller, as it left."""

    received: str = ""
    left: str = ""
    changed: bool = False


@dataclass(frozen=True, slots=True)
class _Text:
    """A text in an event: the path to it, and the channel it belongs to. `text` is None where something stands that
    cannot be read. `apart`: it says what its channel has said in another way (logprobs, a closing event that differs
    from the deltas), so it is read as a channel of its own, whose name ends so."""

    path: Path
    channel: Channel
    text: str | None
    kind: Kind = Kind.TEXT
    apart: Channel = ()

    @property
    def repeats(self) -> bool:
        return bool(self.apart)

    @property
    def read_as(self) -> Channel:
        return (*self.channel, *self.apart)


@dataclass(frozen=True, slots=True)
class _Held:
    """An event that has not left yet, with the texts that were in it when it came."""

    event: Event
    texts: tuple[_Text, ...]


@dataclass(slots=True)
class _Sent:
    """What the caller has received of the response."""

    response: dict[str, Any] | None = None
    items: dict[int, dict[str, Any]] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    number: int = -1
    ended: bool = False


class ResponseStream:
    """`request` is what was asked; `parts` reads a response object."""

    def __init__(self, request: Json, parts: Callable[[Json], Sequence[Part]]) -> None:
        self._request = request
        self._parts = parts
        self._channels: dict[Channel, _ChannelText] = {}
        self._sent = _Sent()
        self._finished = False
        self._held: deque[_Held] = deque()

    @property
    def finished(self) -> bool:
        return self._finished

    def normalised(self, event: Event) -> Event:
        return event

    def without(self, event: Event, unknown: Collection[Channel]) -> Event | None:
        """Fields are removed where they stand; an event that is about nothing but them goes as a whole."""
        data = event.data
        held = self._held.pop() if self._held else None
        if data is None or held is None or held.event is not event:
            return None
        event_type = str(data.get("type"))
        if any(at[:2] == ("event", event_type) for at in unknown) and not known_fields(event_type):
            return None
        new: Any = {key: value for key, value in data.items() if ("event", event_type, key) not in unknown}
        gone = [text.path for text in held.texts if text.text is None and text.read_as in unknown]
        for path in sorted(gone, key=len, reverse=True):
            new = removed(new, path)
        texts = tuple(text for text in held.texts if text.path not in gone)
        changed = Event(new, event.name)
        self._held.append(_Held(changed, texts))
        return changed

    def read(self, event: Event) -> Sequence[Delta]:
        data = event.data
        if data is None:
            return ()
        event_type = data.get("type")
        if not isinstance(event_type, str):
            raise UpstreamError("The model's provider sent an event without a type.")
        require_event_name(event.name, event_type)
        if event_type in ("error", "response.failed") or data.get("error") is not None:
            raise provider_failed(error_of(data))
        self._finished = self._finished or event_type in TERMINAL
        unknown = unread_in_answer(data, known_fields(event_type), EVENT_NAMES)
        deltas = [Delta(("event", event_type, key), None) for key in unknown]
        try:
            texts = tuple(self._texts(event_type, data))
        except BadRequest as exc:
            raise UpstreamError(f"The model's provider sent an event that cannot be read: {exc}") from exc
        self._held.append(_Held(event, texts))
        new = (text for text in texts if self._is_new(text, whole=is_whole(event_type)))
        return [*deltas, *(Delta(text.read_as, text.text, text.kind) for text in new)]

    def _is_new(self, text: _Text, *, whole: bool) -> bool:
        """Whether a guard has yet to read this text. Notes what belongs to its channel."""
        if text.text is None or text.repeats:
            return True
        channel = self._channels.setdefault(text.channel, _ChannelText())
        if whole and channel.received:
            return False
        channel.received += text.text
        return bool(text.text)

    def _texts(self, event_type: str, data: Json) -> Iterator[_Text]:
        """Every text of an event."""
        if event_type in PIECES:
            piece = PIECES[event_type]
            channel = piece.channel(data)
            value = data.get(piece.field)
            if isinstance(value, str):
                yield self._text((piece.field,), channel, value, piece)
            elif value is not None:
                yield _Text((piece.field,), channel, None, piece.kind)
            logprobs = spelled(data.get("logprobs"))
            if logprobs and logprobs != value:
                yield _Text(("logprobs",), channel, logprobs, apart=("logprobs", event_type))
        elif event_type in HOLDERS:
            piece = HOLDERS[event_type]
            channel = piece.channel(data)
            for part in self._parts_of(data.get(piece.field), channel):
                yield self._part_text(part, piece.field, channel, data)
        elif event_type in JOINED:
            piece = JOINED[event_type]
            lines = "".join(f"{line}\n" for line in strings(data.get(piece.field)))
            yield _Text((piece.field,), piece.channel(data), lines)
        elif event_type in MEDIA and data.get(MEDIA[event_type]):
            yield _Text((MEDIA[event_type],), ("media",), None, Kind.MEDIA)

    def _parts_of(self, value: object, at: Channel) -> Sequence[Part]:
        if not isinstance(value, Mapping):
            raise BadRequest("an event holds no object where one must be")
        match at:
            case ():
                return self._parts(value)
            case ("output", _):
                return tuple(item_parts(value, at))
            case _:
                return tuple(piece_parts(value, at, Kind.REASONING if at[2] == "summary" else Kind.TEXT))

    def _part_text(self, part: Part, key: str, at: Channel, data: Json) -> _Text:
        """A part of an object that an event holds. Arguments are read as the text they are, as their deltas are."""
        channel = part.path[: part.path.index(JSON_MARK)] if JSON_MARK in part.path else part.path
        path = (key, *channel[len(at) :])
        if part.text is None:
            return _Text(path, channel, None, part.kind)
        value = _value(data, path)
        text = value if isinstance(value, str) else part.text
        return self._text(path, channel, text, Piece("", (), part.kind, whole=True))

    def _text(self, path: Path, channel: Channel, text: str, piece: Piece) -> _Text:
        known = self._channels.get(channel)
        if piece.whole and known is not None and known.received and known.received.rstrip("\n") != text.rstrip("\n"):
            return _Text(path, channel, text, piece.kind, apart=("again",))
        return _Text(path, channel, text, piece.kind)

    def edited(self, event: Event, texts: Mapping[Channel, str]) -> Event:
        data = event.data
        if data is None:
            return event
        whole = is_whole(str(data.get("type")))
        changes: dict[Path, str] = {}
        for text in self._texts_of(event):
            leaving = self._leaving(text, texts, whole=whole)
            if leaving != text.text:
                changes[text.path] = leaving or ""
        return Event(_changed(data, changes), event.name) if changes else event

    def _leaving(self, text: _Text, replacements: Mapping[Channel, str], *, whole: bool) -> str | None:
        """A text as it leaves; None for what is no text."""
        if text.text is None:
            return None
        channel = self._channels.setdefault(text.channel, _ChannelText())
        if text.repeats:
            return replacements.get(text.read_as, channel.left if channel.changed else text.text)
        if whole and channel.left:
            leaving = replacements.get(text.channel, channel.left if channel.changed else text.text)
        else:
            leaving = replacements.get(text.channel, text.text)
            channel.left += leaving
        channel.changed = channel.changed or leaving != text.text
        return leaving

    def _texts_of(self, event: Event) -> tuple[_Text, ...]:
        """The texts that were in an event when it came: more events may have come since."""
        while self._held:
            held = self._held.popleft()
            if held.event is event:
                return held.texts
        return ()

    def sent(self, event: Event) -> None:
        data = event.data
        if data is None:
            return
        sent, event_type = self._sent, str(data.get("type"))
        number = data.get("sequence_number")
        sent.number = max(sent.number + 1, number) if isinstance(number, int) else sent.number + 1
        sent.ended = sent.ended or event_type in TERMINAL
        if event_type in HOLDERS and HOLDERS[event_type].field == "response":
            sent.response = copy.deepcopy(dict(data["response"]))
        index = data.get("output_index")
        if not isinstance(index, int):
            return
        if event_type == "response.output_item.added":
            sent.items[index] = copy.deepcopy(dict(data["item"]))
            sent.open.add(index)
        elif event_type == "response.output_item.done":
            sent.items[index] = copy.deepcopy(dict(data["item"]))
            sent.open.discard(index)

    def begin(self, refusal: Refusal) -> Sequence[Event]:
        return self.replace(refusal)

    def stop(self, refusal: Refusal) -> Sequence[Event]:
        """A caller who has received nothing of an item also gets the refusal's text."""
        if refusal.code != "content_filter":  # an outage, not a verdict: the caller's SDK raises it as an error
            return self.fail(GuardUnavailable(refusal.text))
        return self._ended(refusal, "incomplete", with_text=not self._sent.items)

    def replace(self, refusal: Refusal) -> Sequence[Event]:
        return self._ended(refusal, "completed", with_text=True)

    def fail(self, error: GatewayError) -> Sequence[Event]:
        """An `error` event that the SDKs raise, then the response's own end."""
        if self._sent.ended:
            return []
        report = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
        failed = {"code": "server_error", "message": error.message}
        response = {**self._response(), "status": "failed", "error": failed, "output": self._output()}
        return self._numbered(
            {"type": "error", "code": error.code, "message": error.message, "param": error.param, "error": report},
            {"type": "response.failed", "response": response},
        )

    def close(self) -> Sequence[Event]:
        """Nothing after the closing event. Without it the answer is incomplete, even if the connection ended well."""
        return self.fail(UpstreamError("The model's provider stopped before it had completed the response."))

    def _ended(self, refusal: Refusal, status: str, *, with_text: bool) -> Sequence[Event]:
        if self._sent.ended:
            return []
        events: list[dict[str, Any]] = []
        response = self._response()
        if self._sent.response is None:
            response |= {"id": f"resp_{refusal.id}", "created_at": refusal.created}
            events.append({"type": "response.created", "response": {**response, "status": "in_progress", "output": []}})
        events += self._closed_items()
        if with_text:
            index = max(self._sent.items, default=-1) + 1
            item = refusal_message(refusal, structured=is_structured(self._request))
            events += refusal_events(item, index)
            self._sent.items[index] = item
        response |= {"status": status, "output": self._output()}
        if status == "incomplete":
            response["incomplete_details"] = {"reason": "content_filter"}
        events.append({"type": f"response.{status}", "response": response})
        return self._numbered(*events)

    def _closed_items(self) -> Iterator[dict[str, Any]]:
        """Ends each item that has begun for the caller, with what the caller has received of it."""
        for index in sorted(self._sent.open):
            item = self._sent.items[index] = self._as_left(index)
            yield {"type": "response.output_item.done", "output_index": index, "item": item}
        self._sent.open.clear()

    def _as_left(self, index: int) -> dict[str, Any]:
        item = {**self._sent.items[index], "status": "incomplete"}
        for channel, text in self._channels.items():
            if channel[:2] != ("output", index) or not text.left:
                continue
            match channel[2:]:
                case ("arguments" | "input" | "code" as name,):
                    item[name] = text.left
                case ("content", int(place), "text" | "refusal" as name):
                    pieces = item["content"] = list(item.get("content") or [])
                    kind = _PIECE_TYPES.get(str(item.get("type")), {}).get(name, "output_text")
                    pieces += [{} for _ in range(place + 1 - len(pieces))]
                    extra: dict[str, Any] = {"annotations": []} if kind == "output_text" else {}
                    pieces[place] = {"type": kind, name: text.left, **extra}
                case ("summary", int(place), "text"):
                    pieces = item["summary"] = list(item.get("summary") or [])
                    pieces += [{} for _ in range(place + 1 - len(pieces))]
                    pieces[place] = {"type": "summary_text", "text": text.left}
        return item

    def _response(self) -> dict[str, Any]:
        return dict(self._sent.response or blank_response(self._request))

    def _output(self) -> list[dict[str, Any]]:
        items = self._sent.items
        return [self._as_left(index) if index in self._sent.open else items[index] for index in sorted(items)]

    def _numbered(self, *bodies: dict[str, Any]) -> list[Event]:
        first = self._sent.number + 1
        return [Event({**body, "sequence_number": first + i}, body["type"]) for i, body in enumerate(bodies)]


_PIECE_TYPES: Mapping[str, Mapping[str, str]] = {
    "message": {"text": "output_text", "refusal": "refusal"},
    "reasoning": {"text": "reasoning_text"},
}


def _value(data: Json, path: Path) -> Any:
    value: Any = data
    for step in path:
        value = value[step]
    return value


def _changed(data: Any, changes: Mapping[Path, str]) -> Any:
    """A copy with these texts put in: in place of a string the new text, in place of an object or a list an empty one.
    All logprobs are removed, because they spell the text out token by token."""
    new = copy.deepcopy(dict(data))
    for path, text in changes.items():
        holder = _value(new, path[:-1])
        held = holder[path[-1]]
        holder[path[-1]] = text if isinstance(held, str) else type(held)()
    waiting: list[Any] = [new]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("logprobs"), list):
                value["logprobs"] = []
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return new
