"""The published OpenAPI 3.1 document: every route that is served, from what the dialects say about themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from gateway.dialects.dialect import Dialect, Documented
from gateway.dialects.json_schema import OBJECT, TEXT, NamedSchema, Schema
from gateway.dialects.moderations import Moderations
from gateway.dialects.openai_errors import ERROR
from gateway.judging.azure_results import HEADER

AZURE = "/openai/deployments/{model}"
ERRORS: Mapping[int, str] = {
    400: "The request is wrong, and the error names the field; or its prompt was blocked (code content_filter)",
    401: "No key, or one that is not known here",
    403: "This key may not use this model",
    404: "There is no such model, route or receipt",
    408: "The body did not arrive in time",
    413: "The body is too large",
    415: "The body is compressed in a way that is not read here",
}
UPSTREAM_ERRORS: Mapping[int, str] = {
    429: "The model's provider limits its callers",
    502: "The model's provider failed",
    504: "The model's provider was too slow",
}
GUARD_ERROR = "The safety check could not be completed, so nothing was let through (code guard_unavailable)"


@dataclass(frozen=True, slots=True)
class _Post:
    """An endpoint that takes a body, as the document describes it."""

    endpoint: Documented
    request: Schema
    errors: Mapping[int, str]
    answer: Schema = field(default_factory=lambda: OBJECT)
    streams: bool = False
    annotates: bool = False


def _post_of(dialect: Dialect) -> _Post:
    fields = dialect.fields
    errors = {**ERRORS, **UPSTREAM_ERRORS, 503: GUARD_ERROR}
    return _Post(dialect, fields.schema, errors, streams=fields.streams, annotates=dialect.annotates)


def document(version: str, dialects: Sequence[Dialect], moderations: Moderations) -> dict[str, Any]:
    """The whole document, as JSON values."""
    moderation = _Post(
        moderations,
        moderations.request_schema,
        {**ERRORS, 503: GUARD_ERROR},
        answer=_reference(moderations.answer_schema),
    )
    posts = [*map(_post_of, dialects), moderation]
    paths = {post.endpoint.path: _operation(post) for post in posts}
    paths |= {azure_path(dialect): _on_azure(_post_of(dialect)) for dialect in dialects if dialect.azure}
    shared = (ERROR, *(post.endpoint.error_schema for post in posts), moderations.answer_schema)
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
            "schemas": {named.name: named.schema for named in shared},
        },
    }


def azure_path(dialect: Dialect) -> str:
    """Where Azure's SDK posts: the path names the model."""
    return AZURE + dialect.path.removeprefix("/v1")


def _operation(post: _Post) -> dict[str, Any]:
    answer: dict[str, Any] = {"application/json": {"schema": post.answer}}
    if post.streams:
        # 3.1 has no words for a stream's events; a schema of the whole body would be taken for one of each event
        answer["text/event-stream"] = {"schema": {}}
    annotations = {"name": HEADER, "in": "header", "schema": {"type": "string", "enum": ["true", "false"]}}
    operation = {
        "operationId": post.endpoint.name,
        "summary": post.endpoint.summary,
        "parameters": [annotations] if post.annotates else [],
        "requestBody": {"required": True, "content": {"application/json": {"schema": post.request}}},
        "responses": {
            "200": {"description": "The answer, judged", "content": answer, "headers": _stamped()},
            **{str(code): _failed(text, post.endpoint.error_schema) for code, text in post.errors.items()},
        },
    }
    return {"post": operation}


def _on_azure(post: _Post) -> dict[str, Any]:
    """The same operation, with the model in the path and so not required in the body."""
    required = [name for name in post.request["required"] if name != "model"]
    operation = _operation(replace(post, request={**post.request, "required": required}))["post"]
    model = {"name": "model", "in": "path", "required": True, "schema": TEXT}
    own = {"operationId": f"{post.endpoint.name}OnAzure", "parameters": [model, *operation["parameters"]]}
    return {"post": {**operation, **own}}


def _reference(named: NamedSchema) -> Schema:
    return {"$ref": f"#/components/schemas/{named.name}"}


def _failed(description: str, schema: NamedSchema) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _reference(schema)}}}


def _own_routes() -> dict[str, Any]:
    keyed: Mapping[str, Any] = MappingProxyType({})
    case = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "/v1/models": _get("The models that this key may use", keyed, (401,)),
        "/v1/models/{id}": _get("One of them", keyed, (401, 403, 404), case),
        "/v1/receipts/{id}": _get("What was read of one of this tenant's requests", keyed, (401, 404), case),
        "/": _get("Something answers at this address", {"security": []}, ()),
        "/healthz": _get("The process is alive", {"security": []}, (), kind="text/plain"),
        "/readyz": _get("Whether every guard is up", {"security": []}, (503,)),
        "/metrics": _get("For Prometheus", {"security": []}, (), kind="text/plain"),
        "/openapi.json": _get("This document", {"security": []}, ()),
    }


def _get(
    summary: str, more: Mapping[str, Any], errors: tuple[int, ...], *parameters: Schema, kind: str = "application/json"
) -> dict[str, Any]:
    schema = {"type": "string"} if kind == "text/plain" else {"type": "object"}
    answered = {"description": summary, "content": {kind: {"schema": schema}}}
    failed = {str(code): _failed(ERRORS[code], ERROR) for code in errors if code in ERRORS}
    if 503 in errors:
        failed["503"] = {"description": "Not yet, or no longer", "content": {kind: {"schema": schema}}}
    get = {"summary": summary, "parameters": list(parameters), "responses": {"200": answered, **failed}, **more}
    return {"get": get}


def _stamped() -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in _headers()}


def _headers() -> dict[str, Any]:
    headers = {
        "x-request-id": "The case's number, as the refusal and the record have it",
        "x-libragate-decision": "allow, log, rewrite or block",
        "x-libragate-policy": "12 hex digits of the policy that decided",
        "x-libragate-guard": "The guards that read, with their versions",
        "x-libragate-receipt": "Where the receipt is",
    }
    return {name: {"description": text, "required": True, "schema": TEXT} for name, text in headers.items()}
