"""POST /v1/chat/completions"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.dialects.chat_stream import ChatStream
from gateway.dialects.dialect import Choice, Json, Refusal
from gateway.dialects.fields import added, arguments, carries_text, dotted, is_identifier, joined, refuse_unknown
from gateway.errors import BadRequest, GatewayError, UpstreamError
from gateway.policy import Action
from guard_runtime.conversation import Conversation, Kind, Part, Path, Role, Turn

ROLES: Mapping[str, Role] = {
    "developer": Role.SYSTEM,
    "system": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
    "function": Role.TOOL,
}

NUMBERS: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "n": (1, 128),
    "max_tokens": (0, math.inf),
    "max_completion_tokens": (0, math.inf),
    "top_logprobs": (0, 20),
    "seed": (-math.inf, math.inf),
}
WHOLE = frozenset({"n", "max_tokens", "max_completion_tokens", "top_logprobs", "seed"})
FLAGS = frozenset({"stream", "logprobs", "parallel_tool_calls", "store"})

# Read as parts: what a model can see beside the messages.
DEFINITIONS: Mapping[str, Kind] = {
    "tools": Kind.TOOL_DEFINITION,
    "functions": Kind.TOOL_DEFINITION,
    "response_format": Kind.SCHEMA,
    "tool_choice": Kind.TOOL_DEFINITION,
    "function_call": Kind.TOOL_DEFINITION,
    "stop": Kind.TEXT,
    "web_search_options": Kind.TEXT,
}

# Strings that are no content: names and ids that no model reads, each held to an identifier's shape. `metadata` is the
# caller's own bookkeeping, kept by the provider and never shown to a model.
NON_CONTENT = frozenset(
    {
        "model",
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "service_tier",
        "reasoning_effort",
        "verbosity",
        "modalities",
        "metadata",
        "audio",
    }
)
OPTIONS = frozenset(
    {"messages", "prediction", "stream_options", "logit_bias", *NUMBERS, *FLAGS, *DEFINITIONS, *NON_CONTENT}
)

MESSAGE_FIELDS = frozenset(
    {
        "role",
        "content",
        "name",
        "refusal",
        "reasoning_content",
        "reasoning",
        "tool_calls",
        "tool_call_id",
        "function_call",
        "audio",
        "annotations",
        "cache_control",
    }
)
MEDIA_PARTS: Mapping[str, str] = {"image_url": "image_url", "input_audio": "input_audio", "file": "file"}
TEXT_PARTS: Mapping[str, Kind] = {"text": Kind.TEXT, "refusal": Kind.REFUSAL}
MESSAGE_TEXT: Mapping[str, Kind] = {
    "refusal": Kind.REFUSAL,
    "reasoning_content": Kind.REASONING,
    "reasoning": Kind.REASONING,
    "name": Kind.NAME,
}


class Chat:
    name = "chat"
    path = "/v1/chat/completions"

    def read_request(self, body: Json) -> Conversation:
        _check_options(body)
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise BadRequest("messages must be a list with at least one message", param="messages")
        options = tuple(_definitions(body))
        turns = [_turn(message, ("messages", i)) for i, message in enumerate(messages)]
        return Conversation((Turn(Role.SYSTEM, options), *turns) if options else tuple(turns))

    def read_answer(self, answer: Json) -> tuple[Choice, ...]:
        choices = answer.get("choices")
        if not isinstance(choices, list) or not choices:
            raise UpstreamError("The model's provider sent an answer without choices.")
        try:
            return tuple(Choice(i, tuple(_answer_parts(choice, ("choices", i)))) for i, choice in enumerate(choices))
        except BadRequest as exc:
            raise UpstreamError(f"The model's provider sent an answer that is not a chat completion: {exc}") from exc

    def blocked_prompt(self, refusal: Refusal) -> Json:
        category = refusal.decision.category
        return {
            "error": {
                "message": refusal.text,
                "type": "invalid_request_error",
                "param": "prompt",
                "code": refusal.code,
                "status": 400,
                "innererror": {
                    "code": "ResponsibleAIPolicyViolation",
                    "content_filter_result": {str(category or refusal.decision.reason): {"filtered": True}},
                },
            }
        }

    def completion(self, body: Json, refusal: Refusal) -> Json:
        return {
            "id": f"chatcmpl-{refusal.id}",
            "object": "chat.completion",
            "created": refusal.created,
            "model": body["model"],
            "choices": [_refused_choice(body, 0, refusal, finish="stop")],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        }

    def refused(self, body: Json, answer: Json, position: int, refusal: Refusal) -> Json:
        choices = list(answer["choices"])
        finish = "content_filter" if refusal.decision.action is Action.BLOCK else "stop"
        choices[position] = _refused_choice(body, choices[position].get("index", position), refusal, finish=finish)
        return {**answer, "choices": choices}

    def instructed(self, body: Json, instruction: str) -> Json:
        return {**body, "n": 1, "messages": [*body["messages"], {"role": "system", "content": instruction}]}

    def with_choice(self, answer: Json, position: int, other: Json) -> Json:
        choices = list(answer["choices"])
        choices[position] = {**other["choices"][0], "index": choices[position].get("index", position)}
        return {**answer, "choices": choices, "usage": added(answer.get("usage"), other.get("usage"))}

    def error(self, error: GatewayError) -> Json:
        return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}

    def streams(self, body: Json) -> bool:
        return body.get("stream") is True

    def stream(self, body: Json) -> ChatStream:
        usage = (body.get("stream_options") or {}).get("include_usage") is True
        return ChatStream(body["model"], body.get("n") or 1, usage, structured=_structured(body))


def _refused_choice(body: Json, index: int, refusal: Refusal, *, finish: str) -> Json:
    """A safe message stands in the answer's place; a block, and what a structured-output caller gets, is a refusal."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": refusal.text}
    if refusal.decision.action is Action.REWRITE and not _structured(body):
        message = {"role": "assistant", "content": refusal.text, "refusal": None}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": finish}


def _structured(body: Json) -> bool:
    return (body.get("response_format") or {}).get("type") in ("json_schema", "json_object")


def _check_options(body: Json) -> None:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("model must be the name of a model", param="model")
    for name, (low, high) in NUMBERS.items():
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise BadRequest(f"{name} must be a number from {low:g} to {high:g}", param=name)
        if name in WHOLE and value != int(value):
            raise BadRequest(f"{name} must be a whole number", param=name)
    for name in FLAGS:
        if not isinstance(body.get(name), bool | None):
            raise BadRequest(f"{name} must be true or false", param=name)
    _check_shapes(body)


def _check_shapes(body: Json) -> None:
    for name in ("stream_options", "response_format", "logit_bias", "metadata", "prediction"):
        if not isinstance(body.get(name), Mapping | None):
            raise BadRequest(f"{name} must be an object", param=name)
    for name in ("tools", "functions", "modalities"):
        if not isinstance(body.get(name), list | None):
            raise BadRequest(f"{name} must be a list", param=name)
    if carries_text(list((body.get("logit_bias") or {}).values())):
        raise BadRequest("logit_bias must map token ids to numbers", param="logit_bias")
    for name in NON_CONTENT - {"metadata", "audio", "modalities", "model"}:
        value = body.get(name)
        if value is not None and not is_identifier(value):
            raise BadRequest(f"{name} must be an identifier: at most 256 visible ASCII characters", param=name)
    refuse_unknown(body, OPTIONS, ())


def _definitions(body: Json) -> Iterator[Part]:
    """What a model reads beside the messages: tools, schemas, a predicted answer."""
    for name, kind in DEFINITIONS.items():
        value = body.get(name)
        if isinstance(value, list):
            for i, item in enumerate(value):
                yield from joined(item, (name, i), kind)
        elif value is not None and not (isinstance(value, str) and value in ("auto", "none", "required")):
            yield from joined(value, (name,), kind)
    prediction = body.get("prediction")
    if prediction is not None:
        yield from _content(prediction.get("content"), ("prediction", "content"), Kind.TEXT)


def _turn(message: object, path: Path) -> Turn:
    if not isinstance(message, Mapping):
        raise BadRequest(f"{dotted(path)} must be an object", param=dotted(path))
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        name = dotted((*path, "role"))
        raise BadRequest(f"{name} must be one of {', '.join(ROLES)}", param=name)
    refuse_unknown(message, MESSAGE_FIELDS, path)
    return Turn(ROLES[role], tuple(_message_parts(message, path)))


def _message_parts(message: Json, path: Path) -> Iterator[Part]:
    """Every part of one message: a request's, or an answer's."""
    identifier = message.get("tool_call_id")
    if identifier is not None and not is_identifier(identifier):
        name = dotted((*path, "tool_call_id"))
        raise BadRequest(f"{name} must be an identifier: at most 256 visible ASCII characters", param=name)
    kind = Kind.TOOL_RESULT if message.get("role") in ("tool", "function") else Kind.TEXT
    yield from _content(message.get("content"), (*path, "content"), kind)
    for name, text_kind in MESSAGE_TEXT.items():
        yield from _text(message.get(name), (*path, name), text_kind)
    yield from _tool_calls(message, path)
    yield from joined(message.get("annotations"), (*path, "annotations"), Kind.TEXT)
    yield from _audio(message.get("audio"), (*path, "audio"))


def _content(content: object, path: Path, kind: Kind) -> Iterator[Part]:
    if not isinstance(content, list):
        yield from _text(content, path, kind)
        return
    for i, piece in enumerate(content):
        at = (*path, i)
        if not isinstance(piece, Mapping):
            raise BadRequest(f"{dotted(at)} must be an object with a type", param=dotted(at))
        yield from _piece(piece, at, kind)


def _piece(piece: Json, path: Path, kind: Kind) -> Iterator[Part]:
    found = str(piece.get("type"))
    if found in TEXT_PARTS:
        text_kind = TEXT_PARTS[found] if found == "refusal" else kind
        if not isinstance(piece.get(found), str):
            name = dotted((*path, found))
            raise BadRequest(f"{name} must be a string", param=name)
        refuse_unknown(piece, frozenset({"type", found, "cache_control"}), path)
        yield from _text(piece.get(found), (*path, found), text_kind)
    elif found in MEDIA_PARTS:
        refuse_unknown(piece, frozenset({"type", MEDIA_PARTS[found], "cache_control"}), path)
        yield Part((*path, MEDIA_PARTS[found]), None, Kind.MEDIA)
    else:
        name = dotted((*path, "type"))
        known = ", ".join((*TEXT_PARTS, *MEDIA_PARTS))
        raise BadRequest(f"{name} is not a part type known here ({known}), so no guard could read it", param=name)


def _text(value: object, path: Path, kind: Kind) -> Iterator[Part]:
    if value is None or value == "":
        return
    if not isinstance(value, str):
        raise BadRequest(f"{dotted(path)} must be a string, a list of parts or null", param=dotted(path))
    yield Part(path, value, kind)


def _tool_calls(message: Json, path: Path) -> Iterator[Part]:
    calls = message.get("tool_calls")
    if not isinstance(calls, list | None):
        raise BadRequest(f"{dotted((*path, 'tool_calls'))} must be a list", param=dotted((*path, "tool_calls")))
    for i, call in enumerate(calls or ()):
        at = (*path, "tool_calls", i)
        if not isinstance(call, Mapping) or not is_identifier(call.get("id", "")):
            raise BadRequest(f"{dotted(at)} must be an object with an id", param=dotted(at))
        refuse_unknown(call, frozenset({"id", "type", "function", "custom"}), at)
        for field in ("function", "custom"):
            if call.get(field) is not None:
                yield from _call(call[field], (*at, field))
    if message.get("function_call") is not None:
        yield from _call(message["function_call"], (*path, "function_call"))


def _call(call: object, path: Path) -> Iterator[Part]:
    if not isinstance(call, Mapping):
        raise BadRequest(f"{dotted(path)} must be an object", param=dotted(path))
    refuse_unknown(call, frozenset({"name", "arguments", "input"}), path)
    yield from _text(call.get("name"), (*path, "name"), Kind.NAME)
    yield from _text(call.get("input"), (*path, "input"), Kind.TOOL_CALL)
    if call.get("arguments") is not None:
        yield from arguments(call["arguments"], (*path, "arguments"))


def _audio(audio: object, path: Path) -> Iterator[Part]:
    """A spoken answer: its transcript is text; the sound itself nobody here can hear."""
    if audio is None:
        return
    if not isinstance(audio, Mapping):
        raise BadRequest(f"{dotted(path)} must be an object", param=dotted(path))
    yield from _text(audio.get("transcript"), (*path, "transcript"), Kind.TEXT)
    yield Part((*path, "data"), None, Kind.MEDIA)


ANSWER_CHOICE = frozenset({"index", "message", "finish_reason", "logprobs"})


def _answer_parts(choice: object, path: Path) -> Iterator[Part]:
    if not isinstance(choice, Mapping) or not isinstance(choice.get("message"), Mapping):
        raise BadRequest(f"{dotted(path)} has no message", param=dotted(path))
    at = (*path, "message")
    yield from _message_parts(choice["message"], at)
    yield from joined(choice.get("logprobs"), (*path, "logprobs"), Kind.TEXT)
    for holder, where, known in ((choice["message"], at, MESSAGE_FIELDS), (choice, path, ANSWER_CHOICE)):
        for key, value in holder.items():
            if key not in known and carries_text(value):
                yield Part((*where, key), None, Kind.TEXT)
