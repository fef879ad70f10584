"""The fields of a dialect's request: what each may hold, whether a model reads it, and how it is published."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from gateway.dialects.fields import MAX_ID, is_printable_id, refuse_unknown, require_names
from gateway.dialects.json_schema import IDENTIFIER, Schema
from gateway.errors import BadRequest
from gateway.strict.strict_json import Json


class Shape(StrEnum):
    """Which JSON value a field holds, where that is checked here."""

    ANY = "any"
    OBJECT = "object"
    LIST = "list"


class Field(Protocol):
    """One kind of field."""

    @property
    def schema(self) -> Schema: ...

    def check(self, name: str, value: object) -> None:
        """Raises `BadRequest` where the field `name` may not hold this value."""


@dataclass(frozen=True, slots=True)
class Content:
    """A field that the model reads: the dialect makes a part of every string in it.

    `system`: it holds what the tenant says before anybody else speaks, which a policy may trust.
    `counted`: it is the list of messages, whose length is limited.
    `free_keys`: the keys of its objects are the caller's choice (a tool may well have a parameter called api_key), so
    they are not searched for forbidden options.
    """

    published: Schema | None = None
    shape: Shape = Shape.ANY
    system: bool = False
    counted: bool = False
    free_keys: bool = False

    @property
    def schema(self) -> Schema:
        if self.published is not None:
            return self.published
        return _schema_of(self.shape, "content: every string in it is judged")

    def check(self, name: str, value: object) -> None:
        _check_shape(self.shape, name, value)


@dataclass(frozen=True, slots=True)
class Identifier:
    """A field that no model reads: every string in it, keys included, must be a name or an id."""

    shape: Shape = Shape.ANY

    @property
    def schema(self) -> Schema:
        return _schema_of(self.shape, "names and ids only: every string in it visible ASCII without blanks")

    def check(self, name: str, value: object) -> None:
        _check_shape(self.shape, name, value)
        require_names({name: value}, frozenset({name}), ())


@dataclass(frozen=True, slots=True)
class Label:
    """The caller's own name for somebody or something, kept by the provider and never shown to a model: one line of at
    most 512 characters in any language, or a number."""

    @property
    def schema(self) -> Schema:
        return {"type": ["string", "integer", "null"], "maxLength": MAX_ID}

    def check(self, name: str, value: object) -> None:
        whole = isinstance(value, int | None) and not isinstance(value, bool)
        if not whole and not is_printable_id(value):
            raise BadRequest(f"{name} must be a string of at most {MAX_ID} printable characters", param=name)


@dataclass(frozen=True, slots=True)
class Bookkeeping:
    """An object of the caller's own, kept by the provider and never shown to a model."""

    @property
    def schema(self) -> Schema:
        return _schema_of(Shape.OBJECT, "")

    def check(self, name: str, value: object) -> None:
        _check_shape(Shape.OBJECT, name, value)


@dataclass(frozen=True, slots=True)
class Flag:
    """True, false or null."""

    @property
    def schema(self) -> Schema:
        return {"type": ["boolean", "null"]}

    def check(self, name: str, value: object) -> None:
        if not isinstance(value, bool | None):
            raise BadRequest(f"{name} must be true or false", param=name)


@dataclass(frozen=True, slots=True)
class Number:
    """A number within bounds, or null. `whole`: without a fraction."""

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False

    @property
    def schema(self) -> Schema:
        bounds = {"minimum": self.low, "maximum": self.high}
        finite = {name: bound for name, bound in bounds.items() if math.isfinite(bound)}
        return {"type": ["integer" if self.whole else "number", "null"], **finite}

    def check(self, name: str, value: object) -> None:
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            raise BadRequest(f"{name} must be a number from {self.low:g} to {self.high:g}", param=name)
        if self.whole and not (isinstance(value, int) or value.is_integer()):
            raise BadRequest(f"{name} must be a whole number", param=name)


@dataclass(frozen=True, slots=True)
class RequestFields:
    """Every field of a dialect's request but `model`, which each of them must name; any other field that carries text
    is refused. `required`: for the published schema only, a dialect refuses in its own words what it cannot do without.
    """

    kinds: Mapping[str, Field]
    required: tuple[str, ...] = ()

    content: frozenset[str] = field(init=False)
    """What a model reads."""
    identifiers: frozenset[str] = field(init=False)
    """Those whose strings are names and ids."""
    system: frozenset[str] = field(init=False)
    """Those in which a policy may trust what the tenant says first."""
    counted: frozenset[str] = field(init=False)
    """Those whose length is limited."""
    free_keys: frozenset[str] = field(init=False)
    """Those that are not searched for forbidden options."""
    _known: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        content = {name: kind for name, kind in self.kinds.items() if isinstance(kind, Content)}
        groups = {
            "content": content,
            "identifiers": [name for name, kind in self.kinds.items() if isinstance(kind, Identifier)],
            "system": [name for name, kind in content.items() if kind.system],
            "counted": [name for name, kind in content.items() if kind.counted],
            "free_keys": [name for name, kind in content.items() if kind.free_keys],
            "_known": ["model", *self.kinds],
        }
        for group, names in groups.items():
            object.__setattr__(self, group, frozenset(names))

    def check(self, body: Json) -> None:
        """Raises `BadRequest` naming the field that is wrong."""
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise BadRequest("model must be the name of a model", param="model")
        for name, kind in self.kinds.items():
            if name in body:
                kind.check(name, body[name])
        refuse_unknown(body, self._known, ())

    @property
    def streams(self) -> bool:
        """Whether an answer can be asked for as a stream."""
        return "stream" in self.kinds

    @property
    def schema(self) -> dict[str, Any]:
        """The request as the published document describes it."""
        properties = {name: self.kinds[name].schema for name in sorted(self.kinds)}
        return {
            "type": "object",
            "properties": {"model": {"type": "string", "minLength": 1}, **properties},
            "required": ["model", *self.required],
        }


def _check_shape(shape: Shape, name: str, value: object) -> None:
    match shape:
        case Shape.OBJECT if not isinstance(value, Mapping | None):
            raise BadRequest(f"{name} must be an object", param=name)
        case Shape.LIST if not isinstance(value, list | None):
            raise BadRequest(f"{name} must be a list", param=name)


def _schema_of(shape: Shape, description: str) -> Schema:
    match shape:
        case Shape.OBJECT:
            return {"type": ["object", "null"]}
        case Shape.LIST:
            return {"type": ["array", "null"], "items": IDENTIFIER}
        case Shape.ANY:
            return {"description": description}
