"""A streamed chat completion: its deltas, and every lawful way it can end."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.dialects.dialect import Channel, Delta, Event, Json, Refusal
from gateway.dialects.fields import carries_text, only_names, provider_failed, strings, unread
from gateway.dialects.logprobs import spelled
from gateway.dialects.openai_errors import error_body
from gateway.errors import GatewayError, UpstreamError
from gateway.policy import Action
from guard_runtime.conversation import Kind

# Fields of an answer or chunk and of a choice. Strings of the NAMES are no content: each is held to an identifier's
# shape, those of Azure's own filter included. What is KNOWN is read.
ANSWER_NAMES = frozenset(
    {
        "id",
        "object",
        "created",
        "model",
        "system_fingerprint",
        "service_tier",
        "obfuscation",
        "usage",
        "prompt_filter_results",
    }
)
ANSWER_KNOWN = frozenset({"choices", "citations", "search_results", "provider"})
CHOICE_NAMES = frozenset(
    {"index", "finish_reason", "native_finish_reason", "content_filter_results", "content_filter_offsets"}
)
CHOICE_KNOWN = frozenset({"logprobs", "stop_reason"})
STAMP = frozenset({"id", "object", "created", "model", "system_fingerprint", "service_tier"})

DELTA_TEXT: Mapping[str, Kind] = {
    "content": Kind.TEXT,
    "refusal": Kind.REFUSAL,
    "reasoning_content": Kind.REASONING,
    "reasoning": Kind.REASONING,
}
DELTA_JOINED: Mapping[str, Kind] = {"annotations": Kind.TEXT, "reasoning_details": Kind.REASONING}
DELTA_NAMES = frozenset({"role"})
DELTA_KNOWN = frozenset({*DELTA_TEXT, *DELTA_JOINED, "tool_calls", "function_call", "audio"})
CALL_NAMES = frozenset({"index", "id", "type"})
CALL_KNOWN = frozenset({"function", "custom"})
CALL_TEXT: Mapping[str, Kind] = {"name": Kind.NAME, "arguments": Kind.TOOL_CALL, "input": Kind.TOOL_CALL}
NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
MAX_INDEX = 128


class ChatStream:
    """`expected` choices are open until their finish reason has left for the caller."""

    def __init__(self, model: str, expected: int, usage: bool, *, structured: bool = False) -> None:
        self._stamp: dict[str, Any] = {"id": "", "object": "chat.completion.chunk", "created": 0, "model": model}
        self._open = set(range(expected))
        self._begun: set[int] = set()
        self._closed: set[int] = set()
        self._wants_usage = usage
        self._usage: Json | None = None
        self._usage_sent = False
        self._structured = structured
        self._done_sent = False
        self._waiting = set(range(expected))

    @property
    def finished(self) -> bool:
        return not self._waiting

    def read(self, event: Event) -> Sequence[Delta]:
        if event.data is None:
            return ()
        if event.data.get("error") is not None:
            raise provider_failed(event.data["error"])
        if isinstance(event.data.get("usage"), Mapping) and only_names(event.data["usage"]):
            self._usage = event.data["usage"]
        deltas = [Delta(("chunk", key), None) for key in unread(event.data, ANSWER_KNOWN, ANSWER_NAMES)]
        deltas += _joined(event.data, dict.fromkeys(ANSWER_KNOWN - {"choices"}, Kind.TEXT), ("chunk",))
        indices: set[int] = set()
        for choice in _objects(event.data.get("choices"), "choices"):
            index = choice.get("index")
            if not is_index(index):
                raise UpstreamError("The model's provider sent a choice without an index from 0 to 127.")
            if index in indices:
                raise UpstreamError(f"The model's provider sent choice {index} twice in one chunk.")
            indices.add(index)
            deltas += _choice(choice, index)
            if choice.get("finish_reason") is not None:
                self._waiting.discard(index)
        return deltas

    def edited(self, event: Event, texts: Mapping[Channel, str]) -> Event:
        if event.data is None:
            return event
        choices = [_edited_choice(choice, texts) for choice in event.data.get("choices") or ()]
        kept = {key: value for key, value in event.data.items() if ("chunk", key) not in texts}
        return Event({**kept, "choices": choices}, event.name)

    def sent(self, event: Event) -> None:
        if event.data is None:
            self._done_sent = True
            return
        for key in STAMP & event.data.keys():
            if only_names(event.data[key]):
                self._stamp[key] = event.data[key]
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
        self._stamp |= {"id": f"chatcmpl-{refusal.id}", "created": refusal.created}
        return [self._chunk(0, self._said(refusal)), self._chunk(0, {}, "stop"), *self._closing()]

    def stop(self, refusal: Refusal) -> Sequence[Event]:
        """Every open choice closed, index 0 first. A caller who has seen nothing of a choice also gets the sentence."""
        events: list[Event] = []
        for index in sorted(self._open):
            if index not in self._begun:
                events.append(self._chunk(index, {"role": "assistant", "refusal": refusal.text}))
            events.append(self._chunk(index, {}, "content_filter"))
        closing = list(self._closing())
        if refusal.code != "content_filter":  # an outage, not a verdict: the caller's SDK raises it by its own code
            error = {"message": refusal.text, "type": "guard_error", "param": None, "code": refusal.code}
            closing.insert(len(closing) - 1, Event({"error": error}))
        return [*events, *closing]

    def replace(self, refusal: Refusal) -> Sequence[Event]:
        events: list[Event] = []
        for index in sorted(self._open):
            delta = self._said(refusal)
            if index in self._begun:
                del delta["role"]
            events += [self._chunk(index, delta), self._chunk(index, {}, "stop")]
        return [*events, *self._closing()]

    def fail(self, error: GatewayError) -> Sequence[Event]:
        return [] if self._done_sent else [Event(error_body(error)), Event(None)]

    def close(self) -> Sequence[Event]:
        return [] if self._done_sent else [Event(None)]

    def _said(self, refusal: Refusal) -> dict[str, Any]:
        field = "content" if refusal.decision.action is Action.REWRITE and not self._structured else "refusal"
        return {"role": "assistant", field: refusal.text}

    def _chunk(self, index: int, delta: Json, finish: str | None = None) -> Event:
        return Event({**self._stamp, "choices": [{"index": index, "delta": delta, "finish_reason": finish}]})

    def _closing(self) -> Iterator[Event]:
        if self._done_sent:
            return
        if self._wants_usage and not self._usage_sent:
            yield Event({**self._stamp, "choices": [], "usage": self._usage or NO_USAGE})
        yield Event(None)


def is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_INDEX


def logprobs_text(logprobs: object) -> str:
    """What the logprobs of one choice say, over what the choice says itself."""
    if not isinstance(logprobs, Mapping):
        return "\n".join(strings(logprobs))
    rest = {key: value for key, value in logprobs.items() if key not in ("content", "refusal")}
    pieces = (spelled(logprobs.get("content")), spelled(logprobs.get("refusal")), *strings(rest))
    return "\n".join(piece for piece in pieces if piece)


def _choice(choice: Json, index: int) -> Iterator[Delta]:
    delta = choice.get("delta")
    if not isinstance(delta, Mapping | None):
        raise UpstreamError("The model's provider sent a delta that is not an object.")
    delta = delta or {}
    yield from _texts(delta, DELTA_TEXT, (index,))
    yield from _joined(delta, DELTA_JOINED, (index,))
    yield from _calls(delta.get("tool_calls"), index)
    yield from _call(delta.get("function_call"), (index, "function_call"))
    yield from _audio(delta.get("audio"), index)
    for key in unread(delta, DELTA_KNOWN, DELTA_NAMES):
        yield Delta((index, "delta", key), None)
    yield from _logprobs(choice.get("logprobs"), delta.get("content"), index)
    yield from _joined(choice, {"stop_reason": Kind.TEXT}, (index,))
    for key in unread(choice, CHOICE_KNOWN | {"delta"}, CHOICE_NAMES):
        yield Delta((index, "choice", key), None)


def _texts(holder: Json, fields: Mapping[str, Kind], channel: Channel) -> Iterator[Delta]:
    for field, kind in fields.items():
        value = holder.get(field)
        if value is not None and value != "":
            yield Delta((*channel, field), value if isinstance(value, str) else None, kind)


def _joined(holder: Json, fields: Mapping[str, Kind], channel: Channel) -> Iterator[Delta]:
    for field, kind in fields.items():
        said = "\n".join(filter(None, strings(holder.get(field))))
        if said:
            yield Delta((*channel, field), said + "\n", kind)


def _calls(calls: object, index: int) -> Iterator[Delta]:
    numbers: set[int] = set()
    for position, call in enumerate(_objects(calls, "tool calls")):
        number = call.get("index", position)
        if not is_index(number):
            raise UpstreamError("The model's provider sent a tool call without an index from 0 to 127.")
        if number in numbers:
            raise UpstreamError(f"The model's provider sent tool call {number} twice in one chunk.")
        numbers.add(number)
        channel = (index, "tool_calls", number)
        yield from _call(call.get("function"), channel)
        yield from _call(call.get("custom"), (*channel, "custom"))
        for key in unread(call, CALL_KNOWN, CALL_NAMES):
            yield Delta((*channel, key), None)


def _call(call: object, channel: Channel) -> Iterator[Delta]:
    if call is None:
        return
    if not isinstance(call, Mapping):
        raise UpstreamError("The model's provider sent a tool call that is not an object.")
    yield from _texts(call, CALL_TEXT, channel)
    for key in unread(call, frozenset(CALL_TEXT)):
        yield Delta((*channel, key), None)


def _audio(audio: object, index: int) -> Iterator[Delta]:
    """A spoken answer: its transcript is text; the sound itself nobody here can hear."""
    if audio is None:
        return
    if not isinstance(audio, Mapping):
        raise UpstreamError("The model's provider sent audio that is not an object.")
    yield from _texts(audio, {"transcript": Kind.TEXT}, (index, "audio"))
    if carries_text(audio.get("data")):
        yield Delta((index, "audio", "data"), None, Kind.MEDIA)
    for key in unread(audio, frozenset({"transcript", "data"}), frozenset({"id"})):
        yield Delta((index, "audio", key), None)


def _logprobs(logprobs: object, content: object, index: int) -> Iterator[Delta]:
    """Nothing where they only spell out the content they came with: that is read already."""
    said = logprobs_text(logprobs)
    if said and said != content:
        yield Delta((index, "logprobs"), said)


def _objects(value: object, name: str) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise UpstreamError(f"The model's provider sent {name} that are not a list of objects.")
    return value


def _edited_choice(choice: Json, texts: Mapping[Channel, str]) -> Json:
    """What cannot be edited in place goes; so do logprobs, which spell the text out token by token."""
    index, delta = choice["index"], dict(choice.get("delta") or {})
    for field in DELTA_TEXT:
        if (index, field) in texts:
            delta[field] = texts[index, field]
    for field in DELTA_JOINED:
        if (index, field) in texts:
            del delta[field]
    if (index, "audio", "transcript") in texts:
        delta["audio"] = {**delta["audio"], "transcript": texts[index, "audio", "transcript"]}
    if delta.get("tool_calls"):
        delta["tool_calls"] = [
            _edited_tool_call(call, (index, "tool_calls", call.get("index", i)), texts)
            for i, call in enumerate(delta["tool_calls"])
        ]
    if delta.get("function_call"):
        delta["function_call"] = _edited_call(delta["function_call"], (index, "function_call"), texts)
    gone = {"logprobs"} | ({"stop_reason"} if (index, "stop_reason") in texts else set())
    return {**choice, "delta": delta, **{key: None for key in gone if key in choice}}


def _edited_tool_call(call: Json, channel: Channel, texts: Mapping[Channel, str]) -> Json:
    edits = {"function": channel, "custom": (*channel, "custom")}
    return {**call, **{key: _edited_call(call[key], at, texts) for key, at in edits.items() if call.get(key)}}


def _edited_call(call: Json, channel: Channel, texts: Mapping[Channel, str]) -> Json:
    return {**call, **{field: texts[*channel, field] for field in CALL_TEXT if (*channel, field) in texts}}
