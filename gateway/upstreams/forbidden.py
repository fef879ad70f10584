"""Request options a caller may not set: by them SDKs and proxies choose the host, the key or the guards."""

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.dialects.dialect import Json
from gateway.errors import BadRequest

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
"""And every name that begins with litellm_ (litellm #24952, #37053, PYSEC-2026-4070)."""

_MAX_PARAM = 200


def refuse_forbidden(body: Json, free_keys: frozenset[str]) -> None:
    """Raises `BadRequest` naming the option, at whatever depth it is hidden. The fields `free_keys`, whose keys are the
    caller's choice, are not searched."""
    waiting: list[tuple[str, Any]] = [("", {key: None if key in free_keys else body[key] for key in body})]
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
