"""The events of a streamed response: where in the response the text in each of them stands."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.dialects.dialect import Channel, Json
from gateway.errors import UpstreamError
from guard_runtime.conversation import Kind

MAX_INDEX = 1024
EVENT_NAMES = frozenset({"type", "item_id", "name", "obfuscation", "stream_id"})
INDICES = frozenset({"output_index", "content_index", "summary_index", "command_index", "annotation_index"})

OUTPUT: tuple[str, ...] = ("output", "output_index")
CONTENT: tuple[str, ...] = (*OUTPUT, "content", "content_index")
SUMMARY: tuple[str, ...] = (*OUTPUT, "summary", "summary_index")


@dataclass(frozen=True, slots=True)
class Piece:
    """An event whose `field` holds text of the channel at `place`, of which some steps are the event's indices; all of
    it where `whole`."""

    field: str
    place: tuple[str, ...]
    kind: Kind = Kind.TEXT
    whole: bool = False

    def channel(self, data: Json) -> Channel:
        steps: list[str | int] = []
        for step in self.place:
            number = data.get(step)
            if step in INDICES and not (isinstance(number, int) and 0 <= number < MAX_INDEX):
                raise UpstreamError(f"The model's provider sent an event without {step}.")
            steps.append(int(number) if step in INDICES and isinstance(number, int) else step)
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
HOLDERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "response.output_item.added": ("item", OUTPUT),
    "response.output_item.done": ("item", OUTPUT),
    "response.content_part.added": ("part", CONTENT),
    "response.content_part.done": ("part", CONTENT),
    "response.reasoning_summary_part.added": ("part", SUMMARY),
    "response.reasoning_summary_part.done": ("part", SUMMARY),
    "response.created": ("response", ()),
    "response.queued": ("response", ()),
    "response.in_progress": ("response", ()),
    "response.completed": ("response", ()),
    "response.incomplete": ("response", ()),
}
"""Events that hold an item, a part or the whole response: the field, and where that stands."""
TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
MEDIA: Mapping[str, str] = {
    "response.audio.delta": "delta",
    "response.image_generation_call.partial_image": "partial_image_b64",
}
JOINED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "response.output_text.annotation.added": ("annotation", (*CONTENT, "annotations")),
    "response.shell_call_output_content.delta": ("delta", (*OUTPUT, "results")),
    "response.shell_call_output_content.done": ("output", (*OUTPUT, "results")),
}
"""Events whose field holds an object: all its strings are read together."""


def known_fields(found: str) -> frozenset[str]:
    """The fields of an event that are read; the others are numbers and names, or cannot be read."""
    if found in PIECES:
        return frozenset({PIECES[found].field, "logprobs"})
    if found in HOLDERS:
        return frozenset({HOLDERS[found][0]})
    if found in JOINED:
        return frozenset({JOINED[found][0]})
    return frozenset({MEDIA[found]}) if found in MEDIA else frozenset()


def is_whole(found: str) -> bool:
    """Whether an event repeats whole what deltas have said."""
    return found in HOLDERS or (found in PIECES and PIECES[found].whole)


def error_of(data: Json) -> object:
    """The error in an event that reports one."""
    response = data.get("response")
    return data.get("error") or (response.get("error") if isinstance(response, Mapping) else data)
