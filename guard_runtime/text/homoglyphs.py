"""Letters of other alphabets that look Latin, folded where they pretend to be Latin; real Russian or Greek stays."""

import re
from collections.abc import Mapping

_LOOKS_LIKE: Mapping[str, str] = {
    "A": "\u0391\u0410\u13aa\ua4ee\U0001f150\U0001f170",
    "B": "\u0392\u0412\u13f4\ua4d0\ua7b4",
    "C": "\u0421\u13df\u2ca4\ua4da",
    "D": "\u13a0\ua4d3",
    "E": "\u0395\u0415\u13ac\ua4f0",
    "F": "\u03dc\ua4dd\ua798",
    "G": "\u050c\u13c0\u13f3\ua4d6",
    "H": "\u0397\u041d\u13bb\u2c8e\ua4e7",
    "I": "\u0399\u0406\u04c0\u2c92\ua4f2",
    "J": "\u037f\u0408\u13ab\ua4d9\ua7b2",
    "K": "\u039a\u041a\u13e6\u2c94\ua4d7",
    "L": "\u13de\u2cd0\ua4e1",
    "M": "\u039c\u03fa\u041c\u13b7\u2c98\ua4df",
    "N": "\u039d\u2c9a\ua4e0",
    "O": "\u039f\u041e\u0555\u2c9e\ua4f3",
    "P": "\u03a1\u0420\u13e2\u2ca2\ua4d1",
    "R": "\u01a6\u13a1\u13d2\ua4e3",
    "S": "\u0405\u054f\u13d5\u13da\ua4e2",
    "T": "\u03a4\u0422\u13a2\u2ca6\ua4d4",
    "U": "\u054d\ua4f4",
    "V": "\u0474\u13d9\ua4e6",
    "W": "\u051c\u13b3\u13d4\ua4ea",
    "X": "\u03a7\u0425\u2cac\ua4eb\ua7b3",
    "Y": "\u03a5\u0423\u04ae\u13a9\u13bd\u2ca8\ua4ec",
    "Z": "\u0396\u13c3\ua4dc",
    "a": "\u0251\u03b1\u0430\u1d00",
    "b": "\u0184\u0299\u042c\u044c\u13cf",
    "c": "\u0441\u1d04\u2ca5\uabaf",
    "d": "\u0501\u13e7\u1d05\ua4d2",
    "e": "\u03b5\u0435\u0451\u0454\u04bd\u1d07\uab32",
    "f": "\u0584\u1e9d\ua730\ua799\uab35",
    "g": "\u0261\u0262\u0581\u1d83",
    "h": "\u029c\u04bb\u0570\u13c2",
    "i": "\u0131\u0269\u026a\u03b9\u0456\u0457\u04cf\u13a5\ua647\uab75",
    "j": "\u03f3\u0458\u1d0a",
    "k": "\u03ba\u043a\u1d0b",
    "l": "\u0196\u029f",
    "m": "\u043c\u1d0d",
    "n": "\u0274\u03b7\u043f\u0578\u057c",
    "o": "\u03bf\u043e\u0585\u1d0f\u1d11\u2c9f\uab3d",
    "p": "\u03c1\u0440\u1d18\u2ca3",
    "q": "\u051b\u0563\u0566\ua7af",
    "r": "\u0280\u0433\u1d26\u2c85\uab47\uab48\uab81",
    "s": "\u0455\ua731\uabaa",
    "t": "\u03c4\u0442\u1d1b",
    "u": "\u028b\u03c5\u057d\u1d1c\ua79f\uab4e\uab52",
    "v": "\u03bd\u0475\u1d20\uaba9",
    "w": "\u03c9\u0461\u051d\u0561\u1d21\uab83",
    "x": "\u03c7\u0445",
    "y": "\u028f\u03b3\u0443\u04af\u1eff\uab5a",
    "z": "\u1d22\uab93",
}
"""After Unicode's confusables.txt (UTS #39), and the small capitals. Latin letters with strokes are no look-alikes."""

LOOKALIKES = frozenset("".join(_LOOKS_LIKE.values()))

_TO_LATIN = {ord(glyph): letter for letter, glyphs in _LOOKS_LIKE.items() for glyph in glyphs}
_TO_LATIN |= {0x1F150 + i: chr(65 + i) for i in range(26)}  # white letters in black circles
_TO_LATIN |= {0x1F170 + i: chr(65 + i) for i in range(26)}  # white letters in black squares
_SYMBOLS = "\U0001f150-\U0001f169\U0001f170-\U0001f189"

# Letters that no reader tells from Latin ones: a word of these alone may be Latin in disguise.
_EXACT = frozenset("АВЕКМНОРСТУХаеорсухіјѕһԁԛԝӏΑΒΕΖΗΙΚΜΝΟΡΤΥΧο")  # noqa: RUF001

_LETTERS = (
    "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02af\u0370-\u0373\u0376-\u037d\u037f-\u03ff\u0400-\u0481\u048a-\u0587"
    "\u13a0-\u13fd\u1d00-\u1dbf\u1e00-\u1fbc\u2c60-\u2cf3\ua4d0-\ua4f7\ua640-\ua66d\ua680-\ua69d\ua722-\ua7ff"
    "\uab30-\uabbf"
)
_WORD = re.compile(f"[{_LETTERS}{_SYMBOLS}]+")
_LATIN = re.compile("[A-Za-z]")
_FLAGS_AS_LETTERS = re.compile("[\U0001f1e6-\U0001f1ff]{3,}")


def folded(text: str) -> str:
    """The text with disguised words in Latin letters: as long as before, character by character.

    A word that mixes Latin letters with look-alikes is folded. A word of look-alikes alone is folded when the text has
    more such words than words that can only be Russian, Greek and so on.
    """
    if text.isascii():
        return text
    text = _FLAGS_AS_LETTERS.sub(_letters_of_flags, text)
    if LOOKALIKES.isdisjoint(text) and not re.search(f"[{_SYMBOLS}]", text):
        return text
    exact = genuine = 0
    for word in _WORD.findall(text):
        if _LATIN.search(word) is None:
            is_exact = len(word) > 1 and _EXACT.issuperset(word)
            exact += is_exact
            genuine += not is_exact and not LOOKALIKES.isdisjoint(word)
    disguised = exact > genuine
    return _WORD.sub(lambda match: _word(match[0], disguised), text)


def _word(word: str, disguised: bool) -> str:
    if _LATIN.search(word) or (disguised and len(word) > 1 and _EXACT.issuperset(word)):
        return word.translate(_TO_LATIN)
    return word.translate(_SYMBOLS_TO_LATIN)


_SYMBOLS_TO_LATIN = {point: letter for point, letter in _TO_LATIN.items() if point >= 0x1F150}


def _letters_of_flags(match: re.Match[str]) -> str:
    return "".join(chr(65 + ord(letter) - 0x1F1E6) for letter in match[0])
