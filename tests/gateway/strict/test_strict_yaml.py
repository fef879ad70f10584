"""The strict YAML reader: what it means, what it refuses, and where it says the mistake is."""

import math
import tracemalloc
from pathlib import Path

import pytest

from gateway.strict.strict_yaml import MAX_BYTES, MAX_MISTAKES, parse, read


def said(text: str | bytes) -> list[str]:
    content = text if isinstance(text, bytes) else text.encode()
    return [str(mistake) for mistake in parse(content, "a.yaml").mistakes]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("off", "off"),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("12", 12),
        ("-0", 0),
        ("012", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2026-11-21", "2026-11-21"),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-.inf", -math.inf),
        ("~", None),
        ("null", None),
        ("", None),
        ('"12"', "12"),
        ("'true'", "true"),
        ("=", "="),
    ],
)
def test_plain_scalars_mean_what_yaml_1_2_says(written: str, meant: object) -> None:
    file = parse(f"a: {written}\n".encode(), "a.yaml")
    assert file.mistakes == ()
    assert file.data == {"a": meant}
    assert isinstance(file.data, dict)
    assert type(file.data["a"]) is type(meant)


def test_nan_is_read_as_nan() -> None:
    data = parse(b"a: .nan", "a.yaml").data
    assert isinstance(data, dict)
    assert math.isnan(data["a"])


def test_keys_stay_text() -> None:
    assert parse(b"on: 1\n404: 2\ntrue: 3\n", "a.yaml").data == {"on": 1, "404": 2, "true": 3}


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("a: 1\nb: 2\na: 3\n", "a.yaml:3:1 a: is written twice, first in line 1 -- remove one of them"),
        ("x:\n  a: {b: 1, b: 2}\n", "a.yaml:2:13 x.a.b: is written twice, first in line 2 -- remove one of them"),
        ("a: &x 1\n", "a.yaml:1:4 a: &x is an anchor -- remove it; write values out where they are used"),
        ("a: *x\n", "a.yaml:1:4 a: *x is an alias -- write the value out"),
        ("*x : 1\n", "a.yaml:1:1: an alias stands for a key -- write the key out"),
        ("<<: {a: 1}\n", "a.yaml:1:1 <<: << merges another mapping -- write the keys out"),
        (
            "a: !!python/object:os.system x\n",
            "a.yaml:1:4 a: has the tag tag:yaml.org,2002:python/object:os.system -- "
            "remove it; quote the value if it is text",
        ),
        ("a: !include b\n", "a.yaml:1:4 a: has the tag !include -- remove it; quote the value if it is text"),
        ("a: !!str 1\n", "a.yaml:1:4 a: has the tag tag:yaml.org,2002:str -- remove it; quote the value if it is text"),
        ("%YAML 1.1\n---\na: 1\n", "a.yaml:1:1: has a % directive -- remove it"),
        ("a: 1\n---\nb: 2\n", "a.yaml:2:1: a second document begins -- keep one document in a file: remove the `---`"),
        ("a:\n\t- 1\n", "a.yaml:2:1: a tab indents this line -- use spaces"),
        ("a: 1\n  \tb: 1\n", "a.yaml:2:3: a tab indents this line -- use spaces"),
        ("? [a]\n: 1\n", "a.yaml:1:3: a key is itself a list or a mapping -- use a plain word as the key"),
        ("'': 1\n", "a.yaml:1:1: the key is empty -- give it a name"),
        ("", "a.yaml:1:1: does not hold a mapping -- write `key: value` lines"),
        ("- a\n", "a.yaml:1:1: does not hold a mapping -- write `key: value` lines"),
        ("a: b: c\n", "a.yaml:1:5: is not YAML: mapping values are not allowed in this context -- "
         "check indentation and quotes here"),
        ("甲: 乙\n乙: \x07\n", "a.yaml:2:4: has the invisible character U+0007 -- remove it"),
        ("a: b\u202ec\n", "a.yaml:1:5: has the invisible character U+202E -- remove it"),
        ("a: " + "9" * 5000, "a.yaml:1:4 a: is a number of 5000 digits -- quote it if it is text"),
        ("a: 0x" + "f" * 100, "a.yaml:1:4 a: is a number of 102 digits -- quote it if it is text"),
    ],
)  # fmt: skip
def test_each_trap_is_refused_where_it_stands(text: str, mistake: str) -> None:
    assert said(text) == [mistake]


def test_text_that_is_not_utf_8_is_refused_with_its_line() -> None:
    assert said("a: 1\nb: 中\n".encode("gbk")) == ["a.yaml:2:1: is not UTF-8 -- save the file as UTF-8"]
    assert said("a: 1\n".encode("utf-16")) == ["a.yaml:1:1: is not UTF-8 -- save the file as UTF-8"]


def test_a_byte_order_mark_and_windows_line_ends_are_taken() -> None:
    file = parse("\ufeffa: 1\r\nb:\r\n  - 2\r\n".encode(), "a.yaml")
    assert file.data == {"a": 1, "b": [2]}
    assert str(file.value_place(("b", 0))) == "a.yaml:3:5"


def test_twenty_levels_are_read_and_twenty_one_are_not() -> None:
    assert said("a: " + "[" * 19 + "]" * 19) == []
    assert said("a: " + "[" * 20 + "]" * 20)[0].endswith(
        "nested more than 20 deep -- nothing here needs that: flatten it"
    )


def test_several_mistakes_are_told_together() -> None:
    assert [line.split(" ")[0] for line in said("a: &x 1\na: 2\nb: *x\nc: !t 3\n")] == [
        "a.yaml:1:4",
        "a.yaml:2:1",
        "a.yaml:3:4",
        "a.yaml:4:4",
    ]


def test_places_count_characters_from_one() -> None:
    file = parse("规则:\n  - {甲: 乙, 丙: 丁}\n".encode(), "a.yaml")
    assert str(file.key_place(("规则", 0, "丙"))) == "a.yaml:2:12"
    assert str(file.value_place(("规则", 0, "丙"))) == "a.yaml:2:15"
    assert str(file.value_place(("规则", 0, "absent"))) == "a.yaml:2:5"


def test_a_file_that_is_not_there_or_too_large_is_a_mistake(tmp_path: Path) -> None:
    assert [str(m) for m in read(tmp_path / "no.yaml", "no.yaml").mistakes] == [
        "no.yaml:1:1: cannot be read (No such file or directory) -- is it there, and may you read it?"
    ]
    (tmp_path / "big.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    assert [str(m) for m in read(tmp_path / "big.yaml", "big.yaml").mistakes] == [
        "big.yaml:1:1: is larger than 256 kB -- split it into several files"
    ]


def _bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    return "\n".join(lines)


HOSTILE = {
    "a billion laughs": _bomb(),
    "depth by brackets": "a: " + "[" * 100_000,
    "depth by braces": "{a: " * 60_000,
    "depth by dashes": "- " * 100_000,
    "depth by indentation": "".join(" " * n + "a:\n" for n in range(600)),
    "a mapping that holds itself": "a: &a {b: *a}",
    "many list items": "a:\n" + "- a\n" * 60_000,
    "many flow items": "a: [" + "a," * 120_000 + "]",
    "one key, again and again": "a: 1\n" * 50_000,
    "many keys": "".join(f"k{n}: 1\n" for n in range(20_000)),
    "many anchors": "a: [" + "&x 1," * 50_000 + "]",
    "many aliases": "a: [" + "*x," * 80_000 + "]",
    "many tags": "a: [" + "!t 1," * 50_000 + "]",
    "many documents": "---\n" * 60_000,
    "many question marks": "? " * 100_000,
    "an open quote": "a: '" + "x" * 200_000,
    "an open escape": 'a: "' + "\\x" * 100_000,
    "a long number": "a: " + "1" * 200_000,
    "a long float": "a: 1." + "1" * 200_000,
    "a long key": "x" * 200_000 + ": 1",
    "merges of merges": "a: &a {b: 1}\n" + "".join(f"c{n}: {{<<: *a}}\n" for n in range(10_000)),
    "a python object": "a: !!python/object/apply:os.getcwd []",
    "a directive with a tag": "%TAG ! tag:evil,2000:\n---\na: !x 1\n",
    "only blanks": " " * 200_000,
    "only comments": "#\n" * 100_000,
    "a block scalar of blank lines": "a: |\n" + " \n" * 100_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_within_bounded_memory_and_few_mistakes(name: str) -> None:
    tracemalloc.start()
    file = parse(HOSTILE[name].encode(), "a.yaml")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 1024 * 1024
    assert len(file.mistakes) <= MAX_MISTAKES + 2
    assert all(mistake.place.line >= 1 for mistake in file.mistakes)
    assert bool(file.mistakes) != (name == "a block scalar of blank lines")
