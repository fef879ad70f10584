"""How large a request may be, and how long it may take to arrive."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """`body_bytes` in bytes, `body_seconds` for the whole body to arrive, `messages` in one request,
    `header_seconds` for a request's head to arrive."""

    body_bytes: int = 4 * 1024 * 1024
    body_seconds: float = 30.0
    messages: int = 1000
    header_seconds: float = 10.0
