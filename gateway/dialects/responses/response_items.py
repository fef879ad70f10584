"""The items of a response, in requests and in answers: which of their strings are content.

An unknown item or field becomes a part of kind TEXT without text: a request with one is refused, and in an answer the
policy's `on_unreadable` applies.
Fields after https://platform.openai.com/docs/api-reference/responses/object and the openai package 3.54.
"""

from collections.abc import Callable, Iterator, Mapping

from gateway.dialects.dialect import Json
from gateway.dialects.fields import (
    RESULTS_MARK,
    arguments,
    dotted,
    items,
    joined,
    leaves,
    only_names,
    text,
    unread,
    wordy_ids,
)
from gateway.dialects.logprobs import spelled
from gateway.dialects.media import media_part, of_sound, of_url
from gateway.dialects.seals import sealed_part
from gateway.errors import BadRequest
from guard_runtime.conversation import Kind, Media, MediaKind, Part, Path, Role

Reader = Callable[[object, Path], Iterator[Part]]

ROLES: Mapping[str, Role] = {
    "user": Role.USER,
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "assistant": Role.ASSISTANT,
}
ITEM_NAMES = frozenset(
    {
        "approval_request_id",
        "background",
        "call_id",
        "caller",
        "container_id",
        "created_by",
        "execution",
        "fingerprint",
        "id",
        "internal_chat_message_metadata_passthrough",
        "metadata",
        "output_format",
        "phase",
        "quality",
        "role",
        "size",
        "status",
        "type",
    }
)
PIECE_NAMES = frozenset({"type", "detail", "file_id", "prompt_cache_breakpoint"})
PIECE_TEXT: Mapping[str, Kind] = {
    "input_text": Kind.TEXT,
    "output_text": Kind.TEXT,
    "text": Kind.TEXT,
    "summary_text": Kind.REASONING,
    "reasoning_text": Kind.REASONING,
    "refusal": Kind.REFUSAL,
}
PIECE_MEDIA: Mapping[str, frozenset[str]] = {
    "input_image": frozenset({"image_url"}),
    "input_file": frozenset({"file_data", "file_url"}),
    "input_audio": frozenset({"input_audio"}),
    "computer_screenshot": frozenset({"image_url"}),
}

OWN_TOOLS = frozenset(
    {"function", "custom", "namespace", "local_shell", "apply_patch", "computer_use_preview", "computer"}
)
"""Tools that the caller runs and whose results come in by a request, to be read there."""


def _text(kind: Kind) -> Reader:
    return lambda value, path: text(value, path, kind)


def _joined(kind: Kind) -> Reader:
    return lambda value, path: joined(value, path, kind)


def _content(kind: Kind) -> Reader:
    return lambda value, path: content(value, path, kind)


def _arguments(value: object, path: Path) -> Iterator[Part]:
    """A string that holds JSON; a search's are an object already."""
    if isinstance(value, str):
        yield from arguments(value, path)
    else:
        yield from joined(value, path, Kind.TOOL_CALL)


def _media(value: object, path: Path) -> Iterator[Part]:
    if value is not None:
        yield Part(path, None, Kind.MEDIA)


def _names(value: object, path: Path) -> Iterator[Part]:
    """Settings, whose strings are names."""
    if not only_names(value):
        yield Part(path, None)


_CALL = _joined(Kind.TOOL_CALL)
_RESULT = _joined(Kind.TOOL_RESULT)
_NAME = _text(Kind.NAME)
_FUNCTION: Mapping[str, Reader] = {
    "name": _NAME,
    "namespace": _NAME,
    "arguments": _arguments,
    "parsed_arguments": lambda value, path: leaves(value, path, Kind.TOOL_CALL),
}
_OUTPUT: Mapping[str, Reader] = {"output": _content(Kind.TOOL_RESULT), "name": _NAME, "namespace": _NAME}
_MCP: Mapping[str, Reader] = {
    "name": _NAME,
    "server_label": _NAME,
    "arguments": _arguments,
    "output": _text(Kind.TOOL_RESULT),
    "error": _RESULT,
    "tools": _joined(Kind.TOOL_DEFINITION),
}
ITEMS: Mapping[str, Mapping[str, Reader]] = {
    "message": {"content": _content(Kind.TEXT)},
    "reasoning": {
        "summary": _content(Kind.REASONING),
        "content": _content(Kind.REASONING),
        "encrypted_content": sealed_part,
    },
    "compaction": {"encrypted_content": sealed_part},
    "compaction_trigger": {},
    "configuration_update": {"reasoning": _names, "text": _joined(Kind.SCHEMA)},
    "function_call": _FUNCTION,
    "function_call_output": _OUTPUT,
    "custom_tool_call": {**_FUNCTION, "input": _text(Kind.TOOL_CALL)},
    "custom_tool_call_output": _OUTPUT,
    "tool_search_call": {"arguments": _arguments},
    "tool_search_output": {"tools": _joined(Kind.TOOL_DEFINITION)},
    "additional_tools": {"tools": _joined(Kind.TOOL_DEFINITION)},
    "file_search_call": {"queries": _CALL, "results": _RESULT},
    "web_search_call": {"action": _CALL},
    "computer_call": {"action": _CALL, "actions": _CALL, "pending_safety_checks": _CALL},
    "computer_call_output": {"output": _media, "acknowledged_safety_checks": _CALL},
    "image_generation_call": {
        "result": _media,
        "revised_prompt": _text(Kind.TEXT),
        "error": _RESULT,
        "action": _CALL,
        "svg_usage": _RESULT,
    },
    "code_interpreter_call": {"code": _text(Kind.TOOL_CALL), "outputs": _RESULT},
    "local_shell_call": {"action": _CALL},
    "local_shell_call_output": {"output": _text(Kind.TOOL_RESULT)},
    "shell_call": {"action": _CALL, "environment": _CALL},
    "shell_call_output": {"output": _RESULT},
    "apply_patch_call": {"operation": _CALL},
    "apply_patch_call_output": {"output": _text(Kind.TOOL_RESULT)},
    "mcp_call": _MCP,
    "mcp_list_tools": _MCP,
    "mcp_approval_request": _MCP,
    "mcp_approval_response": {"reason": _text(Kind.TEXT)},
    "program": {"code": _text(Kind.TOOL_CALL)},
    "program_output": {"result": _text(Kind.TOOL_RESULT)},
}


def type_of(item: Json) -> str:
    """An item's type; one without is a message, as the API has it."""
    item_type = item.get("type")
    if item_type is None and "role" in item:
        return "message"
    return item_type if isinstance(item_type, str) else ""


def role_of(item: Json) -> Role:
    """Who speaks in an item of a request."""
    item_type = type_of(item)
    if item_type == "message":
        return ROLES.get(str(item.get("role")), Role.USER)
    return Role.TOOL if item_type.endswith(("_output", "_tools")) else Role.ASSISTANT


def item_parts(item: Json, path: Path) -> Iterator[Part]:
    """Every part of one item. Raises `BadRequest` where a known field has the wrong shape."""
    readers = ITEMS.get(type_of(item))
    if readers is None:
        yield Part((*path, "type"), None)
        return
    for key, value in item.items():
        if key in readers:
            yield from readers[key](value, (*path, key))
    wordy = wordy_ids(item, ("id", "call_id"))
    for key in sorted(wordy):
        yield from text(item[key], (*path, key), Kind.NAME)
    for key in unread(item, wordy | readers.keys(), ITEM_NAMES - readers.keys() - wordy):
        yield Part((*path, key), None)


def content(value: object, path: Path, kind: Kind) -> Iterator[Part]:
    """A string, or a list of pieces."""
    if isinstance(value, list):
        for piece, at in items(value, path):
            yield from piece_parts(piece, at, kind)
    elif isinstance(value, Mapping):
        raise BadRequest(f"{dotted(path)} must be a string or a list of parts", param=dotted(path))
    else:
        yield from text(value, path, kind)


def piece_parts(piece: Json, path: Path, kind: Kind = Kind.TEXT) -> Iterator[Part]:
    """Every part of one piece of content. `kind` is what plain text is, here."""
    piece_type = piece.get("type")
    if not isinstance(piece_type, str):
        piece_type = ""
    if piece_type in PIECE_TEXT:
        field = "refusal" if piece_type == "refusal" else "text"
        if not isinstance(piece.get(field), str):
            name = dotted((*path, field))
            raise BadRequest(f"{name} must be a string", param=name)
        own = PIECE_TEXT[piece_type]
        yield from text(piece[field], (*path, field), kind if own is Kind.TEXT else own)
        yield from joined(piece.get("annotations"), (*path, "annotations"), Kind.TEXT)
        yield from leaves(piece.get("parsed"), (*path, "parsed"), kind)
        yield from joined(spelled(piece.get("logprobs")), (*path, "logprobs"), Kind.TEXT)
        known = frozenset({field, "annotations", "logprobs", "parsed"})
    elif piece_type in PIECE_MEDIA:
        yield from text(piece.get("filename"), (*path, "filename"), Kind.NAME)
        yield from media_part(path, _media_of(piece_type, piece), name=piece.get("filename"))
        known = PIECE_MEDIA[piece_type] | {"filename"}
    else:
        yield Part((*path, "type"), None)
        return
    for key in unread(piece, known, PIECE_NAMES):
        yield Part((*path, key), None)


def _media_of(piece_type: str, piece: Json) -> Media | None:
    """What is sent along, where nothing stands beside it: a stored file or an address could be another."""
    if piece.get("file_id") or piece.get("file_url"):
        return None
    match piece_type:
        case "input_audio":
            sound = piece.get("input_audio")
            if not isinstance(sound, Mapping) or sound.keys() != {"data", "format"}:
                return None
            return of_sound(sound["format"], sound["data"])
        case "input_file":
            return of_url(MediaKind.FILE, piece.get("file_data"))
        case _:
            return of_url(MediaKind.IMAGE, piece.get("image_url"))


def tool_parts(tools: object, path: Path) -> Iterator[Part]:
    """What tool definitions say; and a part without text for each tool that the provider runs itself, for what it
    brings in no guard here will read."""
    for tool, at in items(tools, path):
        yield from joined(tool, at, Kind.TOOL_DEFINITION)
        if str(tool.get("type")) not in OWN_TOOLS:
            yield Part((*at, RESULTS_MARK), None, Kind.TOOL_RESULT)
