"""The fields of a request for a message, and the schema of those that hold content."""

from gateway.dialects.json_schema import IDENTIFIER, OBJECT, TEXT, TEXTS, Schema, named, one_of, record, some
from gateway.dialects.request_fields import Bookkeeping, Content, Flag, Identifier, Number, RequestFields, Shape

_TEXT_BLOCK: Schema = record(("type", "text"), type=named("text"), text=TEXT)
_BLOCK: Schema = one_of(
    _TEXT_BLOCK,
    record(("type", "thinking"), type=named("thinking"), thinking=TEXT),
    record(("type", "source"), type=named("image"), source=OBJECT),
    record(("type", "name", "input"), type=named("tool_use"), id=IDENTIFIER, name=TEXT, input=OBJECT),
    record(("type", "content"), type=named("tool_result"), tool_use_id=IDENTIFIER, content=TEXT),
)
_MESSAGE: Schema = record(
    ("role", "content"), role=named("user", "assistant", "system"), content=one_of(TEXT, some(_BLOCK))
)
_TOOL: Schema = record(("name",), name=TEXT, description=TEXT, input_schema=OBJECT)
_TOOL_CHOICE: Schema = record(("type",), type=named("auto", "any", "none", "tool"), name=TEXT)

FIELDS = RequestFields(
    {
        "messages": Content(some(_MESSAGE), system=True, counted=True, free_keys=True),
        "system": Content(one_of(TEXT, some(_TEXT_BLOCK)), system=True, free_keys=True),
        "tools": Content({"type": "array", "items": _TOOL}, Shape.LIST, free_keys=True),
        "tool_choice": Content(_TOOL_CHOICE, Shape.OBJECT),
        "stop_sequences": Content(TEXTS, Shape.LIST),
        "output_config": Content(shape=Shape.OBJECT, free_keys=True),
        "max_tokens": Number(1, whole=True),
        "temperature": Number(0, 1),
        "top_p": Number(0, 1),
        "top_k": Number(0, whole=True),
        "stream": Flag(),
        "thinking": Identifier(Shape.OBJECT),
        "context_management": Content(shape=Shape.OBJECT),
        "compaction": Content(shape=Shape.OBJECT),
        "task_budget": Identifier(Shape.OBJECT),
        "fallbacks": Identifier(),
        "fallback_credit_token": Identifier(),
        "billing_policy": Identifier(Shape.OBJECT),
        "workspace_id": Identifier(),
        "betas": Identifier(),
        "cache_control": Identifier(),
        "diagnostics": Identifier(),
        "inference_geo": Identifier(),
        "service_tier": Identifier(),
        "speed": Identifier(),
        "metadata": Bookkeeping(),
    },
    required=("messages", "max_tokens"),
)

TOKEN_COUNT_FIELDS = RequestFields(
    {name: kind for name, kind in FIELDS.kinds.items() if name != "stream"}, required=("messages",)
)
"""Of a request to count the tokens of a prompt."""
