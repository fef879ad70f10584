"""Pictures, sounds and files in a body: what stands in the body itself can be read, what only has an address cannot."""

import base64
import binascii
import re
from collections.abc import Iterator

from guard_runtime.conversation import Kind, Media, MediaKind, Part, Path

_DATA = re.compile(r"data:([a-z]+/[a-z0-9.+-]{1,100});base64,([A-Za-z0-9+/]+={0,2})")
"""The one way to write a data: URL here. Readers of URLs differ in what they make of blanks, of percent signs, of a
second comma: what is written otherwise is not read, for the model might be shown something else."""

_AUDIO = frozenset({"wav", "mp3", "flac", "ogg", "opus", "m4a", "webm", "aac"})
_PLAIN = frozenset({"text/plain", "text/markdown", "text/csv", "text/tab-separated-values"})
_PLAIN_NAMES = (".txt", ".md", ".csv", ".tsv", ".log")
_OTHERWISE = ("%PDF", "{\\rtf", "PK\x03\x04", "<?xml", "<!DOCTYPE", "<html", "From ", "\ufeff")
"""How files begin that a provider may take for something else than plain text, whatever they are called."""


def of_url(kind: MediaKind, url: object) -> Media | None:
    """The media in a data: URL; None for an address elsewhere, behind which another thing may stand each time."""
    data_url = _DATA.fullmatch(url) if isinstance(url, str) else None
    if data_url is None or not (kind is MediaKind.FILE or data_url[1].startswith(f"{kind}/")):
        return None
    return Media(kind, data_url[1], data_url[2])


def of_base64(kind: MediaKind, type: object, data: object) -> Media | None:
    """The media in a base64 field that has its type beside it."""
    return of_url(kind, f"data:{type};base64,{data}") if isinstance(type, str) and isinstance(data, str) else None


def of_sound(format: object, data: object) -> Media | None:
    """The media of OpenAI's `input_audio`."""
    return of_base64(MediaKind.AUDIO, f"audio/{format}", data) if isinstance(format, str) and format in _AUDIO else None


def media_part(path: Path, media: Media | None, *, name: object = None) -> Iterator[Part]:
    """The part of a picture, a sound or a file; with its text, where it is a file of plain text. `name` is the file's
    own, and may not say otherwise."""
    yield Part(path, _plain(media, name), Kind.MEDIA, media)


def _plain(media: Media | None, name: object) -> str | None:
    if media is None or media.kind is not MediaKind.FILE or media.type not in _PLAIN:
        return None
    if name and not (isinstance(name, str) and name.lower().endswith(_PLAIN_NAMES)):
        return None
    try:
        text = base64.b64decode(media.data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return None if not text or "\0" in text or text.startswith(_OTHERWISE) else text
