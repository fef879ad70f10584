"""Every unit is in a window or counted as unread."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard_runtime.text.windows import windows


@given(st.integers(0, 3_000), st.integers(1, 200), st.integers(0, 199), st.integers(2, 12))
def test_every_unit_is_in_a_window_or_unread(length: int, size: int, overlap: int, limit: int) -> None:
    overlap = min(overlap, size - 1)
    laid = windows(length, size=size, overlap=overlap, limit=limit)
    read = {unit for start, end in laid.slices for unit in range(start, end)}
    unread = set(range(*laid.unread)) if laid.unread else set()
    assert read | unread == set(range(length))
    assert not read & unread
    assert len(laid.slices) <= limit
    assert all(0 <= start < end <= length and end - start <= size for start, end in laid.slices)
    if length:
        assert laid.slices[0][0] == 0
        assert laid.slices[-1][1] == length


@given(st.integers(1, 3_000), st.integers(2, 200), st.integers(0, 100))
def test_neighbours_overlap(length: int, size: int, overlap: int) -> None:
    overlap = min(overlap, size - 1)
    laid = windows(length, size=size, overlap=overlap, limit=10_000)
    assert laid.unread is None
    assert all(a[1] - b[0] >= overlap for a, b in zip(laid.slices, laid.slices[1:], strict=False))


def test_windows_are_no_longer_than_they_need_be() -> None:
    assert windows(130, size=126, overlap=30, limit=9).slices == ((0, 80), (50, 130))


def test_the_middle_is_left_out_first() -> None:
    assert windows(1_000, size=100, overlap=20, limit=4).slices == ((0, 100), (80, 180), (820, 920), (900, 1_000))
    assert windows(1_000, size=100, overlap=20, limit=4).unread == (180, 820)


@pytest.mark.parametrize(("size", "overlap", "limit"), [(10, 10, 4), (10, -1, 4), (10, 2, 1)])
def test_windows_that_would_not_advance_are_refused(size: int, overlap: int, limit: int) -> None:
    with pytest.raises(ValueError, match="cannot be laid"):
        windows(100, size=size, overlap=overlap, limit=limit)
