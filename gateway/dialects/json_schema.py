"""Building blocks of the JSON Schemas by which a dialect describes its requests, answers and errors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NamedSchema:
    """A schema that several endpoints share: the published document holds it once, under this name."""

    name: str
    schema: Schema


def one_of(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def record(required: tuple[str, ...], **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


def some(items: Schema, most: int | None = None) -> Schema:
    """A list with at least one item."""
    return {"type": "array", "items": items, "minItems": 1} | ({} if most is None else {"maxItems": most})


def named(*names: str) -> Schema:
    """One of these strings."""
    return {"type": "string", "enum": list(names)}


TEXT: Schema = {"type": "string"}
TEXT_OR_NULL: Schema = one_of(TEXT, {"type": "null"})
TEXTS: Schema = {"type": "array", "items": TEXT}
OBJECT: Schema = {"type": "object"}
IDENTIFIER: Schema = {"type": "string", "pattern": "^[!-~]{0,256}$"}
TOKENS: Schema = some({"type": "integer", "minimum": 0})
