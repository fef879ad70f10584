"""POST /v1/chat/completions"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.dialects.choices.chat_fields import FIELDS
from gateway.dialects.choices.chat_stream import CHOICE_KNOWN, ChatDelta, logprobs_text
from gateway.dialects.choices.choice_stream import ChoiceStream
from gateway.dialects.choices.choices import CHOICE_NAMES, NO_USAGE, read_choices, with_choice, with_refused
from gateway.dialects.choices.content_pieces import THINKING
from gateway.dialects.choices.normal_answers import normal_answer
from gateway.dialects.choices.vendor_fields import IN_MESSAGE, OF_CALL, OF_CHOICE, vendor_parts
from gateway.dialects.dialect import Choice, Json, Refusal
from gateway.dialects.fields import (
    arguments,
    dotted,
    items,
    joined,
    leaves,
    mapping,
    only_names,
    refuse_unknown,
    require_names,
    strangers,
    text,
    usage_in,
    wordy_ids,
)
from gateway.dialects.media import media_part, of_sound, of_url
from gateway.dialects.openai_errors import ERROR, blocked_body, error_body
from gateway.errors import BadRequest, GatewayError
from gateway.policy.policy import Action
from guard_runtime.conversation import Conversation, Kind, Media, MediaKind, Part, Path, Role, Turn

ROLES: Mapping[str, Role] = {
    "developer": Role.SYSTEM,
    "system": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
    "function": Role.TOOL,
}

# What a model can see beside the messages.
DEFINITIONS: Mapping[str, Kind] = {
    "tools": Kind.TOOL_DEFINITION,
    "functions": Kind.TOOL_DEFINITION,
    "response_format": Kind.SCHEMA,
    "tool_choice": Kind.TOOL_DEFINITION,
    "function_call": Kind.TOOL_DEFINITION,
    "stop": Kind.TEXT,
    "web_search_options": Kind.TEXT,
}

# A message's strings: those of MESSAGE_TEXT are content, those of MESSAGE_NAMES are names, the rest has its own reader.
MESSAGE_TEXT: Mapping[str, Kind] = {
    "refusal": Kind.REFUSAL,
    "reasoning_content": Kind.REASONING,
    "reasoning": Kind.REASONING,
    "name": Kind.NAME,
}
MESSAGE_NAMES = frozenset({"role", "tool_call_id", "cache_control"})
MESSAGE_KNOWN = frozenset({"content", "tool_calls", "function_call", "audio", "parsed", *IN_MESSAGE, *MESSAGE_TEXT})
CALL_NAMES = frozenset({"id", "type", "index"})
PIECE_NAMES = frozenset({"type", "cache_control", "prompt_cache_breakpoint"})
MEDIA_PARTS = frozenset({"image_url", "input_audio", "file"})
TEXT_PARTS: Mapping[str, Kind] = {"text": Kind.TEXT, "refusal": Kind.REFUSAL}


class Chat:
    name = "chat"
    path = "/v1/chat/completions"
    summary = "Chat completions"
    fields = FIELDS
    error_schema = ERROR
    azure = True
    speaks = True
    annotates = True
    forwarded: frozenset[str] = frozenset()

    def read_request(self, body: Json) -> Conversation:
        FIELDS.check(body)
        if not body.get("messages"):
            raise BadRequest("messages must be a list with at least one message", param="messages")
        options = tuple(_definitions(body))
        turns = [_turn(message, path) for message, path in items(body["messages"], ("messages",))]
        return Conversation((Turn(Role.SYSTEM, options), *turns) if options else tuple(turns))

    def read_answer(self, answer: Json, request: Json | None = None) -> tuple[Choice, ...]:
        return read_choices(answer, _answer_parts)

    def normalised(self, answer: Json) -> Json:
        return normal_answer(answer)

    def choices(self, body: Json) -> int:
        return int(body.get("n") or 1)

    def usage(self, data: Json) -> Json:
        return usage_in(data)

    def blocked_prompt(self, refusal: Refusal) -> Json:
        return blocked_body(refusal)

    def completion(self, body: Json, refusal: Refusal) -> Json:
        return {
            "id": f"chatcmpl-{refusal.id}",
            "object": "chat.completion",
            "created": refusal.created,
            "model": body["model"],
            "choices": [{"index": 0, **_refused_choice(body, refusal, finish="stop")}],
            "usage": NO_USAGE,
        }

    def refused(self, body: Json, answer: Json, position: int, refusal: Refusal) -> Json:
        finish = "content_filter" if refusal.decision.action is Action.BLOCK else "stop"
        return with_refused(answer, position, _refused_choice(body, refusal, finish=finish))

    def instructed(self, body: Json, instruction: str) -> Json:
        return {**body, "n": 1, "messages": [*body["messages"], {"role": "system", "content": instruction}]}

    def with_choice(self, answer: Json, position: int, other: Json) -> Json:
        return with_choice(answer, position, other)

    def error(self, error: GatewayError) -> Json:
        return error_body(error)

    def streams(self, body: Json) -> bool:
        return body.get("stream") is True

    def stream(self, body: Json) -> ChoiceStream:
        return ChoiceStream(
            ChatDelta(structured=_structured(body)),
            {"id": "chatcmpl-", "object": "chat.completion.chunk", "created": 0, "model": body["model"]},
            expected=self.choices(body),
            usage=(body.get("stream_options") or {}).get("include_usage") is True,
        )


def _refused_choice(body: Json, refusal: Refusal, *, finish: str) -> Json:
    """A safe message replaces the content. A block is a refusal, and so is either where the caller parses JSON."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": refusal.text}
    if refusal.decision.action is Action.REWRITE and not _structured(body):
        message = {"role": "assistant", "content": refusal.text, "refusal": None}
    return {"message": message, "logprobs": None, "finish_reason": finish}


def _structured(body: Json) -> bool:
    return (body.get("response_format") or {}).get("type") in ("json_schema", "json_object")


def _definitions(body: Json) -> Iterator[Part]:
    """What a model reads beside the messages: tools, schemas, a predicted answer."""
    for name in ("tools", "functions"):
        for item, path in items(body.get(name), (name,)):
            yield from joined(item, path, DEFINITIONS[name])
    for name in ("response_format", "web_search_options"):
        yield from joined(body.get(name), (name,), DEFINITIONS[name])
    for name in ("tool_choice", "function_call"):
        choice = body.get(name)
        if not isinstance(choice, str | Mapping | None):
            raise BadRequest(f"{name} must be a word or an object", param=name)
        if choice not in ("auto", "none", "required"):
            yield from joined(choice, (name,), DEFINITIONS[name])
    yield from _stop(body.get("stop"))
    prediction = body.get("prediction")
    if prediction is not None:
        require_names(prediction, PIECE_NAMES, ("prediction",))
        refuse_unknown(prediction, PIECE_NAMES | {"content"}, ("prediction",))
        yield from _content(prediction.get("content"), ("prediction", "content"), Kind.TEXT)


def _stop(stop: object) -> Iterator[Part]:
    if not isinstance(stop, list):
        yield from text(stop, ("stop",))
        return
    for i, word in enumerate(stop):
        yield from text(word, ("stop", i))


def _turn(message: Json, path: Path) -> Turn:
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        name = dotted((*path, "role"))
        raise BadRequest(f"{name} must be one of {', '.join(ROLES)}", param=name)
    require_names(message, MESSAGE_NAMES - wordy_ids(message, ("tool_call_id",)), path)
    refuse_unknown(message, MESSAGE_KNOWN | MESSAGE_NAMES, path)
    return Turn(ROLES[role], (*_ids(message, ("tool_call_id",), path), *_message_parts(message, path)))


def _ids(holder: Json, names: Sequence[str], path: Path) -> Iterator[Part]:
    for name in sorted(wordy_ids(holder, names)):
        yield from text(holder[name], (*path, name), Kind.NAME)


def _message_parts(message: Json, path: Path) -> Iterator[Part]:
    """Every part of one message: a request's, or an answer's."""
    kind = Kind.TOOL_RESULT if message.get("role") in ("tool", "function") else Kind.TEXT
    yield from _content(message.get("content"), (*path, "content"), kind)
    for name, text_kind in MESSAGE_TEXT.items():
        if name in message:
            yield from text(message[name], (*path, name), text_kind)
    for call, at in items(message.get("tool_calls"), (*path, "tool_calls")):
        require_names(call, CALL_NAMES - wordy_ids(call, ("id",)), at)
        yield from _ids(call, ("id",), at)
        refuse_unknown(call, CALL_NAMES | {"function", "custom", *OF_CALL}, at)
        for field in ("function", "custom"):
            yield from _call(call.get(field), (*at, field))
        yield from vendor_parts(call, OF_CALL, at)
    yield from _call(message.get("function_call"), (*path, "function_call"))
    yield from vendor_parts(message, IN_MESSAGE, path)
    yield from leaves(message.get("parsed"), (*path, "parsed"), kind)
    if message.get("audio") is not None:
        # A spoken answer: its transcript is text; the sound itself cannot be read by a guard.
        audio = mapping(message["audio"], (*path, "audio"))
        yield from text(audio.get("transcript"), (*path, "audio", "transcript"))
        yield Part((*path, "audio"), None, Kind.MEDIA)


def _content(content: object, path: Path, kind: Kind) -> Iterator[Part]:
    if not isinstance(content, list | str | None):
        raise BadRequest(f"{dotted(path)} must be a string, a list of parts or null", param=dotted(path))
    if not isinstance(content, list):
        yield from text(content, path, kind)
        return
    for piece, at in items(content, path):
        yield from _piece(piece, at, kind)


def _piece(piece: Json, path: Path, kind: Kind) -> Iterator[Part]:
    part_type = piece.get("type")
    if isinstance(part_type, str) and part_type in THINKING:
        refuse_unknown(piece, PIECE_NAMES | {THINKING[part_type], "signature", "reference_ids", "closed"}, path)
        fields = (THINKING[part_type], "signature")
        yield from vendor_parts(piece, dict.fromkeys(fields, Kind.REASONING), path)
        return
    if not isinstance(part_type, str) or part_type not in (TEXT_PARTS.keys() | MEDIA_PARTS):
        name = dotted((*path, "type"))
        known = ", ".join((*TEXT_PARTS, *sorted(MEDIA_PARTS)))
        raise BadRequest(f"{name} must be one of {known}: other parts cannot be checked.", param=name)
    require_names(piece, PIECE_NAMES, path)
    refuse_unknown(piece, PIECE_NAMES | {part_type}, path)
    if part_type in TEXT_PARTS:
        if not isinstance(piece.get(part_type), str):
            name = dotted((*path, part_type))
            raise BadRequest(f"{name} must be a string", param=name)
        yield from text(piece[part_type], (*path, part_type), Kind.REFUSAL if part_type == "refusal" else kind)
    else:
        holder = mapping(piece.get(part_type), (*path, part_type))
        yield from text(holder.get("filename"), (*path, part_type, "filename"), Kind.NAME)
        yield from media_part((*path, part_type), _media(part_type, holder), name=holder.get("filename"))


def _media(part_type: str, holder: Json) -> Media | None:
    """The media in the part itself, unless another field is beside it: that could name another file."""
    match part_type:
        case "image_url" if holder.keys() <= {"url", "detail"} and only_names(holder.get("detail")):
            return of_url(MediaKind.IMAGE, holder.get("url"))
        case "input_audio" if holder.keys() <= {"data", "format"}:
            return of_sound(holder.get("format"), holder.get("data"))
        case "file" if holder.keys() <= {"file_data", "filename"}:
            return of_url(MediaKind.FILE, holder.get("file_data"))
    return None


def _call(call: object, path: Path) -> Iterator[Part]:
    if call is None:
        return
    call = mapping(call, path)
    refuse_unknown(call, frozenset({"name", "arguments", "input", "parsed_arguments"}), path)
    yield from text(call.get("name"), (*path, "name"), Kind.NAME)
    yield from text(call.get("input"), (*path, "input"), Kind.TOOL_CALL)
    if call.get("arguments") is not None:
        yield from arguments(call["arguments"], (*path, "arguments"))
    yield from leaves(call.get("parsed_arguments"), (*path, "parsed_arguments"), Kind.TOOL_CALL)


def _answer_parts(choice: Json, path: Path) -> Iterator[Part]:
    at = (*path, "message")
    message = mapping(choice.get("message"), at)
    yield from strangers(message, at, MESSAGE_KNOWN, MESSAGE_NAMES)
    yield from _message_parts({key: value for key, value in message.items() if key in MESSAGE_KNOWN}, at)
    yield from joined(logprobs_text(choice.get("logprobs")), (*path, "logprobs"), Kind.TEXT)
    yield from vendor_parts(choice, OF_CHOICE, path)
    yield from strangers(choice, path, CHOICE_KNOWN - {"delta"}, CHOICE_NAMES)
