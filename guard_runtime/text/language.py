"""Which of the guard's two languages a text is in."""

import re
from typing import Literal

from guard_runtime.text.scripts import HAN_CHARACTER

Language = Literal["zh", "en"]
LANGUAGES: tuple[Language, ...] = ("zh", "en")

SAMPLE = 4_096
"""Characters looked at, from both ends of a longer text."""

LETTERS_PER_HAN = 4
"""A Han character says about as much as four Latin letters."""

_LATIN = re.compile("[A-Za-z\u00c0-\u024f\uff21-\uff3a\uff41-\uff5a]")


def language_of(text: str) -> Language:
    """`zh` where Han characters say at least as much as Latin letters do, `en` otherwise."""
    if text.isascii():
        return "en"
    if len(text) > SAMPLE:
        text = text[: SAMPLE // 2] + text[-SAMPLE // 2 :]
    han = len(HAN_CHARACTER.findall(text))
    return "zh" if han and han * LETTERS_PER_HAN >= len(_LATIN.findall(text)) else "en"
