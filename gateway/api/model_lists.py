"""The models that a key may use, as OpenAI lists them or as Anthropic does, and which of the two a caller expects."""

from collections.abc import Sequence

from starlette.requests import Request

from gateway.dialects.dialect import Json
from gateway.dialects.messages.message_stream import error_body as anthropic_error
from gateway.dialects.openai_errors import error_body as openai_error
from gateway.errors import GatewayError

_EPOCH = "1970-01-01T00:00:00Z"


def is_for_anthropic(request: Request) -> bool:
    """Whether a request that names no dialect comes from a client of Anthropic's API."""
    path = request.scope["path"]
    return path == "/v1/messages" or path.startswith("/v1/messages/") or "anthropic-version" in request.headers


def model_list(request: Request, names: Sequence[str]) -> Json:
    models = [model(request, name) for name in names]
    if not is_for_anthropic(request):
        return {"object": "list", "data": models}
    ends = {"first_id": names[0], "last_id": names[-1]} if names else {"first_id": None, "last_id": None}
    return {"data": models, "has_more": False, **ends}


def model(request: Request, name: str) -> Json:
    if is_for_anthropic(request):
        return {"type": "model", "id": name, "display_name": name, "created_at": _EPOCH}
    return {"id": name, "object": "model", "created": 0, "owned_by": "libragate"}


def error_of(request: Request, error: GatewayError) -> Json:
    """An error outside of every dialect, in the shape that its caller reads."""
    return anthropic_error(error) if is_for_anthropic(request) else openai_error(error)
