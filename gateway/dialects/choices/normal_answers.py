"""What some providers write otherwise than the API says, written as it says: arguments that are an object, calls that
all have one number."""

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.dialects.dialect import Json
from gateway.dialects.fields import MAX_INDEX, is_index


def normal_answer(answer: Json) -> Json:
    """A plain answer whose tool calls have their arguments as a string."""
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    if not isinstance(choices, list) or not any(map(_has_objects, choices)):
        return answer
    return {**answer, "choices": [_normal_choice(choice, "message") for choice in choices]}


class CallNumbers:
    """Numbers the tool calls of a stream. Gemini sends each whole, with an id of its own, and all as number 0."""

    def __init__(self) -> None:
        self._numbers: dict[int, dict[str, int]] = {}

    def normal(self, choice: Json, index: int) -> Json:
        """A choice of a chunk, its calls told apart and their arguments a string."""
        delta = choice.get("delta")
        calls = delta.get("tool_calls") if isinstance(delta, Mapping) else None
        if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
            return choice
        known = self._numbers.setdefault(index, {})
        numbers = [self._number(call, place, known) for place, call in enumerate(calls)]
        if numbers != [call.get("index", place) for place, call in enumerate(calls)]:
            calls = [{**call, "index": number} for call, number in zip(calls, numbers, strict=True)]
            choice = {**choice, "delta": {**choice["delta"], "tool_calls": calls}}
        return _normal_choice(choice, "delta") if _has_objects(choice) else choice

    def _number(self, call: Json, place: int, known: dict[str, int]) -> object:
        """The call's own number, unless another call with another id has it."""
        number, id = call.get("index", place), call.get("id")
        if not is_index(number) or not isinstance(id, str) or not id:
            return number
        if id not in known and len(known) < MAX_INDEX:
            taken = set(known.values())
            known[id] = number if number not in taken else max(taken) + 1
        return known.get(id, number)


def _calls(choice: object) -> list[Any]:
    holders = [choice.get(key) for key in ("message", "delta")] if isinstance(choice, Mapping) else []
    calls: list[Any] = []
    for holder in holders:
        if isinstance(holder, Mapping):
            calls += holder["tool_calls"] if isinstance(holder.get("tool_calls"), list) else []
            calls.append({"function": holder.get("function_call")})
    return calls


def _has_objects(choice: object) -> bool:
    return any(
        isinstance(call, Mapping)
        and isinstance(call.get("function"), Mapping)
        and isinstance(call["function"].get("arguments"), Mapping | list)
        for call in _calls(choice)
    )


def _normal_choice(choice: Any, field: str) -> Any:
    if not isinstance(choice, Mapping) or not isinstance(choice.get(field), Mapping):
        return choice
    holder = dict(choice[field])
    if isinstance(holder.get("tool_calls"), list):
        holder["tool_calls"] = [_normal_call(call) for call in holder["tool_calls"]]
    if holder.get("function_call") is not None:
        holder["function_call"] = _normal_function(holder["function_call"])
    return {**choice, field: holder}


def _normal_call(call: Any) -> Any:
    if not isinstance(call, Mapping) or call.get("function") is None:
        return call
    return {**call, "function": _normal_function(call["function"])}


def _normal_function(function: Any) -> Any:
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), Mapping | list):
        return function
    return {**function, "arguments": orjson.dumps(function["arguments"]).decode()}
