"""One choice of a streamed chat completion: reads its delta, and writes it again with other text."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from gateway.dialects.choices.choice_stream import objects, texts
from gateway.dialects.choices.choices import CHOICE_NAMES
from gateway.dialects.choices.content_pieces import piece_deltas, with_piece_texts
from gateway.dialects.choices.normal_answers import CallNumbers
from gateway.dialects.choices.vendor_fields import (
    IN_MESSAGE,
    OF_CALL,
    OF_CHOICE,
    vendor_deltas,
    with_vendor_texts,
)
from gateway.dialects.dialect import Channel, Delta, Json, Refusal
from gateway.dialects.fields import carries_text, is_index, strings, unread_in_answer
from gateway.dialects.logprobs import spelled
from gateway.errors import UpstreamError
from gateway.policy.policy import Action
from guard_runtime.conversation import Kind

CHOICE_KNOWN = frozenset({"logprobs", "delta", "message", *OF_CHOICE})
DELTA_TEXT: Mapping[str, Kind] = {
    "content": Kind.TEXT,
    "refusal": Kind.REFUSAL,
    "reasoning_content": Kind.REASONING,
    "reasoning": Kind.REASONING,
}
DELTA_NAMES = frozenset({"role"})
DELTA_KNOWN = frozenset({*DELTA_TEXT, *IN_MESSAGE, "tool_calls", "function_call", "audio"})
CALL_NAMES = frozenset({"index", "id", "type"})
CALL_KNOWN = frozenset({"function", "custom", *OF_CALL})
CALL_TEXT: Mapping[str, Kind] = {"name": Kind.NAME, "arguments": Kind.TOOL_CALL, "input": Kind.TOOL_CALL}


class ChatDelta:
    """`structured`: the caller asked for JSON and parses the content, so a safe message is sent as a refusal."""

    def __init__(self, *, structured: bool) -> None:
        self._structured = structured
        self._numbers = CallNumbers()

    def normalised(self, choice: Any) -> Any:
        if not isinstance(choice, Mapping) or not is_index(choice.get("index")):
            return choice
        return self._numbers.normal(choice, choice["index"])

    def read(self, choice: Json, index: int) -> Iterator[Delta]:
        delta = choice.get("delta")
        if not isinstance(delta, Mapping | None):
            raise UpstreamError("The model's provider sent a delta that is not an object.")
        delta = delta or {}
        listed = isinstance(delta.get("content"), list)
        yield from texts({**delta, "content": None} if listed else delta, DELTA_TEXT, (index,))
        if listed:
            yield from piece_deltas(delta["content"], (index,))
        yield from vendor_deltas(delta, IN_MESSAGE, (index,))
        yield from _calls(delta.get("tool_calls"), index)
        yield from _call(delta.get("function_call"), (index, "function_call"))
        yield from _audio(delta.get("audio"), index)
        for key in unread_in_answer(delta, DELTA_KNOWN, DELTA_NAMES):
            yield Delta((index, "delta", key), None)
        logprobs = logprobs_text(choice.get("logprobs"))
        if logprobs and logprobs != delta.get("content"):  # else they only spell out what is read already
            yield Delta((index, "logprobs"), logprobs)
        yield from vendor_deltas(choice, OF_CHOICE, (index, "choice"))
        for key in unread_in_answer(choice, CHOICE_KNOWN - {"message"}, CHOICE_NAMES):
            yield Delta((index, "choice", key), None)

    def edited(self, choice: Json, index: int, texts: Mapping[Channel, str]) -> Json:
        """Removes what cannot be edited in place, and logprobs, which repeat the text token by token."""
        delta = dict(choice.get("delta") or {})
        if isinstance(delta.get("content"), list):
            delta["content"] = with_piece_texts(delta["content"], (index,), texts)
        else:
            delta |= {"content": texts[index, "content"]} if (index, "content") in texts else {}
        delta |= {field: texts[index, field] for field in DELTA_TEXT if field != "content" and (index, field) in texts}
        delta = with_vendor_texts(delta, IN_MESSAGE, (index,), texts)
        if (index, "audio", "transcript") in texts:
            delta["audio"] = {**delta["audio"], "transcript": texts[index, "audio", "transcript"]}
        if delta.get("tool_calls"):
            delta["tool_calls"] = [
                _edited_tool_call(call, (index, "tool_calls", call.get("index", i)), texts)
                for i, call in enumerate(delta["tool_calls"])
            ]
        if delta.get("function_call"):
            delta["function_call"] = _edited_call(delta["function_call"], (index, "function_call"), texts)
        choice = with_vendor_texts(choice, OF_CHOICE, (index, "choice"), texts)
        return {**choice, "delta": delta, **({"logprobs": None} if "logprobs" in choice else {})}

    def without(self, choice: Json, index: int, unknown: Collection[Channel]) -> Json:
        new = _less(choice, (index, "choice"), unknown)
        if isinstance(new.get("delta"), Mapping):
            new["delta"] = delta = _less(new["delta"], (index, "delta"), unknown)
            if isinstance(delta.get("tool_calls"), list):
                delta["tool_calls"] = [
                    _less_call(call, (index, "tool_calls", call.get("index", i)), unknown)
                    for i, call in enumerate(delta["tool_calls"])
                ]
            if isinstance(delta.get("function_call"), Mapping):
                delta["function_call"] = _less(delta["function_call"], (index, "function_call"), unknown)
            if isinstance(delta.get("audio"), Mapping):
                delta["audio"] = _less(delta["audio"], (index, "audio"), unknown)
        return new

    def refusal_fields(self, refusal: Refusal, *, begun: bool) -> Json:
        field = "content" if refusal.decision.action is Action.REWRITE and not self._structured else "refusal"
        return {"delta": {field: refusal.text} if begun else {"role": "assistant", field: refusal.text}}

    def closing_fields(self) -> Json:
        return {"delta": {}}


def logprobs_text(logprobs: object) -> str:
    """All text in the logprobs of one choice."""
    if not isinstance(logprobs, Mapping):
        return "\n".join(strings(logprobs))
    rest = {key: value for key, value in logprobs.items() if key not in ("content", "refusal")}
    pieces = (spelled(logprobs.get("content")), spelled(logprobs.get("refusal")), *strings(rest))
    return "\n".join(piece for piece in pieces if piece)


def _calls(calls: object, index: int) -> Iterator[Delta]:
    numbers: set[int] = set()
    for position, call in enumerate(objects(calls, "tool calls")):
        number = call.get("index", position)
        if not is_index(number):
            raise UpstreamError("The model's provider sent a tool call without an index.")
        if number in numbers:
            raise UpstreamError(f"The model's provider sent tool call {number} twice in one chunk.")
        numbers.add(number)
        channel = (index, "tool_calls", number)
        yield from _call(call.get("function"), channel)
        yield from _call(call.get("custom"), (*channel, "custom"))
        yield from vendor_deltas(call, OF_CALL, channel)
        for key in unread_in_answer(call, CALL_KNOWN, CALL_NAMES):
            yield Delta((*channel, key), None)


def _call(call: object, channel: Channel) -> Iterator[Delta]:
    if call is None:
        return
    if not isinstance(call, Mapping):
        raise UpstreamError("The model's provider sent a tool call that is not an object.")
    yield from texts(call, CALL_TEXT, channel)
    for key in unread_in_answer(call, frozenset(CALL_TEXT)):
        yield Delta((*channel, key), None)


def _audio(audio: object, index: int) -> Iterator[Delta]:
    """A spoken answer: its transcript is text; the sound itself cannot be read by a guard."""
    if audio is None:
        return
    if not isinstance(audio, Mapping):
        raise UpstreamError("The model's provider sent audio that is not an object.")
    yield from texts(audio, {"transcript": Kind.TEXT}, (index, "audio"))
    if carries_text(audio.get("data")):
        yield Delta((index, "audio", "data"), None, Kind.MEDIA)
    for key in unread_in_answer(audio, frozenset({"transcript", "data"}), frozenset({"id"})):
        yield Delta((index, "audio", key), None)


def _edited_tool_call(call: Json, channel: Channel, texts: Mapping[Channel, str]) -> Json:
    edits = {"function": channel, "custom": (*channel, "custom")}
    call = with_vendor_texts(call, OF_CALL, channel, texts)
    return {**call, **{key: _edited_call(call[key], at, texts) for key, at in edits.items() if call.get(key)}}


def _less(holder: Json, channel: Channel, unknown: Collection[Channel]) -> dict[str, Any]:
    """A copy without the fields that nobody knows."""
    return {key: value for key, value in holder.items() if (*channel, key) not in unknown}


def _less_call(call: Json, channel: Channel, unknown: Collection[Channel]) -> Json:
    new = _less(call, channel, unknown)
    for key, at in (("function", channel), ("custom", (*channel, "custom"))):
        if isinstance(new.get(key), Mapping):
            new[key] = _less(new[key], at, unknown)
    return new


def _edited_call(call: Json, channel: Channel, texts: Mapping[Channel, str]) -> Json:
    return {**call, **{field: texts[*channel, field] for field in CALL_TEXT if (*channel, field) in texts}}
