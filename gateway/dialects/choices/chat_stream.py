"""One choice of a streamed chat completion: reads its delta, and writes it again with other text."""

from collections.abc import Iterator, Mapping

from gateway.dialects.choices.choice_stream import joined_texts, objects, texts
from gateway.dialects.choices.choices import CHOICE_NAMES
from gateway.dialects.dialect import Channel, Delta, Json, Refusal
from gateway.dialects.fields import carries_text, is_index, strings, unread
from gateway.dialects.logprobs import spelled
from gateway.errors import UpstreamError
from gateway.policy.policy import Action
from guard_runtime.conversation import Kind

CHOICE_KNOWN = frozenset({"logprobs", "stop_reason", "delta", "message"})
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


class ChatDelta:
    """`structured`: the caller asked for JSON and parses the content, so a safe message is sent as a refusal."""

    def __init__(self, *, structured: bool) -> None:
        self._structured = structured

    def read(self, choice: Json, index: int) -> Iterator[Delta]:
        delta = choice.get("delta")
        if not isinstance(delta, Mapping | None):
            raise UpstreamError("The model's provider sent a delta that is not an object.")
        delta = delta or {}
        yield from texts(delta, DELTA_TEXT, (index,))
        yield from joined_texts(delta, DELTA_JOINED, (index,))
        yield from _calls(delta.get("tool_calls"), index)
        yield from _call(delta.get("function_call"), (index, "function_call"))
        yield from _audio(delta.get("audio"), index)
        for key in unread(delta, DELTA_KNOWN, DELTA_NAMES):
            yield Delta((index, "delta", key), None)
        logprobs = logprobs_text(choice.get("logprobs"))
        if logprobs and logprobs != delta.get("content"):  # else they only spell out what is read already
            yield Delta((index, "logprobs"), logprobs)
        yield from joined_texts(choice, {"stop_reason": Kind.TEXT}, (index,))
        for key in unread(choice, CHOICE_KNOWN - {"message"}, CHOICE_NAMES):
            yield Delta((index, "choice", key), None)

    def edited(self, choice: Json, index: int, texts: Mapping[Channel, str]) -> Json:
        """Removes what cannot be edited in place, and logprobs, which repeat the text token by token."""
        delta = dict(choice.get("delta") or {})
        delta |= {field: texts[index, field] for field in DELTA_TEXT if (index, field) in texts}
        delta = {key: value for key, value in delta.items() if key not in DELTA_JOINED or (index, key) not in texts}
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
        for key in unread(call, CALL_KNOWN, CALL_NAMES):
            yield Delta((*channel, key), None)


def _call(call: object, channel: Channel) -> Iterator[Delta]:
    if call is None:
        return
    if not isinstance(call, Mapping):
        raise UpstreamError("The model's provider sent a tool call that is not an object.")
    yield from texts(call, CALL_TEXT, channel)
    for key in unread(call, frozenset(CALL_TEXT)):
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
    for key in unread(audio, frozenset({"transcript", "data"}), frozenset({"id"})):
        yield Delta((index, "audio", key), None)


def _edited_tool_call(call: Json, channel: Channel, texts: Mapping[Channel, str]) -> Json:
    edits = {"function": channel, "custom": (*channel, "custom")}
    return {**call, **{key: _edited_call(call[key], at, texts) for key, at in edits.items() if call.get(key)}}


def _edited_call(call: Json, channel: Channel, texts: Mapping[Channel, str]) -> Json:
    return {**call, **{field: texts[*channel, field] for field in CALL_TEXT if (*channel, field) in texts}}
