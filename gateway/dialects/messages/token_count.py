"""POST /v1/messages/count_tokens: the prompt is judged like a message's; what comes back is a number."""

from collections.abc import Mapping
from typing import NoReturn

from gateway.dialects.dialect import Choice, Json, Refusal
from gateway.dialects.fields import strangers
from gateway.dialects.messages.message_fields import TOKEN_COUNT_FIELDS
from gateway.dialects.messages.messages import Messages
from gateway.errors import BadRequest, UpstreamError


class TokenCount(Messages):
    name = "count_tokens"
    path = "/v1/messages/count_tokens"
    summary = "The tokens of a prompt of Anthropic's"
    fields = TOKEN_COUNT_FIELDS
    speaks = False

    def read_answer(self, answer: Json, request: Json | None = None) -> tuple[Choice, ...]:
        if not isinstance(answer, Mapping) or not isinstance(answer.get("input_tokens"), int):
            raise UpstreamError("The model's provider sent an answer without a count of tokens.")
        unknown = strangers(answer, (), frozenset({"input_tokens"}), frozenset({"context_management"}))
        return (Choice(0, tuple(unknown)),)

    def completion(self, body: Json, refusal: Refusal) -> Json:
        """The 400 again: a number cannot say a refusal."""
        return self.blocked_prompt(refusal)

    def refused(self, body: Json, answer: Json, position: int, refusal: Refusal) -> NoReturn:
        raise UpstreamError("The model's provider sent more than a count of tokens, which cannot be checked.")

    def with_choice(self, answer: Json, position: int, other: Json) -> Json:
        return other

    def streams(self, body: Json) -> bool:
        return False

    def stream(self, body: Json) -> NoReturn:
        raise BadRequest("a count of tokens is not streamed: leave stream out", param="stream")
