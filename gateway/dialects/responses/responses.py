"""POST /v1/responses"""

from collections.abc import Iterator, Mapping

from gateway.dialects.dialect import Choice, Json, Refusal
from gateway.dialects.fields import (
    added,
    dotted,
    items,
    joined,
    only_names,
    refuse_unknown,
    require_known,
    require_names,
    text,
    unread,
    usage_in,
)
from gateway.dialects.openai_errors import ERROR, blocked_body, error_body
from gateway.dialects.request_fields import RequestFields
from gateway.dialects.responses.response_fields import FIELDS
from gateway.dialects.responses.response_items import item_parts, role_of, tool_parts, type_of
from gateway.dialects.responses.response_refusal import refused_response
from gateway.dialects.responses.response_stream import ResponseStream
from gateway.errors import BadRequest, GatewayError, UpstreamError
from guard_runtime.conversation import Conversation, Kind, Part, Path, Role, Turn

STORED: Mapping[str, str] = {
    "previous_response_id": "Send the earlier turns in input.",
    "conversation": "Send the earlier turns in input.",
    "prompt": "Send its text in instructions and input.",
}
"""Fields by which the model reads what the provider has stored, which no guard here can read; and what to do."""

# Fields of a response object: what repeats the request, and the ids, settings and counts that are no content.
ECHOES: Mapping[str, Kind] = {
    "instructions": Kind.TEXT,
    "tools": Kind.TOOL_DEFINITION,
    "tool_choice": Kind.TOOL_DEFINITION,
    "text": Kind.SCHEMA,
    "metadata": Kind.TEXT,
    "prompt": Kind.TEXT,
}
SETTINGS = frozenset({"text", "tool_choice"})
ANSWER_NAMES = frozenset(
    {
        "access_programs",
        "context_management",
        "image",
        "input_transformations",
        "moderation",
        "prompt_cache_diagnostics",
        "prompt_cache_options",
        "tool_usage",
        "id",
        "object",
        "model",
        "status",
        "incomplete_details",
        "background",
        "conversation",
        "include",
        "previous_response_id",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "truncation",
        "usage",
        "user",
    }
)


class Responses:
    name = "responses"
    path = "/v1/responses"
    summary = "Responses"
    fields: RequestFields = FIELDS
    error_schema = ERROR
    azure = False
    speaks = True
    annotates = False
    forwarded: frozenset[str] = frozenset({"openai-beta"})

    def read_request(self, body: Json) -> Conversation:
        _refuse_stored(body)
        self.fields.check(body)
        definitions = tuple(require_known(_definitions(body)))
        turns = [Turn(Role.SYSTEM, definitions)] if definitions else []
        given = body.get("input")
        if isinstance(given, str):
            return Conversation((*turns, Turn(Role.USER, tuple(text(given, ("input",))))))
        if not isinstance(given, list) or not given:
            raise BadRequest("input must be a string or a list with at least one item", param="input")
        return Conversation((*turns, *(_turn(item, path) for item, path in items(given, ("input",)))))

    def read_answer(self, answer: Json, request: Json | None = None) -> tuple[Choice, ...]:
        try:
            return (Choice(0, tuple(response_parts(answer, request or {}))),)
        except BadRequest as exc:
            raise UpstreamError(f"The model's provider sent an answer that cannot be read: {exc}") from exc

    def normalised(self, answer: Json) -> Json:
        return answer

    def choices(self, body: Json) -> int:
        return 1

    def usage(self, data: Json) -> Json:
        """An answer has it on top; the events of a stream have it in the response they hold."""
        return usage_in(data) or usage_in(data.get("response"))

    def blocked_prompt(self, refusal: Refusal) -> Json:
        return blocked_body(refusal)

    def completion(self, body: Json, refusal: Refusal) -> Json:
        return refused_response(body, {}, refusal, status="completed")

    def refused(self, body: Json, answer: Json, position: int, refusal: Refusal) -> Json:
        """Nothing of the answer is kept but its ids and counts: its items are one answer."""
        stamp = {key: value for key, value in answer.items() if key in ANSWER_NAMES and only_names(value)}
        return refused_response(body, stamp, refusal)

    def instructed(self, body: Json, instruction: str) -> Json:
        given = body["input"]
        turns = [{"role": "user", "content": given}] if isinstance(given, str) else given
        return {**body, "input": [*turns, {"role": "system", "content": instruction}]}

    def with_choice(self, answer: Json, position: int, other: Json) -> Json:
        return {**other, "usage": added(answer.get("usage"), other.get("usage"))}

    def error(self, error: GatewayError) -> Json:
        return error_body(error)

    def streams(self, body: Json) -> bool:
        return body.get("stream") is True

    def stream(self, body: Json) -> ResponseStream:
        return ResponseStream(body, lambda response: tuple(response_parts(response, body)))


def _refuse_stored(body: Json) -> None:
    for name, instead in STORED.items():
        if body.get(name) is not None:
            raise BadRequest(
                f"{name} refers to content stored at the provider, which cannot be checked here. {instead}", param=name
            )
    if body.get("background"):
        raise BadRequest(
            "background answers are fetched later, without a check. Leave background out.", param="background"
        )


def _definitions(body: Json) -> Iterator[Part]:
    """What a model reads beside the items."""
    yield from text(body.get("instructions"), ("instructions",))
    yield from tool_parts(body.get("tools"), ("tools",))
    choice = body.get("tool_choice")
    if not isinstance(choice, str | Mapping | None):
        raise BadRequest("tool_choice must be a word or an object", param="tool_choice")
    if choice not in ("auto", "none", "required"):
        yield from joined(choice, ("tool_choice",), Kind.TOOL_DEFINITION)
    settings = body.get("text") or {}
    require_names(settings, frozenset({"verbosity"}), ("text",))
    refuse_unknown(settings, frozenset({"format", "verbosity"}), ("text",))
    if not isinstance(settings.get("format"), Mapping | None):
        raise BadRequest("text.format must be an object", param="text.format")
    if settings.get("format") != {"type": "text"}:
        yield from joined(settings.get("format"), ("text", "format"), Kind.SCHEMA)


def _turn(item: Json, path: Path) -> Turn:
    if type_of(item) != "compaction_trigger" and (
        item.get("type") == "item_reference" or item.keys() <= {"id", "type"}
    ):
        raise BadRequest(
            f"{dotted(path)} refers to an item stored at the provider, which cannot be checked here. "
            "Send the item itself.",
            param=dotted(path),
        )
    role = item.get("role")
    if type_of(item) == "message" and role not in ("user", "assistant", "system", "developer"):
        name = dotted((*path, "role"))
        raise BadRequest(f"{name} must be one of user, assistant, system, developer", param=name)
    return Turn(role_of(item), tuple(require_known(item_parts(item, path))))


def response_parts(response: Json, request: Json) -> Iterator[Part]:
    """Every part of a response object. What only repeats the `request` is the caller's own and no part."""
    if not isinstance(response, Mapping) or not isinstance(response.get("output"), list | None):
        raise BadRequest("it is not a response")
    for item, path in items(response.get("output"), ("output",)):
        yield from item_parts(item, path)
    yield from text(response.get("output_text"), ("output_text",))
    for name, kind in ECHOES.items():
        if response.get(name) != request.get(name) and not (name in SETTINGS and only_names(response.get(name))):
            yield from joined(response.get(name), (name,), kind)
    yield from joined(response.get("error"), ("error",), Kind.TEXT)
    for key in unread(response, frozenset({"output", "output_text", "error", *ECHOES}), ANSWER_NAMES):
        yield Part((key,), None)
