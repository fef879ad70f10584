"""A request's body, read once: counted and decompressed while it arrives, within a deadline, and decoded strictly."""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request

from gateway.api.decompression import decompressor
from gateway.dialects.dialect import Dialect, Json
from gateway.dialects.fields import require_depth
from gateway.errors import BadRequest, DeadlineMissed, TooLarge
from gateway.strict.strict_json import DuplicateKey, NotStrict, decode
from gateway.tenants.limits import Limits
from gateway.upstreams.forbidden import refuse_forbidden
from guard_runtime.conversation import Conversation


async def read_body(request: Request, limits: Limits) -> Json:
    """The body's JSON object. Raises `BadRequest` (or its kin) for anything else, never anything else."""
    _check_framing(request)
    return decoded(await _received(request, limits))


def decoded(data: bytes) -> Json:
    """The JSON object that a body's bytes are. Raises `BadRequest`."""
    if not data.strip():
        raise BadRequest("The request has no body. Send a JSON object.")
    if data.startswith(b"\xef\xbb\xbf"):
        raise BadRequest("The body begins with a byte order mark. Send plain UTF-8 JSON.")
    try:
        body = decode(data)
    except DuplicateKey as exc:
        raise BadRequest(f"The body is not strict JSON: {exc}.", param=exc.key[:64]) from exc
    except NotStrict as exc:
        raise BadRequest(f"The body is not JSON: {exc}.", param=exc.field) from exc
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    require_depth(body)
    return body


def _check_framing(request: Request) -> None:
    headers = request.headers
    if "transfer-encoding" in headers and "content-length" in headers:
        raise BadRequest("A request with both Content-Length and Transfer-Encoding can be read in two ways.")
    if len(headers.getlist("content-length")) > 1:
        raise BadRequest("A request with two Content-Length headers can be read in two ways.")


async def _received(request: Request, limits: Limits) -> bytes:
    too_large = TooLarge(f"The body is larger than {limits.body_bytes} bytes, the limit here.")
    declared = request.headers.get("content-length", "0")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limits.body_bytes:
        raise too_large
    whole = decompressor(request.headers.get("content-encoding", ""), limits.body_bytes)
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for piece in request.stream():
                size += len(piece)
                if size > limits.body_bytes:
                    raise too_large
                pieces.append(whole.add(piece))
    except TimeoutError as exc:
        raise DeadlineMissed(f"The body did not arrive within {limits.body_seconds:g} seconds.") from exc
    except ClientDisconnect as exc:
        raise BadRequest("The caller left before the body had arrived.") from exc
    whole.end()
    return b"".join(pieces)


def conversation_of(body: Json, dialect: Dialect, limits: Limits) -> Conversation:
    """What a request asks, read by its dialect. Raises `BadRequest`."""
    refuse_forbidden(body, dialect.fields.free_keys)
    require_few(body, dialect.fields.counted, limits.messages)
    return dialect.read_request(body)


def require_few(body: Mapping[str, Any], fields: frozenset[str], limit: int) -> None:
    """Raises `BadRequest` when a request holds more messages in one of these fields than the gateway takes. A list of
    token ids is one text."""
    for name in sorted(fields):
        value = body.get(name)
        if isinstance(value, list) and len(value) > limit and not isinstance(value[0], int):
            raise BadRequest(f"{name} holds {len(value)} items; the limit here is {limit}.", param=name)
