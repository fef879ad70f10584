"""The calls of the `openai` package, each as its users write it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, cast

import openai
from openai import OpenAI
from openai.lib.streaming.responses import ResponseTextDeltaEvent
from openai.types.responses import Response
from pydantic import BaseModel, ValidationError

from tests.clients.situations import Seen

NAME: Literal["look_up"] = "look_up"
SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}}
FUNCTION: Any = {"type": "function", "function": {"name": NAME, "parameters": SCHEMA}}
TOOL: Any = {"type": "function", "name": NAME, "parameters": SCHEMA, "strict": False}


class Answer(BaseModel):
    answer: str


def _said(prompt: str) -> Any:
    return [{"role": "user", "content": prompt}]


def _chat(message: Any, end: str | None) -> Seen:
    calls = "".join(call.function.arguments for call in message.tool_calls or ())
    return Seen(message.content or calls, message.refusal or "", f"finish_reason: {end}")


def create(client: OpenAI, prompt: str) -> Seen:
    answer = client.chat.completions.create(model="m", messages=_said(prompt))
    return _chat(answer.choices[0].message, answer.choices[0].finish_reason)


def tools(client: OpenAI, prompt: str) -> Seen:
    answer = client.chat.completions.create(model="m", messages=_said(prompt), tools=[FUNCTION])
    return _chat(answer.choices[0].message, answer.choices[0].finish_reason)


def parse(client: OpenAI, prompt: str) -> Seen:
    answer = client.chat.completions.parse(model="m", messages=_said(prompt), response_format=Answer)
    message = answer.choices[0].message
    text = message.parsed.answer if message.parsed else ""
    return Seen(text, message.refusal or "", f"parsed: {'Answer' if message.parsed else None}")


def stream(client: OpenAI, prompt: str) -> Seen:
    return _streamed(client.chat.completions.create(model="m", messages=_said(prompt), stream=True))


def stream_tools(client: OpenAI, prompt: str) -> Seen:
    found = client.chat.completions.create(model="m", messages=_said(prompt), tools=[FUNCTION], stream=True)
    return _streamed(found)


def _streamed(chunks: Iterable[Any]) -> Seen:
    text, refusal, end, error = "", "", "", ""
    try:
        for chunk in chunks:
            for choice in chunk.choices:
                delta = choice.delta
                text += delta.content or ""
                text += "".join(call.function.arguments or "" for call in delta.tool_calls or ())
                refusal += delta.refusal or ""
                end = f"finish_reason: {choice.finish_reason}" if choice.finish_reason else end
    except openai.APIError as exc:
        error = named(exc)
    return Seen(text, refusal, end, error)


def stream_helper(client: OpenAI, prompt: str) -> Seen:
    text, error = "", ""
    with client.chat.completions.stream(model="m", messages=_said(prompt)) as events:
        try:
            for event in events:
                text += event.delta if event.type == "content.delta" else ""
            final = events.get_final_completion().choices[0]
            return Seen(text, final.message.refusal or "", f"finish_reason: {final.finish_reason}")
        except openai.OpenAIError as exc:
            error = named(exc)
    return Seen(text, error=error)


def stream_parse(client: OpenAI, prompt: str) -> Seen:
    text, error = "", ""
    with client.chat.completions.stream(model="m", messages=_said(prompt), response_format=Answer) as events:
        try:
            for event in events:
                text += event.delta if event.type == "content.delta" else ""
            message = events.get_final_completion().choices[0].message
            return Seen(text, message.refusal or "", f"parsed: {'Answer' if message.parsed else None}")
        except openai.OpenAIError as exc:
            error = named(exc)
    return Seen(text, error=error)


def completions(client: OpenAI, prompt: str) -> Seen:
    choice = client.completions.create(model="m", prompt=prompt).choices[0]
    return Seen(choice.text, end=f"finish_reason: {choice.finish_reason}")


def stream_completions(client: OpenAI, prompt: str) -> Seen:
    text, end, error = "", "", ""
    try:
        for chunk in client.completions.create(model="m", prompt=prompt, stream=True):
            text += chunk.choices[0].text
            found = cast("str | None", chunk.choices[0].finish_reason)
            end = f"finish_reason: {found}" if found else end
    except openai.APIError as exc:
        if not text:
            raise
        error = named(exc)
    return Seen(text, end=end, error=error)


def responses(client: OpenAI, prompt: str) -> Seen:
    return _response(client.responses.create(model="m", input=prompt))


def responses_tools(client: OpenAI, prompt: str) -> Seen:
    return _response(client.responses.create(model="m", input=prompt, tools=[TOOL]))


def responses_parse(client: OpenAI, prompt: str) -> Seen:
    answer = client.responses.parse(model="m", input=prompt, text_format=Answer)
    seen = _response(answer)
    text = answer.output_parsed.answer if answer.output_parsed else ""
    return Seen(text, seen.refusal, f"output_parsed: {'Answer' if answer.output_parsed else None}")


def _response(response: Response) -> Seen:
    pieces = [piece for item in response.output if item.type == "message" for piece in item.content]
    text = "".join(piece.text for piece in pieces if piece.type == "output_text")
    text += "".join(item.arguments for item in response.output if item.type == "function_call")
    refusal = "".join(piece.refusal for piece in pieces if piece.type == "refusal")
    details = response.incomplete_details
    return Seen(text, refusal, f"status: {response.status}" + (f", reason: {details.reason}" if details else ""))


def stream_responses(client: OpenAI, prompt: str) -> Seen:
    text, refusal, end, error = "", "", "", ""
    try:
        for event in client.responses.create(model="m", input=prompt, stream=True):
            text += event.delta if event.type == "response.output_text.delta" else ""
            refusal += event.delta if event.type == "response.refusal.delta" else ""
            if event.type in ("response.completed", "response.incomplete", "response.failed"):
                end = f"event: {event.type}"
    except openai.APIError as exc:
        if not text:
            raise
        error = named(exc)
    return Seen(text, refusal, end, error)


def stream_responses_helper(client: OpenAI, prompt: str) -> Seen:
    text, error = "", ""
    with client.responses.stream(model="m", input=prompt) as events:
        try:
            for event in events:
                text += event.delta if isinstance(event, ResponseTextDeltaEvent) else ""
            final = _response(events.get_final_response())
            return Seen(text, final.refusal, final.end)
        except (openai.OpenAIError, RuntimeError) as exc:
            error = named(exc)
    return Seen(text, error=error)


def moderations(client: OpenAI, prompt: str) -> Seen:
    result = client.moderations.create(input=prompt).results[0]
    return Seen(end=f"flagged: {result.flagged}, illicit: {result.categories.illicit}")


def embeddings(client: OpenAI, prompt: str) -> Seen:
    found = client.embeddings.create(model="m", input=prompt, encoding_format="float").data
    return Seen(end=f"embedding: {found[0].embedding}")


CALLS: Mapping[str, Callable[[OpenAI, str], Seen]] = {
    "chat.completions.create": create,
    "chat.completions.create, tools": tools,
    "chat.completions.parse": parse,
    "chat.completions.create, stream": stream,
    "chat.completions.create, tools, stream": stream_tools,
    "chat.completions.stream": stream_helper,
    "chat.completions.stream, response_format": stream_parse,
    "completions.create": completions,
    "completions.create, stream": stream_completions,
    "responses.create": responses,
    "responses.create, tools": responses_tools,
    "responses.parse": responses_parse,
    "responses.create, stream": stream_responses,
    "responses.stream": stream_responses_helper,
    "moderations.create": moderations,
    "embeddings.create": embeddings,
}
STREAMS = frozenset(call for call in CALLS if "stream" in call)


def named(exc: Exception) -> str:
    """The exception as its catcher tells it from others: its class, its status, its code."""
    found = (getattr(exc, "status_code", None), getattr(exc, "code", None))
    return " ".join(map(str, (type(exc).__name__, *(part for part in found if part))))


def seen(call: str, url: str, key: str, prompt: str) -> Seen:
    """What the caller of one call sees."""
    with OpenAI(base_url=f"{url}/v1", api_key=key, timeout=30) as client:
        try:
            return CALLS[call](client, prompt)
        except (openai.OpenAIError, ValidationError) as exc:
            return Seen(error=named(exc))
