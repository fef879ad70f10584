"""How a provider's errors reach the caller: the words cleaned, the status kept unless it is about our own account."""

import re
from collections.abc import Mapping

from gateway.errors import UpstreamError

_OWN_ACCOUNT = frozenset({401, 402, 403, 407})
_MAX_MESSAGE = 1000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_TOKEN = re.compile(r"[A-Za-z0-9_.:/\[\]-]{1,128}")


def provider_error(name: str, status: int, body: object, secret: str | None = None) -> UpstreamError:
    """The error of the provider `name`, as the caller may see it. `body` is the provider's JSON, or None where it sent
    none: anything else (an HTML page) is not passed on. `secret` is removed, because some providers repeat the key.

    When the provider refuses our key, the caller gets a 502: a 401 would tell the caller's SDK that its own key is
    wrong. A redirect is never followed, because it would carry the key and the prompt to a host no config names."""
    if 300 <= status < 400:
        return UpstreamError(f"The model's provider ({name}) answered with a redirect, which is not followed.")
    if status in _OWN_ACCOUNT:
        error = UpstreamError(f"The model's provider ({name}) refused the gateway's own account (status {status}).")
        error.code = "upstream_auth"
        return error
    if not 400 <= status < 600:
        return UpstreamError(f"The model's provider ({name}) answered with status {status}, which is no answer.")
    fields = {field: _without(value, secret) for field, value in _error_fields(body).items()}
    words = _sentence(fields.get("message"))
    error = UpstreamError(
        words or f"The model's provider ({name}) answered with status {status}.", param=_token(fields.get("param"))
    )
    error.quoted = bool(words)
    error.status = status
    error.type = _token(fields.get("type")) or error.type
    error.code = _token(fields.get("code")) or ("rate_limit_exceeded" if status == 429 else error.code)
    return error


def _error_fields(body: object) -> Mapping[str, object]:
    """The error object in a provider's body: OpenAI's shape, or the flat ones of vLLM, Ollama and FastAPI."""
    match body:
        case {"error": dict(fields)}:
            return fields
        case {"error": str(message)} | {"detail": str(message)}:
            return {"message": message}
        case {"detail": [{"msg": str(message)}, *_]}:
            return {"message": message}
        case {"message": str(message), **rest}:
            return {"message": message, "type": rest.get("type"), "code": rest.get("code"), "param": rest.get("param")}
    return {}


def _without(value: object, secret: str | None) -> object:
    return value.replace(secret, "[key]") if isinstance(value, str) and secret else value


def _sentence(value: object) -> str:
    sentence = _CONTROL.sub(" ", value).strip() if isinstance(value, str) else ""
    return sentence if len(sentence) <= _MAX_MESSAGE else sentence[:_MAX_MESSAGE] + "…"


def _token(value: object) -> str | None:
    return value if isinstance(value, str) and _TOKEN.fullmatch(value) else None
