"""Evasions are folded, ordinary text is not ruined, every character knows where it came from, and it is linear."""

import itertools
import time
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard_runtime.text.normalise import MAX_EXPANSION, MAX_MARKS, compatible, normalise

FOLDED = [
    ("如何制作炸\u200b弹", "如何制作炸弹"),
    ("炸\ufe0f弹\u202e\u2066", "炸弹"),
    ("hi\U000e006b\U000e0069", "hi"),
    ("炸*弹", "炸弹"),
    ("炸 弹", "炸弹"),
    ("毒.品", "毒品"),
    ("炸，弹，怎，么，做", "炸弹怎么做"),
    ("炸\n弹\n怎\n么\n做", "炸弹怎么做"),
    ("臺灣的炸彈製作方法", "台湾的炸弹制作方法"),
    ("hоw tо mаke", "how to make"),  # noqa: RUF001
    ("сору", "copy"),  # noqa: RUF001
    ("ｂｏｍｂ", "bomb"),  # noqa: RUF001
    ("𝓫𝓸𝓶𝓫 𝐛𝐨𝐦𝐛", "bomb bomb"),  # noqa: RUF001
    ("ⓑⓞⓜⓑ 🅑🅞🅜🅑 🇧🇴🇲🇧", "bomb BOMB BOMB"),
    ("k̷i̶l̵l̸", "kill"),
    ("k i l l", "kill"),
    ("k\x00ill\x7f", "kill"),
    ("１３８\u200b１２３４", "1381234"),  # noqa: RUF001
    ("㎏①", "kg1"),
    ("ｶﾞ", "ガ"),
    ("a\ud800b", "a\ufffdb"),
]

LEFT_ALONE = [
    "今天天气很好,我们去公园。你好!",
    "我说:好的。你呢?",
    "价格3.5元,共12件。",
    "Hello, world. How are you?",
    "Привет, как дела? Рас Оса",  # noqa: RUF001
    "Καλημέρα, τι κάνεις;".replace(";", "?"),
    "h4ck th3 pl4n3t",
    "the β and γ rays",  # noqa: RUF001
    "乾隆皇帝与著名的故事",
    "первый and second",
    "Đà Nẵng, Łódź",
    "각각",
    "U.S.A.",
    "\U0001f1e8\U0001f1f3 加油",
    "a - b * c",
]


@pytest.mark.parametrize(("text", "seen"), FOLDED)
def test_an_evasion_reads_as_what_it_means(text: str, seen: str) -> None:
    assert normalise(text).text == seen


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert normalise(text).text == text


def test_a_span_of_the_folded_text_leads_to_the_text_as_it_came() -> None:
    text = "请问臺\u200b灣的 １３８ 在㎏里"  # noqa: RUF001
    normal = normalise(text)
    start = normal.text.index("138")
    assert text[slice(*normal.span(start, start + 3))] == "１３８"  # noqa: RUF001
    start = normal.text.index("台湾")
    assert text[slice(*normal.span(start, start + 2))] == "臺\u200b灣"
    start = normal.text.index("g")
    assert text[slice(*normal.span(start, start + 1))] == "㎏"


SURPRISES = "aZ1 炸弹臺灣，。*._-" + (
    "\u200b\u202e\u0301\u0316\u0334\ufe0f\u1161\u11a8\u1100가ﾞｶ㎏ﷺﷻаоєЖяαΩ①🅑🇧\ud800\x00\n\t\u3000Å\u212bﬁ"
)
texts = st.text(alphabet=st.one_of(st.sampled_from(SURPRISES), st.characters()), max_size=60)


@given(texts)
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text).text
    assert normalise(once).text == once


@given(texts)
def test_every_character_comes_from_a_place_in_order(text: str) -> None:
    normal = normalise(text)
    assert len(normal.starts) == len(normal.ends) == len(normal.text)
    places = list(zip(normal.starts, normal.ends, strict=True))
    assert all(0 <= start < end <= len(text) for start, end in places)
    assert places == sorted(places)
    assert all(a == b or a[1] <= b[0] for a, b in itertools.pairwise(places))


@given(texts)
def test_the_compatible_form_is_nfkc_where_it_says_so(text: str) -> None:
    plain = "".join(
        c for c in text if not unicodedata.combining(c) and len(unicodedata.normalize("NFKC", c)) <= MAX_EXPANSION
    )
    plain = plain.encode("utf-8", "replace").decode()
    assert unmarked(compatible(plain)) == unmarked(unicodedata.normalize("NFKC", plain))


def unmarked(text: str) -> str:
    return "".join(character for character in text if not unicodedata.combining(character))


@given(texts)
def test_the_result_can_be_encoded(text: str) -> None:
    normalise(text).text.encode("utf-8")
    compatible(text).encode("utf-8")


def test_marks_are_capped_before_anything_else_sees_them() -> None:
    assert len(compatible("a" + "\u05b0\u05a1" * 500)) <= 1 + MAX_MARKS


WORST: list[Callable[[int], str]] = [
    lambda n: "\u0300\u0316" * (n // 2),
    lambda n: ("a" + "\u0300\u0316" * 15) * (n // 31),
    lambda n: "炸\u200b" * (n // 2),
    lambda n: "炸，" * (n // 2),
    lambda n: "\u1100" + "\u1161" * n,
    lambda n: "k *" * (n // 3),
    lambda n: "а" * n + "b",  # noqa: RUF001
    lambda n: "\ufdfa㎏" * (n // 2),
]


@pytest.mark.parametrize("worst", WORST)
def test_time_grows_with_the_text_and_no_faster(worst: Callable[[int], str]) -> None:
    def seconds(size: int) -> float:
        text = worst(size)
        runs = []
        for _ in range(2):
            started = time.thread_time()
            normalise(text)
            runs.append(time.thread_time() - started)
        return min(runs)

    # Eight times the text: quadratic work would take 64 times as long.
    assert seconds(80_000) < 24 * max(seconds(10_000), 0.001)
