"""A request to count tokens and its answer, with every field there is."""

from typing import Any

from gateway.dialects.messages.message_fields import TOKEN_COUNT_FIELDS
from tests.gateway.dialects.messages import full_messages

REQUEST: dict[str, Any] = {
    name: value for name, value in full_messages.REQUEST.items() if name in TOKEN_COUNT_FIELDS.kinds or name == "model"
}
EVENTS: list[Any] = []
ANSWER: dict[str, Any] = {"input_tokens": 20, "context_management": {"original_input_tokens": 30}}
