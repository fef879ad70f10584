"""The fields of a chat request, and the schema of those that hold content."""

from gateway.dialects.json_schema import (
    IDENTIFIER,
    OBJECT,
    TEXT,
    TEXT_OR_NULL,
    TEXTS,
    Schema,
    named,
    one_of,
    record,
    some,
)
from gateway.dialects.request_fields import Bookkeeping, Content, Flag, Identifier, Label, Number, RequestFields, Shape

_PART: Schema = one_of(
    record(("type", "text"), type=named("text"), text=TEXT),
    record(("type", "refusal"), type=named("refusal"), refusal=TEXT),
    record(("type", "image_url"), type=named("image_url"), image_url=record(("url",), url=TEXT)),
    record(("type", "input_audio"), type=named("input_audio"), input_audio=OBJECT),
    record(("type", "file"), type=named("file"), file=OBJECT),
)
_CALL: Schema = record(("name", "arguments"), name=TEXT, arguments=TEXT)
_MESSAGE: Schema = record(
    ("role",),
    role=named("developer", "system", "user", "assistant", "tool", "function"),
    content=one_of(TEXT, some(_PART), {"type": "null"}),
    name=TEXT,
    refusal=TEXT_OR_NULL,
    reasoning_content=TEXT,
    tool_calls=some(record(("function",), id=IDENTIFIER, type=named("function"), function=_CALL)),
    tool_call_id=IDENTIFIER,
)
_FUNCTION: Schema = record(("name",), name=TEXT, description=TEXT, parameters=OBJECT)
_TOOL: Schema = record(("type", "function"), type=named("function"), function=_FUNCTION)
_FORMAT: Schema = record(("type",), type=named("text", "json_object", "json_schema"), json_schema=OBJECT)
_PREDICTION: Schema = record(("type", "content"), type=named("content"), content=one_of(TEXT, some(_PART)))

FIELDS = RequestFields(
    {
        "messages": Content(some(_MESSAGE), system=True, counted=True, free_keys=True),
        "tools": Content({"type": "array", "items": _TOOL}, Shape.LIST, free_keys=True),
        "functions": Content({"type": "array", "items": _FUNCTION}, Shape.LIST, free_keys=True),
        "tool_choice": Content(one_of(named("auto", "none", "required"), OBJECT)),
        "function_call": Content(),
        "response_format": Content(_FORMAT, Shape.OBJECT, free_keys=True),
        "stop": Content(one_of(TEXT, TEXTS, {"type": "null"})),
        "prediction": Content(_PREDICTION, Shape.OBJECT, free_keys=True),
        "web_search_options": Content(shape=Shape.OBJECT),
        "temperature": Number(0, 2),
        "top_p": Number(0, 1),
        "presence_penalty": Number(-2, 2),
        "frequency_penalty": Number(-2, 2),
        "n": Number(1, 128, whole=True),
        "max_tokens": Number(0, whole=True),
        "max_completion_tokens": Number(0, whole=True),
        "top_logprobs": Number(0, 20, whole=True),
        "seed": Number(whole=True),
        "stream": Flag(),
        "logprobs": Flag(),
        "parallel_tool_calls": Flag(),
        "store": Flag(),
        "stream_options": Identifier(Shape.OBJECT),
        "logit_bias": Identifier(Shape.OBJECT),
        "audio": Identifier(Shape.OBJECT),
        "thinking": Identifier(Shape.OBJECT),
        "modalities": Identifier(Shape.LIST),
        "user": Label(),
        "safety_identifier": Label(),
        "prompt_cache_key": Label(),
        "prompt_cache_retention": Identifier(),
        "prompt_cache_options": Identifier(Shape.OBJECT),
        "moderation": Identifier(Shape.OBJECT),
        "service_tier": Identifier(),
        "reasoning_effort": Identifier(),
        "reasoning": Identifier(),
        "verbosity": Identifier(),
        "metadata": Bookkeeping(),
    },
    required=("messages",),
)
