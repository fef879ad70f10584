"""Text hidden in base64, hex, escapes or unseen characters, read out loud."""

import base64
import binascii
import html
import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

MAX_DEPTH = 2
MAX_OUTPUT = 65_536
"""Characters a text may decode to, beside twice its own length."""

_MIN_BYTES = 4
_MIN_READABLE = 0.85

Decoder = Callable[[str], bytes | None]


def _base64(run: str) -> bytes | None:
    standard = run.rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except binascii.Error:
        return None


def _wrapped_base64(run: str) -> bytes | None:
    return _base64("".join(run.split()))


def _hex(run: str) -> bytes | None:
    digits = re.sub(r"\\x|0x|[\s:,]", "", run)
    return bytes.fromhex(digits) if len(digits) % 2 == 0 else None


def _percent(run: str) -> bytes | None:
    return unquote_to_bytes(run)


def _escaped(run: str) -> bytes | None:
    units = [int(unit, 16) for unit in re.findall(r"\\u([0-9a-fA-F]{4})", run)]
    return b"".join(unit.to_bytes(2, "big") for unit in units).decode("utf-16-be", "replace").encode()


def _entities(run: str) -> bytes | None:
    return html.unescape(run).encode("utf-8", "replace")


def _tags(run: str) -> bytes | None:
    return bytes(ord(character) - 0xE0000 for character in run)


def _selectors(run: str) -> bytes | None:
    return bytes(ord(c) - 0xFE00 if c <= "\ufe0f" else ord(c) - 0xE0100 + 16 for c in run)


_DECODERS: tuple[tuple[re.Pattern[str], Decoder], ...] = (
    (re.compile(r"(?:[A-Za-z0-9+/]{60,76}\r?\n)+[A-Za-z0-9+/]{4,76}={0,2}"), _wrapped_base64),
    (re.compile(r"(?:\\x|0x)[0-9a-fA-F]{2}(?:[\s,]?(?:\\x|0x)[0-9a-fA-F]{2}){3,}"), _hex),
    (re.compile(r"(?<![0-9A-Za-z])[0-9a-fA-F]{2}(?:[ :][0-9a-fA-F]{2}){5,}(?![0-9A-Za-z])"), _hex),
    (re.compile(r"(?<![0-9A-Za-z])(?:[0-9a-fA-F]{2}){6,}(?![0-9A-Za-z])"), _hex),
    (re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{12,}={0,2}"), _base64),
    (re.compile(r"(?:%[0-9a-fA-F]{2}[A-Za-z0-9+._~-]{0,64}){3,}"), _percent),
    (re.compile(r"(?:\\u[0-9a-fA-F]{4}){2,}"), _escaped),
    (re.compile(r"(?:&#(?:[0-9]{1,7}|[xX][0-9a-fA-F]{1,6});){2,}"), _entities),
    (re.compile("[\U000e0020-\U000e007e]{3,}"), _tags),
    (re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{8,}"), _selectors),
)


def decoded_runs(text: str) -> tuple[str, ...]:
    """What the text hides: the text with every run decoded in its place, and, where there is more around them,
    the decoded runs alone. () where nothing decodes to readable text. Runs inside runs are followed MAX_DEPTH deep.
    """
    budget = 2 * len(text) + MAX_OUTPUT
    decoded: list[str] = []
    current = text
    for _ in range(MAX_DEPTH):
        current, runs = _decoded_in_place(current)
        if not runs:
            break
        decoded += runs
    if not decoded or len(current) > budget:
        return ()
    alone = "\n".join(dict.fromkeys(decoded))[:budget]
    return (current,) if alone == current else (current, alone)


def _decoded_in_place(text: str) -> tuple[str, list[str]]:
    runs: list[str] = []

    def read(match: re.Match[str], decode: Decoder) -> str:
        plain = _readable(decode(match[0]))
        if plain is None or plain == match[0]:
            return match[0]
        runs.append(plain)
        return plain

    for pattern, decode in _DECODERS:
        text = pattern.sub(lambda match, decode=decode: read(match, decode), text)  # type: ignore[misc]
    return text, runs


def _readable(data: bytes | None) -> str | None:
    """The bytes as text, if that is what they are. Bytes at both ends may belong to a character cut in two."""
    if data is None:
        return None
    plain = data.decode("utf-8", "ignore")
    size = len(plain.encode())
    if len(data) < _MIN_BYTES or size < len(data) - 6 or size < 0.8 * len(data):
        return None
    readable = sum(map(_is_readable, plain))
    return plain if readable >= _MIN_READABLE * len(plain) else None


def _is_readable(character: str) -> bool:
    """Letters of any script, Chinese signs, and whatever ASCII prints."""
    return " " <= character <= "~" or character.isalnum() or character in "\t\r\n" or character > "\u2e7f"
