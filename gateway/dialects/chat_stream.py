"""A streamed chat completion: its deltas, and every lawful way it can end."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.dialects.dialect import Channel, Delta, Event, Json, Refusal
from gateway.dialects.fields import carries_text, is_identifier, strings
from gateway.errors import GatewayError, UpstreamError
from gateway.policy import Action
from guard_runtime.conversation import Kind

# Fields of a chunk, a choice and a delta whose strings are no content; each string is held to an identifier's shape.
CHUNK_FIELDS = frozenset({"id", "object", "created", "model", "system_fingerprint", "service_tier", "obfuscation"})
DELTA_TEXT: Mapping[str, Kind] = {
    "content": Kind.TEXT,
    "refusal": Kind.REFUSAL,
    "reasoning_content": Kind.REASONING,
    "reasoning": Kind.REASONING,
}
FINISH_REASONS = frozenset({"stop", "length", "content_filter", "tool_calls", "function_call"})
ROLES = frozenset({"assistant", "", None})
NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


class ChatStream:
    """`expected` choices are open until their finish reason has left for the caller."""

    def __init__(self, model: str, expected: int, usage: bool, *, structured: bool = False) -> None:
        self._stamp: dict[str, Any] = {"id": "", "object": "chat.completion.chunk", "created": 0, "model": model}
        self._open = set(range(expected))
        self._begun: set[int] = set()
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
        if event.data.get("error"):
            raise _upstream_error(event.data["error"])
        choices = event.data.get("choices", [])
        if not isinstance(choices, list):
            raise UpstreamError("The model's provider sent a chunk whose choices are not a list.")
        if isinstance(event.data.get("usage"), Mapping):
            self._usage = event.data["usage"]
        deltas = list(_strangers(event.data, CHUNK_FIELDS | {"choices", "usage"}, ("chunk",), ids=CHUNK_FIELDS))
        for choice in choices:
            deltas.extend(self._choice(choice))
        return deltas

    def _choice(self, choice: object) -> Iterator[Delta]:
        if not isinstance(choice, Mapping) or not isinstance(choice.get("index"), int):
            raise UpstreamError("The model's provider sent a choice without an index.")
        index = choice["index"]
        if not 0 <= index < 128:
            raise UpstreamError("The model's provider sent a choice with an impossible index.")
        delta = choice.get("delta")
        if not isinstance(delta, Mapping | None):
            raise UpstreamError("The model's provider sent a delta that is not an object.")
        yield from _deltas(delta or {}, index)
        logprobs = "".join(strings(choice.get("logprobs")))
        if logprobs:
            yield Delta((index, "logprobs"), logprobs)
        yield from _strangers(choice, frozenset({"index", "delta", "finish_reason", "logprobs"}), (index, "choice"))
        finish = choice.get("finish_reason")
        if finish is not None:
            self._waiting.discard(index)
            if finish not in FINISH_REASONS:
                yield Delta((index, "finish_reason"), None)

    def edited(self, event: Event, texts: Mapping[Channel, str]) -> Event:
        if event.data is None:
            return event
        choices = [_edited_choice(choice, texts) for choice in event.data.get("choices", [])]
        return Event({**event.data, "choices": choices}, event.name)

    def sent(self, event: Event) -> None:
        if event.data is None:
            self._done_sent = True
            return
        for key in CHUNK_FIELDS & event.data.keys():
            self._stamp[key] = event.data[key]
        if event.data.get("usage") and not event.data.get("choices"):
            self._usage_sent = True
        for choice in event.data.get("choices", []):
            self._begun.add(choice["index"])
            self._open.add(choice["index"])
            if choice.get("finish_reason") is not None:
                self._open.discard(choice["index"])

    def begin(self, refusal: Refusal) -> Sequence[Event]:
        self._open = {0}
        self._stamp |= {"id": f"chatcmpl-{refusal.id}", "created": refusal.created}
        return [self._chunk(0, self._said(refusal)), self._chunk(0, {}, "stop"), *self._closing()]

    def stop(self, refusal: Refusal) -> Sequence[Event]:
        return [*self._endings(refusal), *self._closing()]

    def replace(self, refusal: Refusal) -> Sequence[Event]:
        events: list[Event] = []
        for index in sorted(self._open):
            delta = self._said(refusal)
            if index in self._begun:
                del delta["role"]
            events += [self._chunk(index, delta), self._chunk(index, {}, "stop")]
        return [*events, *self._closing()]

    def fail(self, error: GatewayError) -> Sequence[Event]:
        body = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
        return [Event({"error": body}), *([] if self._done_sent else [Event(None)])]

    def close(self) -> Sequence[Event]:
        return [] if self._done_sent else [Event(None)]

    def _endings(self, refusal: Refusal) -> Iterator[Event]:
        """Every open choice closed, index 0 first. A caller who has seen nothing of a choice also gets the sentence."""
        for index in sorted(self._open):
            if index not in self._begun:
                yield self._chunk(index, {"role": "assistant", "refusal": refusal.text})
            yield self._chunk(index, {}, "content_filter")

    def _said(self, refusal: Refusal) -> dict[str, Any]:
        field = "content" if refusal.decision.action is Action.REWRITE and not self._structured else "refusal"
        return {"role": "assistant", field: refusal.text}

    def _chunk(self, index: int, delta: Json, finish: str | None = None) -> Event:
        return Event({**self._stamp, "choices": [{"index": index, "delta": delta, "finish_reason": finish}]})

    def _closing(self) -> Iterator[Event]:
        if self._wants_usage and not self._usage_sent:
            yield Event({**self._stamp, "choices": [], "usage": self._usage or NO_USAGE})
        if not self._done_sent:
            yield Event(None)


def _deltas(delta: Json, index: int) -> Iterator[Delta]:
    for field, kind in DELTA_TEXT.items():
        value = delta.get(field)
        if value is not None and value != "":
            yield Delta((index, field), value if isinstance(value, str) else None, kind)
    if delta.get("role") not in ROLES:
        yield Delta((index, "role"), None)
    calls = delta.get("tool_calls")
    if not isinstance(calls, list | None):
        raise UpstreamError("The model's provider sent tool calls that are not a list.")
    for position, call in enumerate(calls or ()):
        if not isinstance(call, Mapping):
            raise UpstreamError("The model's provider sent a tool call that is not an object.")
        number = call.get("index", position)
        yield from _call(call.get("function"), (index, "tool_calls", number))
        yield from _strangers(
            call,
            frozenset({"index", "id", "type", "function"}),
            (index, "tool_calls", number),
            ids=frozenset({"id", "type"}),
        )
    yield from _call(delta.get("function_call"), (index, "function_call"))
    yield from _audio(delta.get("audio"), index)
    known = frozenset({*DELTA_TEXT, "role", "tool_calls", "function_call", "audio"})
    yield from _strangers(delta, known, (index, "delta"))


def _call(call: object, channel: Channel) -> Iterator[Delta]:
    if call is None:
        return
    if not isinstance(call, Mapping):
        raise UpstreamError("The model's provider sent a tool call without a function.")
    for field, kind in (("name", Kind.NAME), ("arguments", Kind.TOOL_CALL)):
        value = call.get(field)
        if value is not None and value != "":
            yield Delta((*channel, field), value if isinstance(value, str) else None, kind)
    yield from _strangers(call, frozenset({"name", "arguments"}), channel)


def _audio(audio: object, index: int) -> Iterator[Delta]:
    """A spoken answer: its transcript is text; the sound itself nobody here can hear."""
    if not isinstance(audio, Mapping):
        return
    if audio.get("transcript"):
        text = audio["transcript"]
        yield Delta((index, "audio", "transcript"), text if isinstance(text, str) else None)
    if any(key != "transcript" and carries_text(value) for key, value in audio.items()):
        yield Delta((index, "audio", "data"), None, Kind.MEDIA)


def _strangers(
    holder: Json, known: frozenset[str], channel: Channel, ids: frozenset[str] = frozenset()
) -> Iterator[Delta]:
    """Fields no channel knows, and ids that are no ids: what they say cannot be read."""
    for key, value in holder.items():
        stranger = key not in known and carries_text(value)
        if stranger or (key in ids and value is not None and not isinstance(value, int) and not is_identifier(value)):
            yield Delta((*channel, key), None)


def _edited_choice(choice: Json, texts: Mapping[Channel, str]) -> Json:
    index, delta = choice["index"], dict(choice.get("delta") or {})
    for field in DELTA_TEXT:
        if (index, field) in texts:
            delta[field] = texts[index, field]
    if (index, "audio", "transcript") in texts:
        delta["audio"] = {**delta["audio"], "transcript": texts[index, "audio", "transcript"]}
    if delta.get("tool_calls"):
        delta["tool_calls"] = [
            {**call, "function": _edited_call(call.get("function"), (index, "tool_calls", call.get("index", i)), texts)}
            for i, call in enumerate(delta["tool_calls"])
        ]
    if delta.get("function_call"):
        delta["function_call"] = _edited_call(delta["function_call"], (index, "function_call"), texts)
    # logprobs spell the text out token by token: they go when the text is changed
    return {**choice, "delta": delta, **({"logprobs": None} if "logprobs" in choice else {})}


def _edited_call(call: Json | None, channel: Channel, texts: Mapping[Channel, str]) -> Json | None:
    if call is None:
        return None
    return {**call, **{field: texts[*channel, field] for field in ("name", "arguments") if (*channel, field) in texts}}


def _upstream_error(error: Any) -> UpstreamError:
    message = error.get("message") if isinstance(error, Mapping) else error
    return UpstreamError(f"The model's provider reported an error: {str(message)[:200]}")
