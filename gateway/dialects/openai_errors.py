"""OpenAI's error shape, and Azure's for a blocked prompt: what every dialect but Anthropic's answers with."""

from typing import Any

from gateway.dialects.dialect import Json, Refusal
from gateway.dialects.json_schema import TEXT, NamedSchema, Schema, record
from gateway.errors import GatewayError

_NULLABLE: Schema = {"type": ["string", "null"]}
ERROR = NamedSchema(
    "Error",
    record(
        ("error",),
        error=record(("message", "type", "param", "code"), message=TEXT, type=TEXT, param=_NULLABLE, code=_NULLABLE),
    ),
)


def error_body(error: GatewayError) -> dict[str, Any]:
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def blocked_body(refusal: Refusal) -> Json:
    """The 400 for a blocked prompt, as Azure OpenAI words it (code, innererror), so that its callers' code works."""
    decision = refusal.decision
    return {
        "error": {
            "message": refusal.text,
            "type": "invalid_request_error",
            "param": "prompt",
            "code": refusal.code,
            "status": 400,
            "innererror": {
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": refusal.results
                or {str(decision.category or decision.reason): {"filtered": True}},
            },
        }
    }
