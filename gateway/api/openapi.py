"""The published OpenAPI 3.1 document: every served route, built from what the dialects check."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from gateway.api import openapi_bodies as bodies
from gateway.api.openapi_bodies import Schema
from gateway.dialects import embeddings, moderations
from gateway.dialects.choices import chat, completions
from gateway.dialects.messages import messages
from gateway.dialects.options import Options
from gateway.dialects.responses import responses
from gateway.judging.azure_results import HEADER

AZURE = "/openai/deployments/{model}"
ERRORS: Mapping[int, str] = {
    400: "The request is wrong, and the error names the field; or its prompt was blocked (code content_filter)",
    401: "No key, or one that is not known here",
    403: "This key may not use this model",
    404: "There is no such model, route or receipt",
    408: "The body did not arrive in time",
    413: "The body is too large",
    415: "The body is compressed",
}
UPSTREAM_ERRORS: Mapping[int, str] = {
    429: "The model's provider limits its callers",
    502: "The model's provider failed",
    504: "The model's provider was too slow",
}
GUARD_ERROR = "No guard could look, so nothing was let through (code guard_unavailable)"


@dataclass(frozen=True, slots=True)
class _Door:
    """A dialect as the document tells it."""

    name: str
    path: str
    summary: str
    content: Schema
    options: Options | None
    error: str = "Error"
    streams: bool = True
    upstream: bool = True
    on_azure: bool = False


DOORS = (
    _Door("chat", chat.Chat.path, "Chat completions", bodies.CHAT, chat.OPTIONS, on_azure=True),
    _Door(
        "completions",
        completions.Completions.path,
        "Completions of a text",
        bodies.COMPLETIONS,
        completions.OPTIONS,
        on_azure=True,
    ),
    _Door("responses", responses.Responses.path, "Responses", bodies.RESPONSES, responses.OPTIONS),
    _Door(
        "messages",
        messages.Messages.path,
        "Anthropic's messages",
        bodies.MESSAGES,
        messages.OPTIONS,
        error="AnthropicError",
    ),
    _Door(
        "embeddings",
        embeddings.Embeddings.path,
        "Embeddings of texts",
        bodies.EMBEDDINGS,
        embeddings.OPTIONS,
        streams=False,
        on_azure=True,
    ),
    _Door(
        "moderations",
        moderations.Moderations.path,
        "Texts judged by the guards that serve here",
        bodies.MODERATIONS,
        None,
        streams=False,
        upstream=False,
    ),
)


def document(version: str) -> dict[str, Any]:
    """The whole document, as JSON values."""
    paths = {door.path: {"post": _operation(door)} for door in DOORS}
    paths |= {AZURE + door.path.removeprefix("/v1"): _on_azure(door) for door in DOORS if door.on_azure}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "LibraGate",
            "version": version,
            "description": "Every prompt and every answer is read by a safety guard; the tenant's policy decides.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"bearer": []}, {"apiKey": []}, {"xApiKey": []}],
        "paths": {**paths, **_own_routes()},
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "api-key"},
                "xApiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "headers": _headers(),
            "schemas": {"Error": _error(), "AnthropicError": _anthropic_error(), "Moderation": _moderation()},
        },
    }


def _operation(door: _Door, *, model_in_path: bool = False) -> dict[str, Any]:
    codes = {**ERRORS, **(UPSTREAM_ERRORS if door.upstream else {}), 503: GUARD_ERROR}
    answer: dict[str, Any] = {"application/json": {"schema": _answer(door)}}
    if door.streams:
        # 3.1 has no words for a stream's events; a schema of the whole body would be taken for one of each event
        answer["text/event-stream"] = {"schema": {}}
    answered = {"description": "The answer, judged", "content": answer, "headers": _stamped()}
    parameters = [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
    asked = {"name": HEADER, "in": "header", "schema": {"type": "string", "enum": ["true", "false"]}}
    return {
        "operationId": door.name + ("OnAzure" if model_in_path else ""),
        "summary": door.summary,
        "parameters": (parameters if model_in_path else []) + ([asked] if door.on_azure else []),
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _request(door, model_in_path=model_in_path)}},
        },
        "responses": {
            "200": answered,
            **{str(code): _failed(said, door.error) for code, said in codes.items()},
        },
    }


def _on_azure(door: _Door) -> dict[str, Any]:
    return {"post": _operation(door, model_in_path=True)}


def _request(door: _Door, *, model_in_path: bool) -> dict[str, Any]:
    """The content's fields and the options', each as the dialect checks it."""
    options = _options(door.options) if door.options is not None else {}
    properties = {**options, **door.content["properties"]}
    required = [name for name in door.content["required"] if not (model_in_path and name == "model")]
    return {"type": "object", "properties": properties, "required": required}


def _options(options: Options) -> dict[str, Any]:
    found: dict[str, Any] = {"model": {"type": "string", "minLength": 1}}
    for name in sorted(options.known - {"model"}):
        if name in options.numbers:
            low, high = options.numbers[name]
            kind = "integer" if name in options.whole else "number"
            bounds = {"minimum": low, "maximum": high}
            found[name] = {"type": [kind, "null"], **{k: v for k, v in bounds.items() if math.isfinite(v)}}
        elif name in options.flags:
            found[name] = {"type": ["boolean", "null"]}
        elif name in options.objects | options.kept:
            found[name] = {"type": ["object", "null"]}
        elif name in options.lists:
            found[name] = {"type": ["array", "null"], "items": bodies.IDENTIFIER}
        elif name in options.read:
            found[name] = {"description": "content: every string in it is judged"}
        else:
            found[name] = {"description": "names and ids only: every string in it visible ASCII without blanks"}
    return found


def _answer(door: _Door) -> Schema:
    return {"$ref": "#/components/schemas/Moderation"} if door.name == "moderations" else {"type": "object"}


def _failed(said: str, shape: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{shape}"}
    return {"description": said, "content": {"application/json": {"schema": schema}}}


def _own_routes() -> dict[str, Any]:
    keyed: Mapping[str, Any] = MappingProxyType({})
    case = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "/v1/models": _get("The models that this key may use", keyed, (401,)),
        "/v1/models/{id}": _get("One of them", keyed, (401, 403, 404), case),
        "/v1/receipts/{id}": _get("What was read of one of this tenant's requests", keyed, (401, 404), case),
        "/healthz": _get("The process is alive", {"security": []}, (), kind="text/plain"),
        "/readyz": _get("Whether every guard is up", {"security": []}, (503,)),
        "/metrics": _get("For Prometheus", {"security": []}, (), kind="text/plain"),
        "/openapi.json": _get("This document", {"security": []}, ()),
    }


def _get(
    said: str, more: Mapping[str, Any], errors: tuple[int, ...], *parameters: Schema, kind: str = "application/json"
) -> dict[str, Any]:
    shape = {"type": "string"} if kind == "text/plain" else {"type": "object"}
    answered = {"description": said, "content": {kind: {"schema": shape}}}
    failed = {str(code): _failed(ERRORS[code], "Error") for code in errors if code in ERRORS}
    if 503 in errors:
        failed["503"] = {"description": "Not yet, or no longer", "content": {kind: {"schema": shape}}}
    get = {"summary": said, "parameters": list(parameters), "responses": {"200": answered, **failed}, **more}
    return {"get": get}


def _stamped() -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in _headers()}


def _headers() -> dict[str, Any]:
    said = {
        "x-request-id": "The case's number, as the refusal and the record have it",
        "x-libragate-decision": "allow, log, rewrite or block",
        "x-libragate-policy": "12 hex digits of the policy that decided",
        "x-libragate-guard": "The guards that read, with their versions",
        "x-libragate-receipt": "Where the receipt is",
    }
    return {name: {"description": text, "required": True, "schema": {"type": "string"}} for name, text in said.items()}


def _error() -> Schema:
    """OpenAI's shape."""
    nullable = {"type": ["string", "null"]}
    fields = {"message": bodies.TEXT, "type": bodies.TEXT, "param": nullable, "code": nullable}
    return bodies.record(("error",), error=bodies.record(tuple(fields), **fields))


def _anthropic_error() -> Schema:
    error = bodies.record(("type", "message"), type=bodies.TEXT, message=bodies.TEXT)
    return bodies.record(("type", "error"), type=bodies.named("error"), error=error)


def _moderation() -> Schema:
    flags = {"type": "object", "additionalProperties": {"type": "boolean"}}
    result = bodies.record(
        ("flagged", "categories", "category_scores", "libragate"),
        flagged={"type": "boolean"},
        categories=flags,
        category_scores={"type": "object", "additionalProperties": {"type": "number"}},
        libragate=bodies.record(
            ("direction", "action", "reason", "categories"),
            direction=bodies.named("prompt", "response"),
            action=bodies.TEXT,
            categories=flags,
        ),
    )
    return bodies.record(("id", "model", "results"), id=bodies.TEXT, model=bodies.TEXT, results=bodies.some(result))
