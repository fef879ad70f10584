"""A cache within a budget of bytes drops the entry used longest ago, and never counts an entry twice."""

from guard_runtime.serving.bounded_lru import BoundedLRU
from guard_runtime.serving.keyed_hash import keyed_hash


def cache(budget: int) -> BoundedLRU[str, str]:
    return BoundedLRU(budget, len)


def test_the_entry_used_longest_ago_is_dropped_first() -> None:
    entries = cache(4)
    entries.put("a", "xx")
    entries.put("b", "yy")
    assert entries.get("a") == "xx"
    entries.put("c", "zz")
    assert [entries.get(key) for key in "abc"] == ["xx", None, "zz"]
    assert (entries.size, entries.evicted, len(entries)) == (4, 1, 2)


def test_a_new_value_takes_the_place_of_the_old_one() -> None:
    entries = cache(10)
    entries.put("a", "xxxx")
    entries.put("a", "y")
    assert (entries.get("a"), entries.size, len(entries), entries.evicted) == ("y", 1, 1, 0)


def test_a_value_larger_than_the_budget_is_not_kept_and_drops_nothing_else() -> None:
    entries = cache(3)
    entries.put("a", "x")
    entries.put("b", "yyyy")
    assert (list(entries), entries.size, entries.evicted) == (["a"], 1, 0)


def test_nothing_is_kept_without_a_budget() -> None:
    entries = cache(0)
    entries.put("a", "x")
    assert (entries.get("a"), entries.size) == (None, 0)


def test_fields_that_join_to_the_same_bytes_have_different_hashes() -> None:
    assert keyed_hash(b"k", (b"ab", b"c")) != keyed_hash(b"k", (b"a", b"bc"))
    assert keyed_hash(b"k", (b"ab",)) != keyed_hash(b"j", (b"ab",))
