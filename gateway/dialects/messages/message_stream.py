"""A streamed Anthropic message: reads its events, and ends it in every way the API allows."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.dialects.dialect import Channel, Delta, Event, Json, Refusal
from gateway.dialects.fields import (
    is_index,
    joined,
    only_names,
    provider_failed,
    require_event_name,
    strings,
    text,
    unread_in_answer,
)
from gateway.dialects.json_schema import TEXT, NamedSchema, named, record
from gateway.dialects.messages.message_blocks import block_parts
from gateway.dialects.seals import sealed_part
from gateway.errors import BadRequest, GatewayError, GuardUnavailable, UpstreamError
from gateway.policy.policy import Action
from guard_runtime.conversation import Kind, Part, Path

ANSWER_NAMES = frozenset(
    {"id", "type", "role", "model", "stop_reason", "container", "usage", "diagnostics", "context_management"}
)
EVENT_NAMES = frozenset({"type"})


@dataclass(frozen=True, slots=True)
class _DeltaField:
    """Where the text of one type of delta stands: its `field`, and its `channel` within the block."""

    field: str
    channel: str
    kind: Kind = Kind.TEXT


_CITATIONS = _DeltaField("citation", "citations")
DELTAS: Mapping[str, _DeltaField] = {
    "text_delta": _DeltaField("text", "text"),
    "thinking_delta": _DeltaField("thinking", "thinking", Kind.REASONING),
    "compaction_delta": _DeltaField("content", "content"),
    "input_json_delta": _DeltaField("partial_json", "input", Kind.TOOL_CALL),
}
ERROR_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}
ERROR = NamedSchema(
    "AnthropicError",
    record(("type", "error"), type=named("error"), error=record(("type", "message"), type=TEXT, message=TEXT)),
)


class MessageStream:
    def __init__(self, request: Json) -> None:
        self._request = request
        self._finished = False
        self._started = False
        self._reasoned = False
        self._stopped = False
        self._blocks: dict[int, bool] = {}
        self._tokens = 0
        self._replaced: set[int] = set()

    @property
    def finished(self) -> bool:
        return self._finished

    def normalised(self, event: Event) -> Event:
        return event

    def without(self, event: Event, unknown: Collection[Channel]) -> Event | None:
        """Deltas and blocks of an unknown type go as a whole: a block leaves an empty text in its place, so that the
        numbers of the others stay right."""
        data = event.data
        if data is None:
            return event
        index, event_type = data.get("index"), data["type"]
        if (index, "type") in unknown:
            self._replaced.add(_index(data))
            return Event({**data, "content_block": {"type": "text", "text": ""}}, event.name)
        if event_type == "content_block_delta" and ((index, "delta") in unknown or index in self._replaced):
            return None
        new = {key: value for key, value in data.items() if ("event", event_type, key) not in unknown}
        for holder, at in (
            ("delta", (index, "delta")),
            ("delta", ("message",)),
            ("message", ("message",)),
            ("content_block", (index,)),
        ):
            if isinstance(new.get(holder), Mapping):
                new[holder] = {key: value for key, value in new[holder].items() if (*at, key) not in unknown}
        return Event(new, event.name)

    def read(self, event: Event) -> Sequence[Delta]:
        data = event.data
        if data is None:
            return ()
        event_type = data.get("type")
        if not isinstance(event_type, str):
            raise UpstreamError("The model's provider sent an event without a type.")
        if event_type == "error" or data.get("error") is not None:
            raise provider_failed(data.get("error"))
        require_event_name(event.name, event_type)
        self._finished = self._finished or event_type == "message_stop"
        try:
            return tuple(self._deltas(event_type, data))
        except BadRequest as exc:
            raise UpstreamError(f"The model's provider sent an event that cannot be read: {exc}") from exc

    def _deltas(self, event_type: str, data: Json) -> Iterator[Delta]:
        known = frozenset[str]()
        match event_type:
            case "content_block_start":
                known = frozenset({"content_block"})
                for part in block_parts(_object(data, "content_block"), (_index(data),)):
                    yield Delta(part.path, part.text, part.kind)
            case "content_block_delta":
                known = frozenset({"delta"})
                index = _index(data)
                if index in self._replaced:
                    yield Delta((index, "delta"), None)
                else:
                    yield from _block_delta(_object(data, "delta"), index)
            case "message_start":
                known = frozenset({"message"})
                yield from self._message(_object(data, "message"))
            case "message_delta":
                known = frozenset({"delta", "usage"})
                yield from self._fields(_object(data, "delta"))
                if not only_names(data.get("usage")):
                    yield Delta(("message", "usage"), None)
        for key in unread_in_answer(data, known, EVENT_NAMES):
            yield Delta(("event", event_type, key), None)

    def _message(self, message: Json) -> Iterator[Delta]:
        blocks = message.get("content")
        for i, block in enumerate(blocks if isinstance(blocks, list) else ()):
            yield from (Delta(part.path, part.text, part.kind) for part in block_parts(_object({"": block}, ""), (i,)))
        if not isinstance(blocks, list | None):
            yield Delta(("message", "content"), None)
        yield from self._fields(message)

    def _fields(self, holder: Json) -> Iterator[Delta]:
        for part in answer_fields(holder, ("message",), self._request):
            yield Delta(part.path, part.text, part.kind)
        for key in unread_in_answer(holder, frozenset({"content", "stop_sequence", "stop_details"}), ANSWER_NAMES):
            yield Delta(("message", key), None)

    def edited(self, event: Event, texts: Mapping[Channel, str]) -> Event:
        """The event under its own name, because Anthropic's SDKs ignore an event without one."""
        data = event.data
        if data is None:
            return event
        event_type = str(data["type"])
        return Event(_edited(event_type, data, texts) if texts else data, event_type)

    def sent(self, event: Event) -> None:
        data = event.data
        if data is None:
            return
        match data["type"]:
            case "message_start":
                self._started = True
                self._count(data["message"])
                self._blocks |= {i: False for i, _ in enumerate(data["message"].get("content") or ())}
            case "content_block_start":
                self._blocks[data["index"]] = True
            case "content_block_stop" if isinstance(data.get("index"), int):
                self._blocks[data["index"]] = False
            case "message_delta":
                self._reasoned = self._reasoned or data["delta"].get("stop_reason") is not None
                self._count(data)
            case "message_stop":
                self._stopped = True

    def _count(self, holder: Json) -> None:
        usage = holder.get("usage")
        tokens = usage.get("output_tokens") if isinstance(usage, Mapping) else None
        self._tokens = tokens if isinstance(tokens, int) else self._tokens

    def begin(self, refusal: Refusal) -> Sequence[Event]:
        return self._ended(refusal, with_text=True)

    def stop(self, refusal: Refusal) -> Sequence[Event]:
        """A caller who has received nothing of the answer also gets the refusal's text."""
        if refusal.code != "content_filter":  # an outage, not a verdict: the caller's SDK raises it as an error
            return self.fail(GuardUnavailable(refusal.text))
        return self._ended(refusal, with_text=not self._blocks)

    def replace(self, refusal: Refusal) -> Sequence[Event]:
        return self._ended(refusal, with_text=True)

    def fail(self, error: GatewayError) -> Sequence[Event]:
        return [] if self._stopped else [Event(error_body(error), "error")]

    def close(self) -> Sequence[Event]:
        """The closing event, if a stop reason has come; without one the answer is incomplete."""
        if self._stopped:
            return []
        if self._reasoned:
            return [*_named(self._closed_blocks()), *_named([{"type": "message_stop"}])]
        return self.fail(UpstreamError("The model's provider stopped before it had completed the message."))

    def _ended(self, refusal: Refusal, *, with_text: bool) -> Sequence[Event]:
        if self._stopped:
            return []
        if self._reasoned:
            return self.close()
        message = refused_message(self._request, {}, refusal)
        events: list[dict[str, Any]] = []
        if not self._started:
            start = {**message, "content": [], "stop_reason": None, "stop_details": None}
            events.append({"type": "message_start", "message": start})
        events += self._closed_blocks()
        if with_text:
            for block in message["content"]:
                events += _text_block(block, max(self._blocks, default=-1) + 1)
        delta = {key: message[key] for key in ("stop_reason", "stop_sequence", "stop_details")}
        events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": self._tokens}})
        return _named([*events, {"type": "message_stop"}])

    def _closed_blocks(self) -> list[dict[str, Any]]:
        return [
            {"type": "content_block_stop", "index": index} for index, is_open in sorted(self._blocks.items()) if is_open
        ]


def answer_fields(holder: Json, path: Path, request: Json) -> Iterator[Part]:
    """The texts of an answer beside its content: the stop sequence it ended at, unless the request named it, and why
    the model refused."""
    reached = holder.get("stop_sequence")
    requested = request.get("stop_sequences")
    if not (isinstance(requested, list) and reached in requested):
        yield from text(reached, (*path, "stop_sequence"))
    yield from joined(holder.get("stop_details"), (*path, "stop_details"), Kind.REFUSAL)


def error_body(error: GatewayError) -> dict[str, Any]:
    """Anthropic's error shape; OpenAI's `code` and `param` stand beside."""
    kind = ERROR_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    fields = {"type": kind, "message": error.message, "code": error.code, "param": error.param}
    return {"type": "error", "error": fields}


def refused_message(request: Json, stamp: Json, refusal: Refusal) -> dict[str, Any]:
    """A whole message made of the refusal. A caller who asked for JSON gets no text to parse: the refusal is in
    `stop_details`. `stamp` is what is kept of the model's own."""
    config = request.get("output_config")
    structured = isinstance(config, Mapping) and config.get("format") is not None
    blocked = refusal.decision.action is Action.BLOCK
    return {
        "id": f"msg_{refusal.id}",
        "model": request.get("model"),
        "usage": {"input_tokens": 0, "output_tokens": 0},
        **stamp,
        "type": "message",
        "role": "assistant",
        "content": [] if structured else [{"type": "text", "text": refusal.text}],
        "stop_reason": "refusal" if blocked or structured else "end_turn",
        "stop_sequence": None,
        "stop_details": {"type": "refusal", "category": None, "explanation": refusal.text}
        if blocked or structured
        else None,
    }


def _text_block(block: Json, index: int) -> Iterator[dict[str, Any]]:
    yield {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
    yield {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": block["text"]}}
    yield {"type": "content_block_stop", "index": index}


def _named(bodies: Sequence[dict[str, Any]]) -> list[Event]:
    return [Event(body, body["type"]) for body in bodies]


def _index(data: Json) -> int:
    index = data.get("index")
    if not is_index(index):
        raise UpstreamError("The model's provider sent a block without an index.")
    return index


def _object(data: Json, field: str) -> Json:
    value = data.get(field)
    if not isinstance(value, Mapping):
        raise UpstreamError(f"The model's provider sent an event whose {field or 'content'} is not an object.")
    return value


def _block_delta(delta: Json, index: int) -> Iterator[Delta]:
    delta_type, at = str(delta.get("type")), (index, "signature")
    known = frozenset({"signature", "citation"})
    if delta_type in DELTAS:
        place = DELTAS[delta_type]
        known = frozenset({place.field})
        value = delta.get(place.field)
        if value:
            yield Delta((index, place.channel), value if isinstance(value, str) else None, place.kind)
    elif delta_type == "citations_delta":
        lines = "".join(f"{line}\n" for line in strings(delta.get(_CITATIONS.field)))
        yield Delta((index, _CITATIONS.channel), lines)
    elif delta_type == "signature_delta" and delta.get("signature"):
        yield from (Delta(part.path, part.text, part.kind) for part in sealed_part(delta["signature"], at))
    elif delta_type not in ("signature_delta", "citations_delta"):
        yield Delta((index, "delta"), None)
    for key in unread_in_answer(delta, known, EVENT_NAMES):
        yield Delta((index, "delta", key), None)


def _edited(event_type: str, data: Json, texts: Mapping[Channel, str]) -> dict[str, Any]:
    """A string is replaced where it stands; an object or a list that held text is emptied."""
    index: Any = data.get("index")
    match event_type:
        case "content_block_delta":
            delta = dict(data["delta"])
            place = DELTAS.get(str(delta.get("type")), _CITATIONS)
            if (index, place.channel) in texts:
                delta[place.field] = texts[index, place.channel] if isinstance(delta[place.field], str) else {}
            return {**data, "delta": delta}
        case "content_block_start":
            return {**data, "content_block": _replaced(data["content_block"], (index,), texts)}
        case "message_start":
            message = _replaced(data["message"], ("message",), texts)
            blocks = message.get("content")
            if isinstance(blocks, list):
                message["content"] = [_replaced(block, (i,), texts) for i, block in enumerate(blocks)]
            return {**data, "message": message}
        case "message_delta":
            return {**data, "delta": _replaced(data["delta"], ("message",), texts)}
    return dict(data)


def _replaced(holder: Json, at: Channel, texts: Mapping[Channel, str]) -> dict[str, Any]:
    new = dict(holder)
    for channel, replacement in texts.items():
        if channel[: len(at)] == at and len(channel) > len(at) and str(channel[len(at)]) in new:
            key = str(channel[len(at)])
            held = new[key]
            new[key] = replacement if isinstance(held, str) and len(channel) == len(at) + 1 else type(held)()
    return new
