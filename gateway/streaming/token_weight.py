"""How many tokens a text is for a guard, estimated without its tokenizer.

A weight counts quarters of a token, so that it is a whole number: a Han character (a kana, a Hangul syllable) is a
token and weighs 4, four others are a token and weigh 1 each. Callers compare weights and never divide them.
"""

import re

_HAN = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+")
_QUARTERS = 4


def weigh(text: str) -> int:
    """The weight of a text."""
    return _QUARTERS * len(text) - (_QUARTERS - 1) * len(_HAN.sub("", text))


def weight_of(tokens: int) -> int:
    """The weight of so many tokens."""
    return _QUARTERS * tokens


def first_part(text: str, start: int, weight: int) -> str:
    """What a check reads of `text` from `start` on: all of it where that weighs no more than `weight`, else as many
    characters as fit whatever they are, at least one."""
    part = text[start : start + weight + 1]
    return part if weigh(part) <= weight else part[: max(1, weight // _QUARTERS)]


def last_part(text: str, tokens: int) -> str:
    """The last `tokens` tokens of a text."""
    weight_left = weight_of(tokens)
    for start in range(len(text) - 1, -1, -1):
        weight_left -= weigh(text[start])
        if weight_left < 0:
            return text[start + 1 :]
    return text


def weight_of_end(text: str, tokens: int) -> int:
    """The weight of a text, or of its last `tokens` tokens where it is longer. No character weighs less than 1."""
    return min(weigh(text[-weight_of(tokens) :]), weight_of(tokens))
