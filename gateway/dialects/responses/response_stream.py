"""A streamed response: its events, and every lawful way it can end.

Its texts come more than once: in deltas, then whole in the events that close a part, an item and the response. A
channel is where a text stands in the response object; what repeats a channel that was read is not read again, and
leaves as the deltas left.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.dialects.dialect import Channel, Delta, Event, Json, Refusal
from gateway.dialects.fields import JSON_MARK, provider_failed, require_event_name, strings, unread
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
from gateway.dialects.responses.response_refusal import blank_response, is_structured, refusal_message, said_in_events
from gateway.errors import BadRequest, GatewayError, GuardUnavailable, UpstreamError
from guard_runtime.conversation import Kind, Part, Path


@dataclass(slots=True)
class _Text:
    """One channel: what the upstream has said in it, and what of that has left, as it left."""

    heard: str = ""
    left: str = ""
    changed: bool = False


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in an event a text stands: the path to it, its channel, and the channel it is read in (the same, unless it
    says something else than the channel has said)."""

    path: Path
    channel: Channel
    read_as: Channel
    kind: Kind = Kind.TEXT


_Found = tuple[_Place, str | None]
"""A text with its place; None where something stands that cannot be read."""


@dataclass(slots=True)
class _Seen:
    """What the caller has of the response."""

    response: dict[str, Any] | None = None
    items: dict[int, dict[str, Any]] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    number: int = -1
    ended: bool = False


class ResponseStream:
    """`asked` is the request; `parts` reads a response object."""

    def __init__(self, asked: Json, parts: Callable[[Json], Sequence[Part]]) -> None:
        self._asked = asked
        self._parts = parts
        self._texts: dict[Channel, _Text] = {}
        self._seen = _Seen()
        self._finished = False
        self._held: deque[tuple[Event, tuple[_Found, ...]]] = deque()

    @property
    def finished(self) -> bool:
        return self._finished

    def read(self, event: Event) -> Sequence[Delta]:
        data = event.data
        if data is None:
            return ()
        found = data.get("type")
        if not isinstance(found, str):
            raise UpstreamError("The model's provider sent an event without a type.")
        require_event_name(event.name, found)
        if found in ("error", "response.failed") or data.get("error") is not None:
            raise provider_failed(error_of(data))
        self._finished = self._finished or found in TERMINAL
        deltas = [Delta(("event", found, key), None) for key in unread(data, known_fields(found), EVENT_NAMES)]
        try:
            places = tuple(self._places(found, data))
        except BadRequest as exc:
            raise UpstreamError(f"The model's provider sent an event that cannot be read: {exc}") from exc
        self._held.append((event, places))
        for place, text in places:
            if text is None:
                deltas.append(Delta(place.read_as, None, place.kind))
            elif place.read_as is not place.channel or self._hear(place, text, whole=is_whole(found)):
                deltas.append(Delta(place.read_as, text, place.kind))
        return deltas

    def _hear(self, place: _Place, text: str, *, whole: bool) -> bool:
        """Notes a text; whether it is new."""
        known = self._texts.setdefault(place.channel, _Text())
        if whole and known.heard:
            return False
        known.heard += text
        return bool(text)

    def _places(self, found: str, data: Json) -> Iterator[_Found]:
        """Every text of an event."""
        if found in PIECES:
            piece = PIECES[found]
            channel = piece.channel(data)
            said = data.get(piece.field)
            if isinstance(said, str):
                yield self._placed((piece.field,), channel, said, piece), said
            elif said is not None:
                yield _Place((piece.field,), channel, channel, piece.kind), None
            spelt = spelled(data.get("logprobs"))
            if spelt and spelt != said:
                yield _Place(("logprobs",), channel, (*channel, "logprobs", found)), spelt
        elif found in HOLDERS:
            key, place = HOLDERS[found]
            at = Piece(key, place).channel(data)
            for part in self._parts_of(data.get(key), at):
                yield self._part_place(part, key, at, data)
        elif found in JOINED:
            key, place = JOINED[found]
            channel = Piece(key, place).channel(data)
            yield _Place((key,), channel, channel), "".join(f"{text}\n" for text in strings(data.get(key)))
        elif found in MEDIA and data.get(MEDIA[found]):
            yield _Place((MEDIA[found],), ("media",), ("media",), Kind.MEDIA), None

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

    def _part_place(self, part: Part, key: str, at: Channel, data: Json) -> _Found:
        """A part of an object that an event holds. Arguments are read as the text they are, as their deltas are."""
        channel = part.path[: part.path.index(JSON_MARK)] if JSON_MARK in part.path else part.path
        path = (key, *channel[len(at) :])
        if part.text is None:
            return _Place(path, channel, channel, part.kind), None
        value = _value(data, path)
        text = value if isinstance(value, str) else part.text
        return self._placed(path, channel, text, Piece("", (), part.kind, whole=True)), text

    def _placed(self, path: Path, channel: Channel, text: str, piece: Piece) -> _Place:
        known = self._texts.get(channel)
        if piece.whole and known is not None and known.heard and known.heard.rstrip("\n") != text.rstrip("\n"):
            return _Place(path, channel, (*channel, "again"), piece.kind)
        return _Place(path, channel, channel, piece.kind)

    def edited(self, event: Event, texts: Mapping[Channel, str]) -> Event:
        data = event.data
        if data is None:
            return event
        found = str(data.get("type"))
        changed: dict[Path, Any] = {}
        for place, text in self._found_in(event):
            if text is None:
                continue
            known = self._texts.setdefault(place.channel, _Text())
            if place.read_as is not place.channel:
                if place.read_as in texts or known.changed:
                    changed[place.path] = texts.get(place.read_as, known.left)
                continue
            leaving = texts.get(place.channel, text)
            if is_whole(found) and known.left:
                leaving = texts.get(place.channel, known.left if known.changed else text)
            else:
                known.left += leaving
            known.changed = known.changed or leaving != text
            if leaving != text:
                changed[place.path] = leaving
        return Event(_changed(data, changed), event.name) if changed else event

    def _found_in(self, event: Event) -> tuple[_Found, ...]:
        """What was found in an event when it came: more may have come since."""
        while self._held:
            held, places = self._held.popleft()
            if held is event:
                return places
        return ()

    def sent(self, event: Event) -> None:
        data = event.data
        if data is None:
            return
        seen, found = self._seen, str(data.get("type"))
        number = data.get("sequence_number")
        seen.number = max(seen.number + 1, number) if isinstance(number, int) else seen.number + 1
        seen.ended = seen.ended or found in TERMINAL
        if found in HOLDERS and HOLDERS[found][0] == "response":
            seen.response = copy.deepcopy(dict(data["response"]))
        index = data.get("output_index")
        if not isinstance(index, int):
            return
        if found == "response.output_item.added":
            seen.items[index] = copy.deepcopy(dict(data["item"]))
            seen.open.add(index)
        elif found == "response.output_item.done":
            seen.items[index] = copy.deepcopy(dict(data["item"]))
            seen.open.discard(index)

    def begin(self, refusal: Refusal) -> Sequence[Event]:
        return self.replace(refusal)

    def stop(self, refusal: Refusal) -> Sequence[Event]:
        """A caller who has seen nothing of an item also gets the sentence."""
        if refusal.code != "content_filter":  # an outage, not a verdict: the caller's SDK raises it by its own code
            return self.fail(GuardUnavailable(refusal.text))
        return self._ended(refusal, "incomplete", say=not self._seen.items)

    def replace(self, refusal: Refusal) -> Sequence[Event]:
        return self._ended(refusal, "completed", say=True)

    def fail(self, error: GatewayError) -> Sequence[Event]:
        """An `error` event that the SDKs raise, then the response's own end."""
        if self._seen.ended:
            return []
        said = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
        failed = {"code": "server_error", "message": error.message}
        response = {**self._response(), "status": "failed", "error": failed, "output": self._output()}
        return self._numbered(
            {"type": "error", "code": error.code, "message": error.message, "param": error.param, "error": said},
            {"type": "response.failed", "response": response},
        )

    def close(self) -> Sequence[Event]:
        """Nothing, after the closing event; without it the answer is not whole, whatever the connection says."""
        return self.fail(UpstreamError("The model's provider stopped before it had completed the response."))

    def _ended(self, refusal: Refusal, status: str, *, say: bool) -> Sequence[Event]:
        if self._seen.ended:
            return []
        events: list[dict[str, Any]] = []
        response = self._response()
        if self._seen.response is None:
            response |= {"id": f"resp_{refusal.id}", "created_at": refusal.created}
            events.append({"type": "response.created", "response": {**response, "status": "in_progress", "output": []}})
        events += self._closed_items()
        if say:
            index = max(self._seen.items, default=-1) + 1
            item = refusal_message(refusal, structured=is_structured(self._asked))
            events += said_in_events(item, index)
            self._seen.items[index] = item
        response |= {"status": status, "output": self._output()}
        if status == "incomplete":
            response["incomplete_details"] = {"reason": "content_filter"}
        events.append({"type": f"response.{status}", "response": response})
        return self._numbered(*events)

    def _closed_items(self) -> Iterator[dict[str, Any]]:
        """The end of each item that the caller has seen begin, with what the caller has of it."""
        for index in sorted(self._seen.open):
            item = self._seen.items[index] = self._as_left(index)
            yield {"type": "response.output_item.done", "output_index": index, "item": item}
        self._seen.open.clear()

    def _as_left(self, index: int) -> dict[str, Any]:
        item = {**self._seen.items[index], "status": "incomplete"}
        for channel, text in self._texts.items():
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
        return dict(self._seen.response or blank_response(self._asked))

    def _output(self) -> list[dict[str, Any]]:
        items = self._seen.items
        return [self._as_left(index) if index in self._seen.open else items[index] for index in sorted(items)]

    def _numbered(self, *bodies: dict[str, Any]) -> list[Event]:
        first = self._seen.number + 1
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


def _changed(data: Any, changes: Mapping[Path, Any]) -> Any:
    """A copy with these values in place of its own: a string where one was, nothing where more than a string was.
    Logprobs spell the text out token by token, so all of them go."""
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
