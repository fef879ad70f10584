"""The border to a model's provider: what a caller may not tell it, and what of its errors a caller is told."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from gateway.dialects.dialect import Json
from gateway.errors import BadRequest, UpstreamError

FORBIDDEN = frozenset(
    {
        "api_base",
        "api_key",
        "base_url",
        "custom_llm_provider",
        "extra_body",
        "extra_headers",
        "extra_query",
        "guardrails",
        "mock_response",
        "user_config",
    }
)
"""Options by which SDKs and proxies let a caller choose the host, the key or the guards (litellm #24952, #37053,
PYSEC-2026-4070). Every name that begins with litellm_ is one of them."""

CONTENT = frozenset(
    {
        "functions",
        "input",
        "instructions",
        "messages",
        "prediction",
        "prompt",
        "response_format",
        "suffix",
        "system",
        "text",
        "tools",
    }
)
"""Fields that hold what the model reads: a tool may well have a parameter called api_key."""


def refuse_forbidden(body: Json) -> None:
    """Raises `BadRequest` naming the option, at whatever depth it is hidden. Content is not searched."""
    waiting: list[tuple[str, Any]] = [("", {key: None if key in CONTENT else body[key] for key in body})]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, Mapping):
            for key in value:
                _refuse(key, place)
        waiting.extend((f"{place}{key}."[-_MAX_PARAM:], inner) for key, inner in _containers(value))


def _containers(value: Any) -> Iterable[tuple[object, Any]]:
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
    return ((key, inner) for key, inner in pairs if isinstance(inner, Mapping | list))


def _refuse(key: str, place: str) -> None:
    name = key.lower().replace("-", "_")
    if name in FORBIDDEN or name.startswith("litellm_"):
        param = f"{place}{key}"[-_MAX_PARAM:]
        raise BadRequest(f"'{param}' is not an option of this API: leave it out.", param=param)


def outgoing(body: Json) -> bytes:
    """The object that was judged, as it goes to the provider. Raises `BadRequest` for one that may not be sent, or that
    JSON cannot carry."""
    refuse_forbidden(body)
    try:
        return orjson.dumps(body)
    except TypeError as exc:
        raise BadRequest(f"The body cannot be passed on as JSON: {exc}.") from None


_OWN_ACCOUNT = frozenset({401, 402, 403, 407})
_MAX_MESSAGE = 1000
_MAX_PARAM = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_TOKEN = re.compile(r"[A-Za-z0-9_.:/\[\]-]{1,128}")


def provider_error(name: str, status: int, said: object, secret: str | None = None) -> UpstreamError:
    """The error of the provider `name`, as the caller may see it. `said` is the provider's body, or None where it was
    no JSON: whatever else it was (an HTML page) is not passed on. `secret` is cut out, for some repeat the key.

    A refused key is the gateway's own, and the caller's SDK would take a 401 for its own: it becomes a 502. A redirect
    is never followed, for it would carry the key and the prompt to a host that no config names."""
    if 300 <= status < 400:
        return UpstreamError(f"The model's provider ({name}) answered with a redirect, which is not followed.")
    if status in _OWN_ACCOUNT:
        error = UpstreamError(f"The model's provider ({name}) refused the gateway's own account (status {status}).")
        error.code = "upstream_auth"
        return error
    if not 400 <= status < 600:
        return UpstreamError(f"The model's provider ({name}) answered with status {status}, which is no answer.")
    fields = {field: _without(value, secret) for field, value in _error_fields(said).items()}
    message = _sentence(fields.get("message")) or f"The model's provider ({name}) answered with status {status}."
    error = UpstreamError(message, param=_token(fields.get("param")))
    error.status = status
    error.type = _token(fields.get("type")) or error.type
    error.code = _token(fields.get("code")) or ("rate_limit_exceeded" if status == 429 else error.code)
    return error


def _error_fields(said: object) -> Mapping[str, object]:
    """The error object in a provider's body: OpenAI's shape, or the flat ones of vLLM, Ollama and FastAPI."""
    match said:
        case {"error": dict(fields)}:
            return fields
        case {"error": str(message)} | {"detail": str(message)}:
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
