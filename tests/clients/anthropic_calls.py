"""The calls of the `anthropic` package, each as its users write it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import anthropic
import orjson
from anthropic import Anthropic
from pydantic import BaseModel

from tests.clients.situations import Seen

TOOL: Any = {"name": "look_up", "input_schema": {"type": "object", "properties": {"answer": {"type": "string"}}}}


class Answer(BaseModel):
    answer: str


def _asked(prompt: str) -> Any:
    return {"model": "m", "max_tokens": 500, "messages": [{"role": "user", "content": prompt}]}


def _message(message: Any) -> Seen:
    text = "".join(block.text for block in message.content if block.type == "text")
    inputs = "".join(orjson.dumps(block.input).decode() for block in message.content if block.type == "tool_use")
    return Seen(text + inputs, end=f"stop_reason: {message.stop_reason}")


def create(client: Anthropic, prompt: str) -> Seen:
    return _message(client.messages.create(**_asked(prompt)))


def tools(client: Anthropic, prompt: str) -> Seen:
    return _message(client.messages.create(**_asked(prompt), tools=[TOOL]))


def parse(client: Anthropic, prompt: str) -> Seen:
    message = client.messages.parse(**_asked(prompt), output_format=Answer)
    found = message.parsed_output
    end = f"stop_reason: {message.stop_reason}, parsed_output: {'Answer' if found else None}"
    return Seen(found.answer if found else "", end=end)


def stream(client: Anthropic, prompt: str) -> Seen:
    return _streamed(client.messages.create(**_asked(prompt), stream=True))


def stream_tools(client: Anthropic, prompt: str) -> Seen:
    return _streamed(client.messages.create(**_asked(prompt), tools=[TOOL], stream=True))


def _streamed(events: Iterable[Any]) -> Seen:
    text, end, error = "", "", ""
    try:
        for event in events:
            if event.type == "content_block_delta":
                text += getattr(event.delta, "text", "") or getattr(event.delta, "partial_json", "")
            if event.type == "message_delta":
                end = f"stop_reason: {event.delta.stop_reason}"
    except anthropic.AnthropicError as exc:
        error = named(exc)
    return Seen(text, end=end, error=error)


def stream_helper(client: Anthropic, prompt: str) -> Seen:
    text = ""
    with client.messages.stream(**_asked(prompt)) as events:
        try:
            for piece in events.text_stream:
                text += piece
            return Seen(text, end=f"stop_reason: {events.get_final_message().stop_reason}")
        except anthropic.AnthropicError as exc:
            return Seen(text, error=named(exc))


CALLS: Mapping[str, Callable[[Anthropic, str], Seen]] = {
    "messages.create": create,
    "messages.create, tools": tools,
    "messages.parse": parse,
    "messages.create, stream": stream,
    "messages.create, tools, stream": stream_tools,
    "messages.stream": stream_helper,
}
STREAMS = frozenset(call for call in CALLS if "stream" in call)


def named(exc: Exception) -> str:
    """The exception as its catcher tells it from others: its class, its status, the code in its body."""
    found: Any = getattr(exc, "body", None)
    error = found.get("error", found) if isinstance(found, Mapping) else {}
    parts = (getattr(exc, "status_code", None), error.get("code"))
    return " ".join(map(str, (type(exc).__name__, *(part for part in parts if part))))


def seen(call: str, url: str, key: str, prompt: str) -> Seen:
    """What the caller of one call sees."""
    with Anthropic(base_url=url, api_key=key, timeout=30) as client:
        try:
            return CALLS[call](client, prompt)
        except anthropic.AnthropicError as exc:
            return Seen(error=named(exc))
