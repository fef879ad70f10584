"""Answers and streams as upstreams send them, without a last [DONE]: a good one of every dialect, and more of chat."""

from collections.abc import Mapping
from typing import Any

from tests.gateway.dialects import full_embeddings
from tests.gateway.dialects.choices import full_chat, full_completions
from tests.gateway.dialects.messages import full_messages
from tests.gateway.dialects.responses import full_responses

Json = Mapping[str, Any]
USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
SIZE = 10
"""Characters in one event of a stream."""


def answer(dialect: str, body: Json, text: str) -> Json:
    model = body["model"]
    match dialect:
        case "chat":
            message = {"role": "assistant", "content": text}
            choices = [{"index": i, "message": message, "finish_reason": "stop"} for i in range(body.get("n") or 1)]
            head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model}
            return {**head, "choices": choices, "usage": USAGE}
        case "completions":
            choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}
            return {**full_completions.HEAD, "model": model, "choices": [choice], "usage": USAGE}
        case "messages":
            content = [{"type": "text", "text": text}]
            return {**full_messages.BLANK, "model": model, "content": content, "stop_reason": "end_turn"}
        case "responses":
            item = full_responses.message(0, text)[-1].data["item"]  # type: ignore[index]
            return {**response(body), "status": "completed", "output": [item]}
        case _:
            return full_embeddings.ANSWER


def response(body: Json) -> Json:
    head = {"id": "resp_1", "object": "response", "created_at": 1, "status": "in_progress", "model": body["model"]}
    return {**head, "output": [], "error": None, "incomplete_details": None, "usage": full_responses.USAGE}


def events(dialect: str, body: Json, text: str) -> list[Any]:
    pieces = [text[i : i + SIZE] for i in range(0, len(text), SIZE)]
    match dialect:
        case "chat":
            chunk, piece = full_chat.chunk, full_chat.piece
            choices = range(body.get("n") or 1)
            return [
                *(chunk(piece(i, {"role": "assistant", "content": ""})) for i in choices),
                *(chunk(piece(i, {"content": said})) for said in pieces for i in choices),
                *(chunk(piece(i, {}, "stop")) for i in choices),
                chunk(usage=USAGE),
            ]
        case "completions":
            chunks = [full_completions.chunk(0, said) for said in pieces]
            return [*chunks, full_completions.chunk(0, "", "stop")]
        case "messages":
            return list(full_messages.whole(*full_messages.text_block(0, *pieces)))
        case _:
            said = full_responses.message(0, *pieces)
            first = full_responses.event("response.created", response=response(body))
            whole = {**response(body), "status": "completed", "output": [said[-1].data["item"]]}  # type: ignore[index]
            last = full_responses.event("response.completed", response=whole)
            return list(full_responses.numbered(first, *said, last))


def chat(*messages: Json, finish: str = "stop") -> Json:
    choices = [{"index": i, "message": message, "finish_reason": finish} for i, message in enumerate(messages)]
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "upstream-m", "choices": choices}


def deltas(*changes: dict[str, Any], finish: str = "stop") -> list[Any]:
    chunks = [full_chat.chunk(full_chat.piece(0, delta)) for delta in changes]
    return [*chunks, full_chat.chunk(full_chat.piece(0, {}, finish))]


def call(arguments: str) -> Json:
    made = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [made]}


def call_deltas(*pieces: str, index: Any = 0) -> list[Any]:
    head = {"index": index, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    more = [{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in pieces]
    return deltas({"role": "assistant", "tool_calls": [head]}, *more, finish="tool_calls")
