"""What goes into a request beside its options, as JSON Schema: the fields that the dialects read as content."""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
WORDS: Schema = {"type": "array", "items": TEXT}


def one_of(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def record(required: tuple[str, ...], **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


def some(items: Schema, most: int | None = None) -> Schema:
    return {"type": "array", "items": items, "minItems": 1} | ({} if most is None else {"maxItems": most})


def named(*names: str) -> Schema:
    return {"type": "string", "enum": list(names)}


IDENTIFIER: Schema = {"type": "string", "pattern": "^[!-~]{0,256}$"}
TOKENS: Schema = some({"type": "integer", "minimum": 0})
PROMPTS: Schema = one_of(TEXT, some(one_of(TEXT, TOKENS), 64), TOKENS)

IMAGE: Schema = record(("type", "image_url"), type=named("image_url"), image_url=record(("url",), url=TEXT))
CHAT_PART: Schema = one_of(
    record(("type", "text"), type=named("text"), text=TEXT),
    record(("type", "refusal"), type=named("refusal"), refusal=TEXT),
    IMAGE,
    record(("type", "input_audio"), type=named("input_audio"), input_audio={"type": "object"}),
    record(("type", "file"), type=named("file"), file={"type": "object"}),
)
CALLED: Schema = record(("name", "arguments"), name=TEXT, arguments=TEXT)
CHAT_MESSAGE: Schema = record(
    ("role",),
    role=named("developer", "system", "user", "assistant", "tool", "function"),
    content=one_of(TEXT, some(CHAT_PART), {"type": "null"}),
    name=TEXT,
    refusal=one_of(TEXT, {"type": "null"}),
    reasoning_content=TEXT,
    tool_calls=some(record(("function",), id=IDENTIFIER, type=named("function"), function=CALLED)),
    tool_call_id=IDENTIFIER,
)
FUNCTION: Schema = record(("name",), name=TEXT, description=TEXT, parameters={"type": "object"})

CHAT: Schema = record(
    ("model", "messages"),
    messages=some(CHAT_MESSAGE),
    tools={"type": "array", "items": record(("type", "function"), type=named("function"), function=FUNCTION)},
    tool_choice=one_of(named("auto", "none", "required"), {"type": "object"}),
    response_format=record(("type",), type=named("text", "json_object", "json_schema"), json_schema={"type": "object"}),
    stop=one_of(TEXT, WORDS, {"type": "null"}),
    prediction=record(("type", "content"), type=named("content"), content=one_of(TEXT, some(CHAT_PART))),
)
COMPLETIONS: Schema = record(
    ("model", "prompt"), prompt=PROMPTS, suffix=one_of(TEXT, {"type": "null"}), stop=one_of(TEXT, WORDS)
)
EMBEDDINGS: Schema = record(("model", "input"), input=one_of(TEXT, some(one_of(TEXT, TOKENS), 2048), TOKENS))
MODERATIONS: Schema = record(
    ("input",),
    model=TEXT,
    input=one_of(TEXT, some(TEXT, 100), some(one_of(record(("type", "text"), type=named("text"), text=TEXT), IMAGE))),
    libragate=one_of(
        {**record(("direction",), direction=named("prompt")), "additionalProperties": False},
        {**record(("direction",), direction=named("response"), prompt=TEXT), "additionalProperties": False},
    ),
)

RESPONSE_PIECE: Schema = one_of(
    record(("type", "text"), type=named("input_text", "output_text", "text"), text=TEXT),
    record(("type", "refusal"), type=named("refusal"), refusal=TEXT),
    record(("type",), type=named("input_image"), image_url=TEXT, detail=IDENTIFIER),
    record(("type",), type=named("input_file"), file_data=TEXT, filename=TEXT),
)
RESPONSE_ITEM: Schema = one_of(
    record(
        ("role", "content"),
        type=named("message"),
        role=named("user", "assistant", "system", "developer"),
        content=one_of(TEXT, some(RESPONSE_PIECE)),
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
RESPONSES: Schema = record(
    ("model", "input"),
    input=one_of(TEXT, some(RESPONSE_ITEM)),
    instructions=one_of(TEXT, {"type": "null"}),
    tools={
        "type": "array",
        "items": record(("type", "name"), type=named("function"), name=TEXT, description=TEXT),
    },
    tool_choice=one_of(named("auto", "none", "required"), {"type": "object"}),
    text=record((), format=record(("type",), type=named("text", "json_object", "json_schema"), schema={})),
)

BLOCK: Schema = one_of(
    record(("type", "text"), type=named("text"), text=TEXT),
    record(("type", "thinking"), type=named("thinking"), thinking=TEXT),
    record(("type", "source"), type=named("image"), source={"type": "object"}),
    record(("type", "name", "input"), type=named("tool_use"), id=IDENTIFIER, name=TEXT, input={"type": "object"}),
    record(("type", "content"), type=named("tool_result"), tool_use_id=IDENTIFIER, content=TEXT),
)
MESSAGES: Schema = record(
    ("model", "messages", "max_tokens"),
    messages=some(
        record(("role", "content"), role=named("user", "assistant", "system"), content=one_of(TEXT, some(BLOCK)))
    ),
    system=one_of(TEXT, some(record(("type", "text"), type=named("text"), text=TEXT))),
    tools={"type": "array", "items": record(("name",), name=TEXT, description=TEXT, input_schema={"type": "object"})},
    tool_choice=record(("type",), type=named("auto", "any", "none", "tool"), name=TEXT),
    stop_sequences=WORDS,
)
