"""A request to compact a conversation and its answer, with every field there is."""

from typing import Any

from gateway.dialects.responses.response_fields import COMPACTION_FIELDS
from tests.gateway.dialects.responses import full_responses

REQUEST: dict[str, Any] = {
    name: value for name, value in full_responses.REQUEST.items() if name in COMPACTION_FIELDS.kinds or name == "model"
}
EVENTS: list[Any] = []
ANSWER: dict[str, Any] = {
    "id": "resp_1",
    "object": "response.compaction",
    "created_at": 1,
    "output": [
        {"type": "message", "id": "msg_1", "role": "user", "content": [{"type": "input_text", "text": "earlier"}]},
        {"type": "message", "id": "msg_2", "role": "assistant", "content": [{"type": "output_text", "text": "so far"}]},
    ],
    "usage": {"input_tokens": 20, "output_tokens": 3, "total_tokens": 23},
    "image": {"context_compression": "disabled"},
}
