"""What personal data and secrets look like, and the checks that tell them from other numbers and words."""

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import phonenumbers
import re2
from stdnum import luhn
from stdnum.cn import ric

Check = Callable[[str], float]
"""How sure a find is, 0 (it is none) to 1."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """`expression` is RE2: linear in the text whatever the text. `label` says what it finds, `check` whether it did.
    `alone`: not inside a longer number or word. `group`: the part of the match that counts."""

    label: str
    expression: str
    check: Check
    alone: bool = True
    group: int = 0


CERTAIN = 1.0
LIKELY = 0.9
UNSURE = 0.6
"""It is what it says, but may well be public: most landlines in Chinese text are those of shops and sights."""

WEAK = 0.5

_MIN_ENTROPY = 3.2
"""Bits per character. Words are below it, keys of 20 random letters and digits above."""

_PLACEHOLDER = re.compile(r"(?i)your|example|placeholder|xxx|\*\*\*|\.\.\.|changeme|password|secret|<|\$\{")


def _certain(_: str) -> float:
    return CERTAIN


def _likely(_: str) -> float:
    return LIKELY


def _digits(text: str) -> str:
    return "".join(character for character in text if character.isalnum())


def _resident_id(text: str) -> float:
    """GB 11643-1999: six digits of place, a birthday, three digits, and a check digit."""
    return CERTAIN if ric.is_valid(_digits(text).upper()) else 0.0


def _bank_card(text: str) -> float:
    """The Luhn digit, and a first number that card schemes use. 13 digits may as well be a bar code."""
    digits = _digits(text)
    if len(set(digits)) < 2 or not luhn.is_valid(digits):
        return 0.0
    lengths = next((lengths for first, lengths in _SCHEMES.items() if digits.startswith(first)), ())
    if len(digits) not in lengths:
        return 0.0
    return WEAK if len(digits) == 13 else CERTAIN


_SCHEMES: Mapping[tuple[str, ...], tuple[int, ...]] = {
    ("62",): (16, 17, 18, 19),
    ("81",): (16, 17, 18, 19),
    ("60", "64", "65"): (16, 19),
    ("4",): (13, 16, 19),
    ("51", "52", "53", "54", "55"): (16,),
    tuple(str(number) for number in range(222, 273)): (16,),
    ("34", "37"): (15,),
    ("35",): (16,),
    ("36", "38"): (14,),
    ("9",): (16, 19),
}
"""UnionPay, Discover, Visa, Mastercard, American Express, JCB, Diners; 9 is UnionPay's older range."""


def _phone(region: str, sure: float) -> Check:
    def check(text: str) -> float:
        try:
            number = phonenumbers.parse(text, region)
        except phonenumbers.NumberParseException:
            return 0.0
        return sure if phonenumbers.is_valid_number(number) else 0.0

    return check


def _email(text: str) -> float:
    local, _, domain = text.partition("@")
    fine = ".." not in text and not local.startswith(".") and not local.endswith(".") and not domain.startswith("-")
    return 0.8 if fine else 0.0


def _public_address(text: str) -> float:
    """Private, loopback, link-local, documentation and reserved addresses say nothing of anybody."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return 0.0
    return WEAK if address.is_global and not address.is_multicast else 0.0


def _random(text: str) -> float:
    """Letters and digits mixed in a way that words do not have."""
    mixed = any(c.isdigit() for c in text) and any(c.isalpha() for c in text)
    fine = mixed and entropy(text) >= _MIN_ENTROPY and _PLACEHOLDER.search(text) is None
    return LIKELY if fine else 0.0


def _key(text: str) -> float:
    return CERTAIN if _random(text) else 0.0


def entropy(text: str) -> float:
    """Shannon entropy in bits per character."""
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())


_PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        "private_key",
        r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:[A-Za-z0-9+/=\s\\:,.]|-[A-Za-z0-9])*(?:-----END [A-Z0-9 ]{0,40}-----)?",
        _certain,
        alone=False,
    ),
    Pattern("jwt", r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}", _certain),
    Pattern("api_key", r"\b(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA)[A-Z0-9]{16}\b", _certain),
    Pattern("api_key", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})\b", _certain),
    Pattern("api_key", r"\bglpat-[A-Za-z0-9_-]{20,}|\bhf_[A-Za-z0-9]{30,}|\bnpm_[A-Za-z0-9]{36}\b", _key),
    Pattern(
        "api_key",
        r"\bpypi-[A-Za-z0-9_-]{50,}|\bAIza[0-9A-Za-z_-]{35}|\b[srw]?[rsk]k_(?:live|test)_[0-9A-Za-z]{16,}",
        _key,
    ),
    Pattern("api_key", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}|\bhooks\.slack\.com/services/T\w+/B\w+/\w+", _random),
    Pattern("api_key", r"\b(?:sk|pk|rk|lg)-(?:[a-z0-9]{2,8}-){0,2}[A-Za-z0-9_-]{20,}", _key),
    Pattern("api_key", r"\b(?:LTAI[0-9A-Za-z]{12,24}|AKID[0-9A-Za-z]{13,40})\b", _key),
    Pattern(
        "secret",
        r"(?i)(?:key|token|secret|password|passwd|pwd|pw)"
        r"""["']?\s{0,4}[:=]\s{0,4}["']?([A-Za-z0-9+/_.=~-]{16,256})""",
        _random,
        alone=False,
        group=1,
    ),
    Pattern("email", r"\b[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}\b", _email),
    Pattern("cn_resident_id", r"\b[1-9]\d{5}[ -]?(?:19|20)\d{6}[ -]?\d{3}[\dXx]\b", _resident_id),
    Pattern("cn_resident_id", r"\b[1-9](?: \d){16} [\dXx]\b", _resident_id),
    Pattern("bank_card", r"\b\d{13,19}\b", _bank_card),
    Pattern("bank_card", r"\b\d{4}(?: \d{4}){2} (?:\d{4} \d{1,3}|\d{1,4})\b", _bank_card),
    Pattern("bank_card", r"\b\d{4}(?:-\d{4}){2}-(?:\d{4}-\d{1,3}|\d{1,4})\b", _bank_card),
    Pattern("bank_card", r"\b3\d{3}[ -]\d{6}[ -]\d{4,5}\b|\b62\d{4} \d{13}\b", _bank_card),
    Pattern("phone", r"(?:(?:\+|\b00|\b)86[ -]?|\b)1[3-9]\d[ -]?\d{4}[ -]?\d{4}\b", _phone("CN", LIKELY)),
    Pattern("phone", r"\b1(?: \d){10}\b", _phone("CN", LIKELY)),
    Pattern("phone", r"\(?\b0\d{2,3}\)?[ -]?\d{3,4}[ -]?\d{4}\b", _phone("CN", UNSURE)),
    Pattern("phone", r"\+[1-9]\d{0,2}(?:[ .-]?\(?\d{1,4}\)?){2,6}\b", _phone("ZZ", LIKELY)),
    Pattern("phone", r"\(\d{3}\) ?\d{3}-\d{4}\b|\b\d{3}-\d{3}-\d{4}\b", _phone("US", LIKELY)),
    Pattern("ip_address", r"\b(?:\d{1,3}\.){3}\d{1,3}\b", _public_address),
    Pattern("ip_address", r"\b[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}", _public_address),
)

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False

PATTERNS: tuple[tuple[Pattern, re2._Regexp], ...] = tuple(
    (pattern, re2.compile(pattern.expression.encode(), _OPTIONS)) for pattern in _PATTERNS
)
"""The surer ones first: of two finds in one place the first stands. They read bytes."""

_LABELLED = re.compile(r"(?:密钥|令牌|口令|密码)(\s{0,4})[:=是为]")
_WORTH_A_LOOK = re.compile(r"[0-9@]|-----|[A-Za-z0-9_-]{20}")


def as_bytes(text: str) -> bytes:
    """The text with one byte for each character. Everything that is looked for is ASCII; the words in front of a secret
    that are not become an English one."""
    if not text.isascii():
        text = _LABELLED.sub(r"pw\1:", text)
    return text.encode("ascii", "replace")


def may_hold(text: str) -> bool:
    """False where nothing can be found, which is most texts."""
    return _WORTH_A_LOOK.search(text) is not None
