"""Unicode and Chinese evasions folded, with a map of every character back to the text as it came."""

import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from opencc import OpenCC

from guard_runtime.text.homoglyphs import folded
from guard_runtime.text.scripts import HAN, HAN_CHARACTER

VERSION = "1"
"""Part of a guard's version: the same text could get another score when this file changes what it does."""

MAX_MARKS = 30
"""Combining marks in a row (UAX #15, stream-safe text). `unicodedata.normalize` takes quadratic time on longer runs."""

MAX_EXPANSION = 6
"""Characters that one character may become. Only U+FDFA (18) and U+FDFB (8) are left as they are for this."""

MAX_ROUNDS = 8

_TO_SIMPLIFIED = OpenCC("t2s")
_SURROGATES = re.compile("[\ud800-\udfff]")
_CLAUSE = ",.!?;:\u3001\u3002\uff0c\uff01\uff1f\uff1b\uff1a\u2026"
_WEAK = r" \t\u3000*.\-_|/\\~^+=#@&$%\u00b7\u2022\u30fb'`<>"

# Between any two Han characters: spaces and signs that no sentence needs. Between single Han characters, three or more
# in a row: clause marks and line ends as well.
_SEPARATED = re.compile(
    f"(?<=[{HAN}])[{_WEAK}]{{1,3}}(?=[{HAN}])"
    f"|(?<![{HAN}])[{HAN}](?:[{_WEAK}{_CLAUSE}\\s]{{1,3}}[{HAN}]){{2,}}(?![{HAN}])"
)
_SPELLED_OUT = re.compile(r"(?<!\w)[A-Za-z]([ .\-_*|])[A-Za-z](?:\1[A-Za-z]){2,}(?!\w)")
_LETTER = re.compile(f"[A-Za-z{HAN}]")
_RARE = re.compile("[^\t\n\r -~\u4e00-\u9fff]")

_NOT_FORMAT_BUT_UNSEEN = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2065\u2800\u3164\uffa0\ufff0\ufff1\ufff2\ufff3\ufff4"
    "\ufff5\ufff6\ufff7\ufff8"
)


@dataclass(frozen=True, slots=True)
class Normalised:
    """`text[i]` came from the characters [starts[i], ends[i]) of the original."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where characters [start, end) of `text` stand in the original. `end` is greater than `start`."""
        return self.starts[start], self.ends[end - 1]


Edit = tuple[int, int, str]
"""Characters [start, end) become this string."""

Pass = Callable[[Normalised], Normalised]


def normalise(text: str) -> Normalised:
    """The text as a reader sees it: compatible forms and look-alikes folded, unseen characters gone, Chinese simplified
    and closed up. Linear in the text. Normalising twice changes nothing."""
    return _settled(text, (_seen, _composed, _latin, _simplified, _closed_up))


def compatible(text: str) -> str:
    """The text in NFKC, with lone surrogates replaced and marks capped: what a tokenizer can take as it came."""
    return _settled(text, (_composed,)).text


def _settled(text: str, passes: Sequence[Pass]) -> Normalised:
    text = _SURROGATES.sub("\ufffd", text)
    current = Normalised(text, range(len(text)), range(1, len(text) + 1))
    unchanged = 0
    for one in MAX_ROUNDS * tuple(passes):
        before, current = current, one(current)
        unchanged = unchanged + 1 if current.text == before.text else 0
        if unchanged == len(passes):
            break
    return current


def _seen(current: Normalised) -> Normalised:
    unseen = {character for character in _rare(current.text) if _is_unseen(character)}
    if not unseen:
        return current
    return _edited(current, ((i, i + 1, "") for i, c in enumerate(current.text) if c in unseen))


def _rare(text: str) -> set[str]:
    """Which characters of the text could be unseen, compatible forms or joining: neither plain ASCII nor common Han."""
    return set(_RARE.findall(text))


def _is_unseen(character: str) -> bool:
    """Zero-width, bidi, tag and control characters, variation selectors, fillers."""
    if character.isascii():
        return (character < " " and not character.isspace()) or character == "\x7f"
    if "\ufe00" <= character <= "\ufe0f" or "\U000e0000" <= character <= "\U000e0fff":
        return True
    if character in _NOT_FORMAT_BUT_UNSEEN:
        return True
    category = unicodedata.category(character)
    return category == "Cf" or (category == "Cc" and not character.isspace())


def _composed(current: Normalised) -> Normalised:
    """NFKC in linear time: character by character, then cluster by cluster."""
    if current.text.isascii():
        return current
    current = _each_compatible(current)
    joining = {character for character in _rare(current.text) if _joins(character)}
    return _edited(current, _clusters(current.text, joining)) if joining else current


def _each_compatible(current: Normalised) -> Normalised:
    one: dict[str, str] = {}
    many: dict[str, str] = {}
    for character in _rare(current.text):
        form = unicodedata.normalize("NFKC", character)
        if form != character and len(form) <= MAX_EXPANSION:
            (one if len(form) == 1 else many)[character] = form
    if one:
        current = Normalised(current.text.translate({ord(a): b for a, b in one.items()}), current.starts, current.ends)
    if many:
        current = _edited(current, ((i, i + 1, many[c]) for i, c in enumerate(current.text) if c in many))
    return current


def _joins(character: str) -> bool:
    """Whether NFC may join it to what stands before: a mark, or a later letter of a Hangul syllable."""
    if unicodedata.combining(character) or unicodedata.category(character) == "Mc":
        return True
    return "\u1161" <= character <= "\u1175" or "\u11a8" <= character <= "\u11c2"


def _clusters(text: str, joining: set[str]) -> Iterator[Edit]:
    at, length = 0, len(text)
    while at < length:
        if text[at] not in joining:
            at += 1
            continue
        start, end = max(at - 1, 0), at
        while end < length and text[end] in joining:
            end += 1
        composed = unicodedata.normalize("NFC", _capped(text[start:end]))
        plain = "".join(character for character in composed if not _is_accent(character))
        if plain != text[start:end]:
            yield start, end, plain
        at = end


def _capped(cluster: str) -> str:
    """The cluster with at most MAX_MARKS marks in a row. Joining letters (Hangul, Indic vowels) are not marks."""
    if len(cluster) <= MAX_MARKS:
        return cluster
    kept: list[str] = []
    marks = 0
    for character in cluster:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= MAX_MARKS:
            kept.append(character)
    return "".join(kept)


def _is_accent(character: str) -> bool:
    """A Latin diacritic or overlay that composes with nothing: decoration."""
    return (
        "\u0300" <= character <= "\u036f"
        or "\u1ab0" <= character <= "\u1aff"
        or "\u1dc0" <= character <= "\u1dff"
        or "\u20d0" <= character <= "\u20f0"
        or "\ufe20" <= character <= "\ufe2f"
    )


def _latin(current: Normalised) -> Normalised:
    return Normalised(folded(current.text), current.starts, current.ends)


def _simplified(current: Normalised) -> Normalised:
    if current.text.isascii() or HAN_CHARACTER.search(current.text) is None:
        return current
    simplified = _TO_SIMPLIFIED.convert(current.text)
    if len(simplified) != len(current.text):
        return current
    return Normalised(simplified, current.starts, current.ends)


def _closed_up(current: Normalised) -> Normalised:
    gaps = [gap for pattern in (_SEPARATED, _SPELLED_OUT) for gap in _gaps(pattern, current.text)]
    return _edited(current, sorted(gaps)) if gaps else current


def _gaps(pattern: re.Pattern[str], text: str) -> Iterator[Edit]:
    for match in pattern.finditer(text):
        for i in range(match.start(), match.end()):
            if _LETTER.match(text, i) is None:
                yield i, i + 1, ""


def _edited(current: Normalised, edits: Iterable[Edit]) -> Normalised:
    """The text with these edits, given in order, and its map. An edit that keeps the length keeps each place."""
    pieces: list[str] = []
    starts, ends, at = array("i"), array("i"), 0
    for start, end, new in edits:
        pieces += (current.text[at:start], new)
        starts.extend(current.starts[at:start])
        ends.extend(current.ends[at:start])
        if new and len(new) == end - start:
            starts.extend(current.starts[start:end])
            ends.extend(current.ends[start:end])
        elif new:
            starts.extend([current.starts[start]] * len(new))
            ends.extend([current.ends[end - 1]] * len(new))
        at = end
    if not pieces:
        return current
    pieces.append(current.text[at:])
    starts.extend(current.starts[at:])
    ends.extend(current.ends[at:])
    return Normalised("".join(pieces), starts, ends)
