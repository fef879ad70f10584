"""JSON that two parsers could read in two ways is refused."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.strict.strict_json import DuplicateKey, NotStrict, decode, flattened

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_json_can_say_is_read_as_it_is_and_can_be_written_again(value: object) -> None:
    assert decode(json.dumps(value)) == value
    assert decode(orjson.dumps(decode(json.dumps(value)))) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"temperature": NaN}', "temperature is NaN"),
        (b'{"a": [{"top_p": -Infinity}]}', "top_p is -Infinity"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b"\xff{}", "UTF-8"),
        (b'{"n": ' + b"9" * 5000 + b"}", "number"),
        (b'{"n": 123456789012345678901234567890}', "64 bits"),
        (b'{"x": 1e999}', "infinity"),
        (b"[" * 100_000, "depth"),
        (b"{", "end of data"),
        (b"{} {}", "column 4"),
        (b"", "empty"),
    ],
)
def test_what_is_not_strict_json_is_named(text: bytes, said: str) -> None:
    with pytest.raises(NotStrict, match=said):
        decode(text)


def test_a_key_that_stands_twice_is_refused_by_name() -> None:
    with pytest.raises(DuplicateKey, match="model") as caught:
        decode(b'{"a": [{"model": 1, "x": 2, "model": 3}]}')
    assert caught.value.key == "model"


def test_flattened_keeps_both_values_of_a_key() -> None:
    assert flattened('{"a": "one", "a": "two"}') == [[["a", "one"], ["a", "two"]]]
