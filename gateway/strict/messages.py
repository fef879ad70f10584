"""A file held against its model, and what is wrong in words for the person who wrote it."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from gateway.strict.strict_yaml import MAX_MISTAKES, Keys, Mistake, Place, YamlFile

M = TypeVar("M", bound=BaseModel)

_OWN = "own"
_TYPES: Mapping[str, str] = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}
_BOOLEANS: Mapping[str, str] = {"on": "true", "yes": "true", "off": "false", "no": "false"}


def complaint(what: str, advice: str) -> PydanticCustomError:
    """For a validator to raise: a mistake in our own words."""
    return PydanticCustomError(_OWN, "{what}", {"what": what, "advice": advice})


def suggestion(word: str, known: Iterable[str], otherwise: str) -> str:
    """`did you mean 'x'?`, or `otherwise` when nothing known is like it."""
    near = difflib.get_close_matches(word, tuple(known), n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else otherwise


def shown(value: object) -> str:
    """A value as its author wrote it, short."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f"'{value}'" if len(value) <= 40 else f"'{value[:37]}...'"
        case int() | float():
            return str(value)
        case list():
            return "a list"
        case _:
            return "a mapping"


@dataclass(frozen=True, slots=True)
class Checked(Generic[M]):
    """`content` is the file without the values in `cut`, which the mistakes are about: enough to look for more. It is
    None where too little is left."""

    content: M | None
    mistakes: tuple[Mistake, ...] = ()
    cut: tuple[Keys, ...] = ()

    def touches(self, keys: Keys) -> bool:
        """Whether what was cut lies at, above or below this place."""
        return any(keys[: len(cut)] == cut[: len(keys)] for cut in self.cut)


def check(model: type[M], file: YamlFile, environment: Mapping[str, str] | None = None) -> Checked[M]:
    """`environment` is where the model's `${NAME}` values come from."""
    if not isinstance(file.data, dict):
        return Checked(None)
    data: object = file.data
    mistakes: tuple[Mistake, ...] = ()
    cut: list[Keys] = []
    while True:
        try:
            return Checked(model.model_validate(data, context=environment), mistakes, tuple(cut))
        except ValidationError as exc:
            errors = exc.errors(include_url=False)
        if not cut:
            mistakes = tuple(_mistakes(errors, model, file))
        for keys in {_cuttable(details, data) for details in errors}:
            if not keys:
                return Checked(None, mistakes)
            cut.append(keys)
            data = _without(data, keys)


def _cuttable(details: ErrorDetails, data: object) -> Keys:
    """The innermost value to leave out so that this error goes: whole lists, for an index must keep its meaning."""
    keys = _keys(details["loc"], data)
    if details["type"] == "missing":
        keys = keys[:-1]
    return tuple(takewhile(lambda key: isinstance(key, str), keys))


def _without(data: object, keys: Keys) -> object:
    if not isinstance(data, dict) or keys[0] not in data:
        return data
    if len(keys) == 1:
        return {key: value for key, value in data.items() if key != keys[0]}
    return data | {keys[0]: _without(data[keys[0]], keys[1:])}


def _mistakes(errors: Iterable[ErrorDetails], model: type[BaseModel], file: YamlFile) -> Iterator[Mistake]:
    """A place that YAML's own rules already blame is not blamed again."""
    blamed = {mistake.place for mistake in file.mistakes}
    schema = model.model_json_schema()
    for details in islice(errors, MAX_MISTAKES):
        keys = _keys(details["loc"], file.data)
        place = _place(details, keys, file)
        if place not in blamed:
            yield Mistake(place, *_worded(details, keys, schema))


def _keys(loc: Keys, data: object) -> Keys:
    """pydantic's path without the steps that are not in the file: the tag of a union, and "[key]"."""
    keys: list[str | int] = []
    for index, step in enumerate(loc):
        children = dict(enumerate(data)) if isinstance(data, list) else data
        if isinstance(children, dict) and step in children:
            data = children[step]
            keys.append(step)
        elif index == len(loc) - 1 and step != "[key]":
            keys.append(step)
    return tuple(keys)


def _place(details: ErrorDetails, keys: Keys, file: YamlFile) -> Place:
    if details["type"] in ("extra_forbidden", "missing") or details["loc"][-1] == "[key]":
        return file.key_place(keys)
    return file.value_place(keys)


def _worded(details: ErrorDetails, keys: Keys, schema: Mapping[str, Any]) -> tuple[Keys, str, str]:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == _OWN:
        return keys, context["what"], context["advice"]
    if kind == "extra_forbidden":
        known = _known(schema, details["loc"][:-1])
        what = "is not a key that is known here"
        return keys, what, suggestion(str(keys[-1]), known, f"known are {', '.join(known)}")
    if kind == "missing":
        return keys, "is missing", "add it"
    if kind == "union_tag_not_found":
        return (*keys, "kind"), "is missing", "add it"
    if value is None or kind == "string_too_short":
        return keys, "has no value", "give it one, or remove the key"
    if kind in ("literal_error", "union_tag_invalid"):
        return _not_one_of(keys, details)
    if kind in _BOUNDS:
        word, name = _BOUNDS[kind]
        return keys, f"must be {word} {context[name]:g}, not {shown(value)}", "change the number"
    if kind in _TYPES:
        return keys, f"must be {_TYPES[kind]}, not {shown(value)}", _advice(kind, value)
    return keys, details["msg"], "change it"


def _not_one_of(keys: Keys, details: ErrorDetails) -> tuple[Keys, str, str]:
    value, context = details["input"], details["ctx"]
    if details["type"] == "union_tag_invalid":
        keys, value = (*keys, "kind"), context["tag"]
    choices = re.findall(r"'([^']+)'", context.get("expected_tags") or context["expected"])
    what = f"{shown(value)} is not one of {', '.join(choices)}"
    return keys, what, suggestion(str(value), choices, "choose one of them")


def _advice(kind: str, value: object) -> str:
    if kind == "bool_type" and str(value).lower() in _BOOLEANS:
        return f"write {_BOOLEANS[str(value).lower()]}: in YAML 1.2 {value} is a word"
    if isinstance(value, str) and kind in ("int_type", "float_type") and value.replace(".", "", 1).isdigit():
        return "remove the quotes"
    if kind == "string_type" and not isinstance(value, list | dict):
        return "put it in quotes"
    return "change it"


def _known(schema: Mapping[str, Any], loc: Keys) -> list[str]:
    """The keys that may stand at this place, in the order of the model."""
    nodes = [schema]
    for step in loc:
        nodes = [child for node in nodes for child in _below(_resolved(node, schema), step)]
    return [key for node in nodes for key in _resolved(node, schema).get("properties", {})]


def _resolved(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def _below(node: Mapping[str, Any], step: str | int) -> list[Mapping[str, Any]]:
    if step in node.get("properties", {}):
        return [node["properties"][step]]
    if step in (tags := node.get("discriminator", {}).get("mapping", {})):
        return [{"$ref": tags[step]}]
    inner = node.get("items") if isinstance(step, int) else node.get("additionalProperties")
    return [inner] if isinstance(inner, dict) else []
