"""POST /v1/responses/compact: a conversation goes in, a shorter one comes back, read like a response."""

from typing import NoReturn

from gateway.dialects.dialect import Json, Refusal
from gateway.dialects.fields import only_names
from gateway.dialects.responses.response_fields import COMPACTION_FIELDS
from gateway.dialects.responses.response_refusal import refused_response
from gateway.dialects.responses.responses import Responses
from gateway.errors import BadRequest

STAMP = ("id", "created_at", "usage")
"""What is kept of a compaction that is refused."""


class Compaction(Responses):
    name = "compaction"
    path = "/v1/responses/compact"
    summary = "A conversation made shorter"
    fields = COMPACTION_FIELDS

    def completion(self, body: Json, refusal: Refusal) -> Json:
        return _compacted({}, refused_response(body, {}, refusal, status="completed"))

    def refused(self, body: Json, answer: Json, position: int, refusal: Refusal) -> Json:
        stamp = {key: answer[key] for key in STAMP if key in answer and only_names(answer[key])}
        return _compacted(stamp, refused_response(body, stamp, refusal))

    def streams(self, body: Json) -> bool:
        return False

    def stream(self, body: Json) -> NoReturn:
        raise BadRequest("a compaction is not streamed: leave stream out", param="stream")


def _compacted(stamp: Json, refused: Json) -> Json:
    """The refusal's one message, as the shorter conversation."""
    kept = {key: refused[key] for key in ("id", "created_at", "output", "usage") if key in refused}
    return {**kept, **stamp, "object": "response.compaction"}
