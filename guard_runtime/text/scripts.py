"""Which characters belong to which script: the one place that says what counts as Chinese."""

import re

HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Chinese characters, as the inside of a character class of a regular expression."""

HAN_CHARACTER = re.compile(f"[{HAN}]")


def is_han(character: str) -> bool:
    """Whether it is a Chinese character."""
    return HAN_CHARACTER.fullmatch(character) is not None
