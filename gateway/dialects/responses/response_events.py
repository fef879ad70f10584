"""The events of a streamed response: where in the response the text in each of them stands."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.dialects.dialect import Channel, Json
from gateway.dialects.fields import is_index
from gateway.errors import UpstreamError
from guard_runtime.conversation import Kind

EVENT_NAMES = frozenset({"type", "item_id", "name", "obfuscation", "stream_id"})
INDICES = frozenset({"output_index", "content_index", "summary_index", "command_index", "annotation_index"})

OUTPUT: tuple[str, ...] = ("output", "output_index")
CONTENT: tuple[str, ...] = (*OUTPUT, "content", "content_index")
SUMMARY: tuple[str, ...] = (*OUTPUT, "summary", "summary_index")


@dataclass(frozen=True, slots=True)
class Piece:
    """An event whose `field` holds text, or an object with text in it, and where in the response that stands: some of
    the steps of `place` are the event's own indices. `whole`: it repeats what deltas have said before."""

    field: str
    place: tuple[str, ...]
    kind: Kind = Kind.TEXT
    whole: bool = False

    def channel(self, data: Json) -> Channel:
        steps: list[str | int] = []
        for step in self.place:
            if step not in INDICES:
                steps.append(step)
            elif is_index(data.get(step)):
                steps.append(data[step])
            else:
                raise UpstreamError(f"The model's provider sent an event without {step}.")
        return tuple(steps)


def _pair(name: str, place: tuple[str, ...], kind: Kind = Kind.TEXT, field: str = "text") -> dict[str, Piece]:
    return {
        f"response.{name}.delta": Piece("delta", place, kind),
        f"response.{name}.done": Piece(field, place, kind, whole=True),
    }


_COMMANDS = (*OUTPUT, "commands", "command_index")
PIECES: Mapping[str, Piece] = {
    **_pair("output_text", (*CONTENT, "text")),
    **_pair("refusal", (*CONTENT, "refusal"), Kind.REFUSAL, "refusal"),
    **_pair("reasoning_text", (*CONTENT, "text"), Kind.REASONING),
    **_pair("reasoning_summary_text", (*SUMMARY, "text"), Kind.REASONING),
    **_pair("function_call_arguments", (*OUTPUT, "arguments"), Kind.TOOL_CALL, "arguments"),
    **_pair("mcp_call_arguments", (*OUTPUT, "arguments"), Kind.TOOL_CALL, "arguments"),
    **_pair("custom_tool_call_input", (*OUTPUT, "input"), Kind.TOOL_CALL, "input"),
    **_pair("code_interpreter_call_code", (*OUTPUT, "code"), Kind.TOOL_CALL, "code"),
    **_pair("shell_call_command", _COMMANDS, Kind.TOOL_CALL, "command"),
    "response.shell_call_command.added": Piece("command", _COMMANDS, Kind.TOOL_CALL),
    "response.audio.transcript.delta": Piece("delta", ("audio", "transcript")),
}
HOLDERS: Mapping[str, Piece] = {
    "response.output_item.added": Piece("item", OUTPUT),
    "response.output_item.done": Piece("item", OUTPUT),
    "response.content_part.added": Piece("part", CONTENT),
    "response.content_part.done": Piece("part", CONTENT),
    "response.reasoning_summary_part.added": Piece("part", SUMMARY),
    "response.reasoning_summary_part.done": Piece("part", SUMMARY),
    "response.created": Piece("response", ()),
    "response.queued": Piece("response", ()),
    "response.in_progress": Piece("response", ()),
    "response.completed": Piece("response", ()),
    "response.incomplete": Piece("response", ()),
}
"""Events that hold an item, a part or the whole response."""
TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
MEDIA: Mapping[str, str] = {
    "response.audio.delta": "delta",
    "response.image_generation_call.partial_image": "partial_image_b64",
}
JOINED: Mapping[str, Piece] = {
    "response.output_text.annotation.added": Piece("annotation", (*CONTENT, "annotations")),
    "response.shell_call_output_content.delta": Piece("delta", (*OUTPUT, "results")),
    "response.shell_call_output_content.done": Piece("output", (*OUTPUT, "results")),
}
"""Events whose field holds an object: all its strings are read together."""


def known_fields(event_type: str) -> frozenset[str]:
    """The fields of an event that are read; the others are numbers and names, or cannot be read."""
    if event_type in PIECES:
        return frozenset({PIECES[event_type].field, "logprobs"})
    if event_type in HOLDERS:
        return frozenset({HOLDERS[event_type].field})
    if event_type in JOINED:
        return frozenset({JOINED[event_type].field})
    return frozenset({MEDIA[event_type]}) if event_type in MEDIA else frozenset()


def is_whole(event_type: str) -> bool:
    """Whether an event repeats in full what deltas have said."""
    return event_type in HOLDERS or (event_type in PIECES and PIECES[event_type].whole)


def error_of(data: Json) -> object:
    """The error in an event that reports one."""
    response = data.get("response")
    return data.get("error") or (response.get("error") if isinstance(response, Mapping) else data)
