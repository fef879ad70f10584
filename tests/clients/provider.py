"""A provider that speaks every dialect: it says the text it is given, plain or streamed, as a tool call or as JSON."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Self

import anyio.lowlevel
import orjson

from gateway.dialects.dialect import Event, Json
from gateway.errors import UpstreamError
from gateway.upstreams.upstream import NO_HEADERS, Headers

PIECE = 4
BEGINNING = 60
"""Events after which a streamed answer waits until what came before has been judged and has left."""
TURNS = 200
USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
TOKENS = {"input_tokens": 3, "output_tokens": 5}


class Speaker:
    """An `Upstream`. `says` gives the text for a request; a request with tools gets it as the argument of a call of the
    first tool, one that wants JSON as the value of "answer"."""

    name = "speaker"

    def __init__(self, says: Callable[[Json], str]) -> None:
        self._says = says

    async def answer(self, path: str, body: Json, headers: Headers = NO_HEADERS) -> Json:
        text = self._text(body)
        match path:
            case "/v1/chat/completions":
                return _chat(body, text)
            case "/v1/completions":
                choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}
                return {**_head(body, "cmpl-1", "text_completion"), "choices": [choice], "usage": USAGE}
            case "/v1/responses":
                return _response(body, "completed", [_item(body, text)])
            case "/v1/messages":
                return _message(body, [_block(body, text)], _stop_reason(body))
            case "/v1/embeddings":
                vector = {"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}
                return {"object": "list", "data": [vector], "model": body["model"], "usage": USAGE}
        raise UpstreamError(f"the speaker does not know {path}")

    @asynccontextmanager
    async def stream(self, path: str, body: Json, headers: Headers = NO_HEADERS) -> AsyncIterator[AsyncIterator[Event]]:
        streams = {
            "/v1/chat/completions": _chat_events,
            "/v1/completions": _completion_events,
            "/v1/responses": _response_events,
            "/v1/messages": _message_events,
        }
        yield _played(streams[path](body, self._text(body)))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        yield self

    def _text(self, body: Json) -> str:
        text = self._says(body)
        return orjson.dumps({"answer": text}).decode() if _structured(body) or body.get("tools") else text


async def _played(events: Iterator[Event]) -> AsyncIterator[Event]:
    for number, event in enumerate(events):
        if number == BEGINNING:
            for _ in range(TURNS):  # of the event loop, not seconds: nothing here depends on how fast the machine is
                await anyio.lowlevel.checkpoint()
        yield event


def _pieces(text: str) -> list[str]:
    return [text[i : i + PIECE] for i in range(0, len(text), PIECE)]


def _structured(body: Json) -> bool:
    text, config = body.get("text") or {}, body.get("output_config") or {}
    return bool(body.get("response_format") or text.get("format") or config.get("format"))


def _tool(body: Json) -> str | None:
    """The name of the first tool, in whichever dialect it is defined."""
    for tool in body.get("tools") or ():
        return str(tool.get("name") or tool["function"]["name"])
    return None


def _head(body: Json, id: str, kind: str) -> dict[str, Any]:
    return {"id": id, "object": kind, "created": 1, "model": body["model"]}


def _chat(body: Json, text: str) -> Json:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    finish = "stop"
    if name := _tool(body):
        call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": text}}
        message, finish = {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {**_head(body, "chatcmpl-1", "chat.completion"), "choices": [choice], "usage": USAGE}


def _chat_events(body: Json, text: str) -> Iterator[Event]:
    head = _head(body, "chatcmpl-1", "chat.completion.chunk")
    name = _tool(body)

    def chunk(delta: Json, finish: str | None = None) -> Event:
        return Event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    yield chunk({"role": "assistant", "content": None if name else ""})
    if name:
        function = {"name": name, "arguments": ""}
        yield chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]})
    for piece in _pieces(text):
        called = {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
        yield chunk(called if name else {"content": piece})
    yield chunk({}, "tool_calls" if name else "stop")
    if (body.get("stream_options") or {}).get("include_usage"):
        yield Event({**head, "choices": [], "usage": USAGE})
    yield Event(None)


def _completion_events(body: Json, text: str) -> Iterator[Event]:
    head = _head(body, "cmpl-1", "text_completion")
    for piece in _pieces(text):
        yield Event({**head, "choices": [{"index": 0, "text": piece, "logprobs": None, "finish_reason": None}]})
    yield Event({**head, "choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]})
    yield Event(None)


def _item(body: Json, text: str, status: str = "completed") -> dict[str, Any]:
    if name := _tool(body):
        call = {"id": "fc_1", "call_id": "call_1", "type": "function_call", "name": name, "arguments": text}
        return {**call, "status": status}
    content = [{"type": "output_text", "text": text, "annotations": []}] if status == "completed" else []
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": status, "content": content}


def _response(body: Json, status: str, output: list[dict[str, Any]]) -> Json:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": body["model"],
        "status": status,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": body.get("tools") or [],
        "usage": {**TOKENS, "total_tokens": 8} if status == "completed" else None,
    }


def _response_events(body: Json, text: str) -> Iterator[Event]:
    bodies: list[dict[str, Any]] = [{"type": "response.created", "response": _response(body, "in_progress", [])}]
    bodies.append({"type": "response.output_item.added", "output_index": 0, "item": _item(body, "", "in_progress")})
    if _tool(body):
        at, field, name = {"output_index": 0, "item_id": "fc_1"}, "arguments", "response.function_call_arguments"
    else:
        at, field, name = {"output_index": 0, "item_id": "msg_1", "content_index": 0}, "text", "response.output_text"
        empty = {"type": "output_text", "text": "", "annotations": []}
        bodies.append({"type": "response.content_part.added", **at, "part": empty})
    bodies += [{"type": f"{name}.delta", **at, "delta": piece} for piece in _pieces(text)]
    bodies.append({"type": f"{name}.done", **at, field: text})
    if not _tool(body):
        part = {"type": "output_text", "text": text, "annotations": []}
        bodies.append({"type": "response.content_part.done", **at, "part": part})
    bodies.append({"type": "response.output_item.done", "output_index": 0, "item": _item(body, text)})
    bodies.append({"type": "response.completed", "response": _response(body, "completed", [_item(body, text)])})
    for number, data in enumerate(bodies):
        yield Event({**data, "sequence_number": number}, data["type"])


def _stop_reason(body: Json) -> str:
    return "tool_use" if body.get("tools") else "end_turn"


def _block(body: Json, text: str) -> Json:
    if name := _tool(body):
        return {"type": "tool_use", "id": "toolu_1", "name": name, "input": orjson.loads(text)}
    return {"type": "text", "text": text}


def _message(body: Json, content: list[Json], stop: str | None) -> Json:
    fields = {"type": "message", "role": "assistant", "content": content, "stop_reason": stop, "stop_sequence": None}
    return {"id": "msg_1", "model": body["model"], **fields, "usage": TOKENS}


def _message_events(body: Json, text: str) -> Iterator[Event]:
    tool = _tool(body)
    start: dict[str, Any] = {"type": "text", "text": ""}
    if tool:
        start = {"type": "tool_use", "id": "toolu_1", "name": tool, "input": {}}
    bodies: list[dict[str, Any]] = [{"type": "message_start", "message": _message(body, [], None)}]
    bodies.append({"type": "content_block_start", "index": 0, "content_block": start})
    for piece in _pieces(text):
        delta = {"type": "input_json_delta", "partial_json": piece} if tool else {"type": "text_delta", "text": piece}
        bodies.append({"type": "content_block_delta", "index": 0, "delta": delta})
    bodies.append({"type": "content_block_stop", "index": 0})
    ended = {"stop_reason": _stop_reason(body), "stop_sequence": None}
    bodies.append({"type": "message_delta", "delta": ended, "usage": {"output_tokens": 5}})
    bodies.append({"type": "message_stop"})
    for data in bodies:
        yield Event(data, data["type"])
