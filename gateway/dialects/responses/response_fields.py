"""The fields of a request for a response, and the schema of those that hold content."""

from gateway.dialects.json_schema import (
    IDENTIFIER,
    OBJECT,
    TEXT,
    TEXT_OR_NULL,
    Schema,
    named,
    one_of,
    record,
    some,
)
from gateway.dialects.request_fields import Bookkeeping, Content, Flag, Identifier, Label, Number, RequestFields, Shape

_PIECE: Schema = one_of(
    record(("type", "text"), type=named("input_text", "output_text", "text"), text=TEXT),
    record(("type", "refusal"), type=named("refusal"), refusal=TEXT),
    record(("type",), type=named("input_image"), image_url=TEXT, detail=IDENTIFIER),
    record(("type",), type=named("input_file"), file_data=TEXT, filename=TEXT),
)
_ITEM: Schema = one_of(
    record(
        ("role", "content"),
        type=named("message"),
        role=named("user", "assistant", "system", "developer"),
        content=one_of(TEXT, some(_PIECE)),
    ),
    record(
        ("type", "call_id", "name", "arguments"),
        type=named("function_call"),
        call_id=IDENTIFIER,
        name=TEXT,
        arguments=TEXT,
    ),
    record(("type", "call_id", "output"), type=named("function_call_output"), call_id=IDENTIFIER, output=TEXT),
)
_TOOL: Schema = record(("type", "name"), type=named("function"), name=TEXT, description=TEXT)
_TEXT: Schema = record((), format=record(("type",), type=named("text", "json_object", "json_schema"), schema={}))

FIELDS = RequestFields(
    {
        "input": Content(one_of(TEXT, some(_ITEM)), system=True, counted=True, free_keys=True),
        "instructions": Content(TEXT_OR_NULL, system=True, free_keys=True),
        "tools": Content({"type": "array", "items": _TOOL}, Shape.LIST, free_keys=True),
        "tool_choice": Content(one_of(named("auto", "none", "required"), OBJECT)),
        "text": Content(_TEXT, Shape.OBJECT, free_keys=True),
        "temperature": Number(0, 2),
        "top_p": Number(0, 1),
        "max_output_tokens": Number(0, whole=True),
        "max_tool_calls": Number(0, whole=True),
        "top_logprobs": Number(0, 20, whole=True),
        "stream": Flag(),
        "store": Flag(),
        "parallel_tool_calls": Flag(),
        "background": Flag(),
        "reasoning": Identifier(Shape.OBJECT),
        "stream_options": Identifier(Shape.OBJECT),
        "include": Identifier(Shape.LIST),
        "context_management": Identifier(),
        "moderation": Identifier(),
        "access_programs": Identifier(Shape.OBJECT),
        "background_options": Identifier(Shape.OBJECT),
        "image": Identifier(Shape.OBJECT),
        "prompt_cache_key": Label(),
        "prompt_cache_options": Identifier(),
        "prompt_cache_retention": Identifier(),
        "safety_identifier": Label(),
        "service_tier": Identifier(),
        "truncation": Identifier(),
        "user": Label(),
        "metadata": Bookkeeping(),
        "client_metadata": Bookkeeping(),
    },
    required=("input",),
)

_NOT_COMPACTED = frozenset({"stream", "stream_options"})
COMPACTION_FIELDS = RequestFields(
    {name: kind for name, kind in FIELDS.kinds.items() if name not in _NOT_COMPACTED}, required=("input",)
)
"""Of a request to compact a conversation, which is answered whole."""
