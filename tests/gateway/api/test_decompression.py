"""Compressed bodies: made whole whatever the pieces they come in, and never larger than they may be."""

import gzip
import os

import pytest
import zstandard

from gateway.api.decompression import FREE, decompressor
from gateway.errors import TooLarge

CODINGS = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}
LIMIT = 4 * 1024 * 1024


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("size", [1, 7, 4_096, 1_000_000])
def test_a_body_is_whole_whatever_the_pieces(coding: str, size: int) -> None:
    plain = os.urandom(100_000) + b" " * 200_000
    sent = CODINGS[coding](plain)
    whole = decompressor(coding, LIMIT)
    made = b"".join(whole.add(sent[i : i + size]) for i in range(0, len(sent), size))
    whole.end()
    assert made == plain


@pytest.mark.parametrize("coding", CODINGS)
def test_a_body_may_be_as_large_as_the_limit_and_no_larger(coding: str) -> None:
    plain = os.urandom(FREE)
    whole = decompressor(coding, FREE)
    assert whole.add(CODINGS[coding](plain)) == plain
    with pytest.raises(TooLarge, match="limit"):
        decompressor(coding, FREE - 1).add(CODINGS[coding](plain))


@pytest.mark.parametrize("coding", CODINGS)
def test_a_body_that_grows_too_much_is_refused_though_it_is_within_the_limit(coding: str) -> None:
    with pytest.raises(TooLarge, match="times"):
        decompressor(coding, LIMIT).add(CODINGS[coding](b" " * LIMIT))
    assert decompressor(coding, LIMIT).add(CODINGS[coding](b" " * FREE)) == b" " * FREE
