"""POST /v1/messages, Anthropic's API"""

from collections.abc import Iterator, Mapping

from gateway.dialects.dialect import Choice, Json, Refusal
from gateway.dialects.fields import (
    added,
    dotted,
    is_identifier,
    items,
    joined,
    leaves,
    mapping,
    only_names,
    refuse_unknown,
    require_known,
    require_names,
    text,
    unread_in_answer,
    usage_in,
)
from gateway.dialects.messages.message_blocks import content, tool_parts
from gateway.dialects.messages.message_fields import FIELDS
from gateway.dialects.messages.message_stream import (
    ANSWER_NAMES,
    ERROR,
    MessageStream,
    answer_fields,
    error_body,
    refused_message,
)
from gateway.dialects.request_fields import RequestFields
from gateway.errors import BadRequest, GatewayError, UpstreamError
from guard_runtime.conversation import Conversation, Kind, Part, Path, Role, Turn

ROLES: Mapping[str, Role] = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM}

STORED = frozenset({"container", "mcp_servers", "thread", "user_profile_id"})
"""Fields by which a model reads content that passes no guard: stored files, skills and
conversations, servers of others."""


class Messages:
    name = "messages"
    path = "/v1/messages"
    summary = "Anthropic's messages"
    fields: RequestFields = FIELDS
    error_schema = ERROR
    azure = False
    speaks = True
    annotates = False
    forwarded: frozenset[str] = frozenset({"anthropic-version", "anthropic-beta"})

    def read_request(self, body: Json) -> Conversation:
        for name in STORED & body.keys():
            if body[name] is not None:
                raise BadRequest(
                    f"{name} lets the model read content that cannot be checked here. Leave it out.", param=name
                )
        self.fields.check(body)
        if not body.get("messages"):
            raise BadRequest("messages must be a list with at least one message", param="messages")
        definitions = tuple(require_known(_definitions(body)))
        turns = [Turn(Role.SYSTEM, definitions)] if definitions else []
        turns += [_turn(message, path) for message, path in items(body["messages"], ("messages",))]
        return Conversation(tuple(turns))

    def read_answer(self, answer: Json, request: Json | None = None) -> tuple[Choice, ...]:
        if not isinstance(answer, Mapping) or not isinstance(answer.get("content"), list):
            raise UpstreamError("The model's provider sent an answer without content.")
        try:
            parts = (*content(answer["content"], ("content",), Kind.TEXT), *answer_fields(answer, (), request or {}))
        except BadRequest as exc:
            raise UpstreamError(f"The model's provider sent an answer that cannot be read: {exc}") from exc
        known = frozenset({"content", "stop_sequence", "stop_details"})
        return (Choice(0, (*parts, *(Part((key,), None) for key in unread_in_answer(answer, known, ANSWER_NAMES)))),)

    def normalised(self, answer: Json) -> Json:
        return answer

    def choices(self, body: Json) -> int:
        return 1

    def usage(self, data: Json) -> Json:
        """An answer has it on top; of a stream's events, the first counts the prompt, the last ones the answer."""
        return {**usage_in(data.get("message")), **usage_in(data)}

    def blocked_prompt(self, refusal: Refusal) -> Json:
        error = {"type": "invalid_request_error", "message": refusal.text, "code": refusal.code}
        return {"type": "error", "error": error, "request_id": refusal.id}

    def completion(self, body: Json, refusal: Refusal) -> Json:
        return refused_message(body, {}, refusal)

    def refused(self, body: Json, answer: Json, position: int, refusal: Refusal) -> Json:
        stamp = {key: value for key, value in answer.items() if key in ANSWER_NAMES and only_names(value)}
        return refused_message(body, stamp, refusal)

    def instructed(self, body: Json, instruction: str) -> Json:
        system = body.get("system")
        if isinstance(system, list):
            return {**body, "system": [*system, {"type": "text", "text": instruction}]}
        return {**body, "system": f"{system}\n\n{instruction}" if system else instruction}

    def with_choice(self, answer: Json, position: int, other: Json) -> Json:
        return {**other, "usage": added(answer.get("usage"), other.get("usage"))}

    def error(self, error: GatewayError) -> Json:
        return error_body(error)

    def streams(self, body: Json) -> bool:
        return body.get("stream") is True

    def stream(self, body: Json) -> MessageStream:
        return MessageStream(body)


def _definitions(body: Json) -> Iterator[Part]:
    """What a model reads beside the messages."""
    yield from content(body.get("system"), ("system",), Kind.TEXT)
    for i, word in enumerate(body.get("stop_sequences") or ()):
        yield from text(word, ("stop_sequences", i))
    yield from tool_parts(body.get("tools"), ("tools",))
    choice = body.get("tool_choice") or {}
    if not only_names({**choice, "name": ""}):
        raise BadRequest("tool_choice must hold a type and a tool's name", param="tool_choice")
    yield from text(choice.get("name"), ("tool_choice", "name"), Kind.NAME)
    output = body.get("output_config") or {}
    require_names(output, frozenset({"effort", "task_budget"}), ("output_config",))
    refuse_unknown(output, frozenset({"effort", "format", "task_budget"}), ("output_config",))
    if output.get("format") is not None:
        yield from joined(
            mapping(output["format"], ("output_config", "format")), ("output_config", "format"), Kind.SCHEMA
        )
    for name in ("context_management", "compaction"):
        yield from _worded(body.get(name), (name,))


def _worded(settings: object, path: Path) -> Iterator[Part]:
    """What a model may read of settings: instructions, and every text that is more than a name."""
    for part in leaves(settings, path, Kind.TEXT):
        if part.path[-1] == "instructions" or not all(map(is_identifier, (part.text or "").split("\n"))):
            yield part


def _turn(message: Json, path: Path) -> Turn:
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        name = dotted((*path, "role"))
        raise BadRequest(f"{name} must be one of {', '.join(ROLES)}", param=name)
    refuse_unknown(message, frozenset({"role", "content"}), path)
    parts = tuple(require_known(content(message.get("content"), (*path, "content"), Kind.TEXT)))
    only_results = bool(parts) and all(part.kind is Kind.TOOL_RESULT for part in parts)
    return Turn(Role.TOOL if only_results else ROLES[role], parts)
