"""The caller's headers that go to the upstream: those its dialect names, where they hold only names and versions."""

import re
from collections.abc import Iterable

from starlette.datastructures import Headers

from gateway.errors import BadRequest
from gateway.upstreams.upstream import Headers as Forwarded

_SHAPE = re.compile(r"[A-Za-z0-9._,:;= -]{1,2048}")


def forwarded_headers(headers: Headers, names: Iterable[str]) -> Forwarded:
    """Raises `BadRequest` for a header that holds more than names."""
    forwarded: dict[str, str] = {}
    for name in sorted(names):
        values = headers.getlist(name)
        if not values:
            continue
        value = ",".join(values)
        if not _SHAPE.fullmatch(value):
            raise BadRequest(f"The header {name} may hold names and versions only, of at most 2048 characters in all.")
        forwarded[name] = value
    return forwarded
