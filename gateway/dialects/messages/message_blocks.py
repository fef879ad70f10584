"""The blocks of an Anthropic message: which of their strings are content.

An unknown block or field becomes a part of kind TEXT without text: a request with one is refused, and in an answer the
policy's `on_unreadable` applies. After https://docs.anthropic.com/en/api/messages and the anthropic package 2.12.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gateway.dialects.dialect import Json
from gateway.dialects.fields import (
    RESULTS_MARK,
    dotted,
    items,
    joined,
    leaves,
    mapping,
    only_names,
    text,
    unread,
    wordy_ids,
)
from gateway.dialects.media import media_part, of_base64
from gateway.dialects.seals import is_seal, sealed_part
from gateway.errors import BadRequest
from guard_runtime.conversation import Kind, Media, MediaKind, Part, Path

Reader = Callable[[object, Path], Iterator[Part]]

BLOCK_NAMES = frozenset({"type", "id", "tool_use_id", "cache_control", "caller", "toolset_name"})
_SEALED = frozenset({"encrypted_content", "encrypted_index", "encrypted_stdout"})
_SEALED_MARK = "$sealed"


def _text(kind: Kind) -> Reader:
    return lambda value, path: text(value, path, kind)


def _blocks(kind: Kind) -> Reader:
    return lambda value, path: content(value, path, kind)


def _input(value: object, path: Path) -> Iterator[Part]:
    yield from leaves(mapping(value, path), path, Kind.TOOL_CALL)


def _names(value: object, path: Path) -> Iterator[Part]:
    if not only_names(value):
        yield Part(path, None)


def _tool(value: object, path: Path) -> Iterator[Part]:
    yield from tool_part(mapping(value, path), path)


def _leaves(kind: Kind) -> Reader:
    return lambda value, path: leaves(value, path, kind)


def _media(value: object, path: Path) -> Iterator[Part]:
    yield Part(path, None, Kind.MEDIA)


def _picture(value: object, path: Path) -> Iterator[Part]:
    yield from media_part(path, _embedded(MediaKind.IMAGE, value))


def _embedded(kind: MediaKind, source: object) -> Media | None:
    """What is sent along, and nothing beside it."""
    if not isinstance(source, Mapping) or source.keys() != {"type", "media_type", "data"} or source["type"] != "base64":
        return None
    return of_base64(kind, source["media_type"], source["data"])


def _source(value: object, path: Path) -> Iterator[Part]:
    """Where a document comes from: text that is sent along can be read, all else cannot."""
    source = mapping(value, path)
    match source.get("type"):
        case "text":
            yield from text(source.get("data"), (*path, "data"))
            known = frozenset({"data"})
        case "content":
            yield from content(source.get("content"), (*path, "content"), Kind.TEXT)
            known = frozenset({"content"})
        case _:
            yield from media_part(path, _embedded(MediaKind.FILE, source))
            return
    for key in unread(source, known, frozenset({"type", "media_type"})):
        yield Part((*path, key), None)


def _result(value: object, path: Path) -> Iterator[Part]:
    """The result of a tool that the provider runs; some of it is encrypted for the provider alone."""
    texts, sealed = _unsealed(value)
    yield from joined(texts, path, Kind.TOOL_RESULT)
    if sealed:
        yield Part((*path, _SEALED_MARK), None, Kind.SEAL)


def _citations(value: object, path: Path) -> Iterator[Part]:
    yield from joined(_unsealed(value)[0], path, Kind.TEXT)


def _unsealed(value: Any) -> tuple[list[str], bool]:
    """Every string in a value that is not encrypted, and whether one is."""
    texts: list[str] = []
    sealed = False
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as text_inside:
                texts.append(text_inside)
            case Mapping() as holder:
                shut = {key for key in _SEALED & holder.keys() if is_seal(holder[key])}
                sealed = sealed or bool(shut)
                for key in reversed([key for key in holder if key not in shut]):
                    waiting += (holder[key], key)
            case list() as inner:
                waiting.extend(reversed(inner))
    return texts, sealed


_TOOL_USE: Mapping[str, Reader] = {"name": _text(Kind.NAME), "server_name": _text(Kind.NAME), "input": _input}
_RESULT: Mapping[str, Reader] = {"content": _result}
BLOCKS: Mapping[str, Mapping[str, Reader]] = {
    "text": {"text": _text(Kind.TEXT), "citations": _citations},
    "thinking": {"thinking": _text(Kind.REASONING), "signature": sealed_part},
    "redacted_thinking": {"data": sealed_part},
    "compaction": {"content": _text(Kind.TEXT), "encrypted_content": sealed_part},
    "image": {"source": _picture},
    "document": {
        "source": _source,
        "title": _text(Kind.NAME),
        "context": _text(Kind.TEXT),
        "citations": _citations,
    },
    "search_result": {
        "content": _blocks(Kind.TOOL_RESULT),
        "source": _text(Kind.NAME),
        "title": _text(Kind.NAME),
        "citations": _citations,
    },
    "container_upload": {"file_id": _media},
    "tool_use": _TOOL_USE,
    "server_tool_use": _TOOL_USE,
    "mcp_tool_use": _TOOL_USE,
    "tool_result": {"content": _blocks(Kind.TOOL_RESULT)},
    "mcp_tool_result": {"content": _blocks(Kind.TOOL_RESULT)},
    "tool_reference": {"tool_name": _text(Kind.NAME)},
    "web_search_tool_result": _RESULT,
    "web_fetch_tool_result": _RESULT,
    "code_execution_tool_result": _RESULT,
    "bash_code_execution_tool_result": _RESULT,
    "text_editor_code_execution_tool_result": _RESULT,
    "tool_search_tool_result": _RESULT,
    "advisor_tool_result": _RESULT,
    "browser_state": {"tabs": _leaves(Kind.TOOL_RESULT), "state_changes": _leaves(Kind.TOOL_RESULT)},
    "fallback": {"from": _names, "to": _names, "trigger": _names},
    "tool_addition": {"tool": _tool},
    "tool_removal": {"tool": _leaves(Kind.TOOL_DEFINITION)},
    "mcp_tool_listing": {"mcp_server_name": _text(Kind.NAME), "tools": _leaves(Kind.TOOL_DEFINITION)},
}


def content(value: object, path: Path, kind: Kind) -> Iterator[Part]:
    """A string, or a list of blocks. `kind` is what plain text is, here."""
    if isinstance(value, list):
        for block, at in items(value, path):
            yield from block_parts(block, at, kind)
    elif isinstance(value, str | None):
        yield from text(value, path, kind)
    else:
        raise BadRequest(f"{dotted(path)} must be a string or a list of blocks", param=dotted(path))


def block_parts(block: Json, path: Path, kind: Kind = Kind.TEXT) -> Iterator[Part]:
    """Every part of one block. Raises `BadRequest` where a known field has the wrong shape."""
    block_type = block.get("type")
    readers = BLOCKS.get(block_type) if isinstance(block_type, str) else None
    if readers is None:
        yield Part((*path, "type"), None)
        return
    if block_type == "text":
        if not isinstance(block.get("text"), str):
            name = dotted((*path, "text"))
            raise BadRequest(f"{name} must be a string", param=name)
        readers = {**readers, "text": _text(kind)}
    for key, value in block.items():
        if key in readers:
            yield from readers[key](value, (*path, key))
    wordy = wordy_ids(block, ("id", "tool_use_id"))
    for key in sorted(wordy):
        yield from text(block[key], (*path, key), Kind.NAME)
    for key in unread(block, wordy | readers.keys(), BLOCK_NAMES - wordy):
        yield Part((*path, key), None)


OWN_TOOLS = ("bash_", "text_editor_", "memory_", "computer_", "browser_")
"""How the types of those of Anthropic's tools begin that the caller runs; results come in by a request, to be read
there."""


def tool_parts(tools: object, path: Path) -> Iterator[Part]:
    """What tool definitions say; and a part without text for each tool that the provider runs itself."""
    for tool, at in items(tools, path):
        yield from tool_part(tool, at)


def tool_part(tool: Json, at: Path) -> Iterator[Part]:
    """One of them: declared in the list of tools, or added in the middle of a conversation."""
    yield from joined(tool, at, Kind.TOOL_DEFINITION)
    tool_type = tool.get("type")
    if tool_type not in (None, "custom", "tool_reference") and not str(tool_type).startswith(OWN_TOOLS):
        yield Part((*at, RESULTS_MARK), None, Kind.TOOL_RESULT)
