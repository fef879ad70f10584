"""A response made of a refusal or a safe message: the object, and the events it is streamed in."""

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.dialects.dialect import Json, Refusal
from gateway.policy.policy import Action


def is_structured(request: Json) -> bool:
    """Whether the caller asked for JSON, and so parses the text."""
    settings = request.get("text")
    form = settings.get("format") if isinstance(settings, Mapping) else None
    return isinstance(form, Mapping) and form.get("type") in ("json_schema", "json_object")


def blank_response(request: Json) -> dict[str, Any]:
    """A response object with nothing in it yet; it repeats the request, as the API does."""
    echoed = ("instructions", "metadata", "temperature", "top_p", "max_output_tokens")
    return {
        "id": "resp_",
        "object": "response",
        "created_at": 0,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": request.get("model"),
        "output": [],
        "parallel_tool_calls": request.get("parallel_tool_calls") is not False,
        "tool_choice": request.get("tool_choice") or "auto",
        "tools": request.get("tools") or [],
        "text": request.get("text") or {"format": {"type": "text"}},
        "usage": None,
        **{name: request.get(name) for name in echoed},
    }


def refused_response(request: Json, stamp: Json, refusal: Refusal, status: str | None = None) -> dict[str, Any]:
    """A whole response made of the refusal. `stamp` is what is kept of the model's own."""
    blocked = refusal.decision.action is Action.BLOCK
    response = {**blank_response(request), "id": f"resp_{refusal.id}", "created_at": refusal.created, **stamp}
    response["status"] = status or ("incomplete" if blocked else "completed")
    response["incomplete_details"] = {"reason": "content_filter"} if response["status"] == "incomplete" else None
    response["output"] = [refusal_message(refusal, structured=is_structured(request))]
    return response


def refusal_message(refusal: Refusal, *, structured: bool) -> dict[str, Any]:
    piece: dict[str, Any] = {"type": "refusal", "refusal": refusal.text}
    if refusal.decision.action is Action.REWRITE and not structured:
        piece = {"type": "output_text", "text": refusal.text, "annotations": []}
    message = {"type": "message", "role": "assistant", "status": "completed", "content": [piece]}
    return {"id": f"msg_{refusal.id}", **message}


def refusal_events(item: Json, index: int) -> Iterator[dict[str, Any]]:
    """The events of a message of one piece."""
    piece = item["content"][0]
    name = "refusal" if piece["type"] == "refusal" else "text"
    kind = "refusal" if name == "refusal" else "output_text"
    logprobs: dict[str, Any] = {} if name == "refusal" else {"logprobs": []}
    where = {"item_id": item["id"], "output_index": index, "content_index": 0}
    empty = {**item, "status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": index, "item": empty}
    yield {"type": "response.content_part.added", **where, "part": {**piece, name: ""}}
    yield {"type": f"response.{kind}.delta", **where, "delta": piece[name], **logprobs}
    yield {"type": f"response.{kind}.done", **where, name: piece[name], **logprobs}
    yield {"type": "response.content_part.done", **where, "part": piece}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}
