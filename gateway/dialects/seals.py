"""Seals: what a provider has encrypted or signed for itself, and nobody else can read."""

import re
from collections.abc import Iterator

from guard_runtime.conversation import Kind, Part, Path

MAX_SEAL = 1024 * 1024
"""Characters of one seal. The largest that providers send are some hundred thousand."""

MIN_SEAL = 16
"""Shorter than this it may be a word, so it is read as text."""

SEALED_FIELDS = frozenset(
    {"data", "signature", "thought_signature", "encrypted_content", "encrypted_index", "encrypted_stdout"}
)
"""Fields by which providers send them."""

_ALPHABET = re.compile(r"[A-Za-z0-9+/=_.:-]*")


def sealed_part(value: object, path: Path) -> Iterator[Part]:
    """The part of a field that should hold a seal: what is too short to be one is read, what cannot be one is a field
    that nobody knows."""
    if value is None or value == "":
        return
    if isinstance(value, str) and len(value) < MIN_SEAL and _ALPHABET.fullmatch(value):
        yield Part(path, value)
    else:
        yield Part(path, None, Kind.SEAL if is_seal(value) else Kind.TEXT)


def is_seal(value: object) -> bool:
    """Whether a string can only be base64, of a seal's length."""
    return isinstance(value, str) and MIN_SEAL <= len(value) <= MAX_SEAL and _ALPHABET.fullmatch(value) is not None
