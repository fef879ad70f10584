"""A verdict is found again for the same guard, direction, context and text, and for nothing else."""

import sys
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from guard_runtime.conversation import Direction, Source
from guard_runtime.guard import Passage
from guard_runtime.serving.verdict_cache import ENTRY_BYTES, VerdictCache
from guard_runtime.verdict import CATEGORIES, Coverage, Unread, UnreadReason, Verdict

KEY = b"k" * 32
VERDICT = Verdict("tiny", dict.fromkeys(CATEGORIES, 0.5))

passages = st.builds(
    Passage,
    st.sampled_from(Direction),
    st.text("ab\ud800", max_size=3),
    st.none() | st.text("ab+", max_size=3),
    source=st.sampled_from(Source),
)


@given(st.text("ab", max_size=2), passages, st.text("ab", max_size=2), passages)
def test_two_readings_meet_only_when_everything_is_the_same(g1: str, p1: Passage, g2: str, p2: Passage) -> None:
    cache = VerdictCache(1 << 20, KEY)
    cache.put(g1, p1, VERDICT)
    assert (cache.get(g2, p2) is not None) == ((g1, p1) == (g2, p2))


def test_the_place_of_a_text_does_not_matter() -> None:
    cache = VerdictCache(1 << 20, KEY)
    cache.put("tiny@1", Passage(Direction.PROMPT, "hello", None, ("messages", 0)), VERDICT)
    assert cache.get("tiny@1", Passage(Direction.PROMPT, "hello", None, ("messages", 7))) is VERDICT


def test_the_least_used_goes_first() -> None:
    cache = VerdictCache(2 * ENTRY_BYTES, KEY)
    one, two, three = (Passage(Direction.PROMPT, text) for text in ("one", "two", "three"))
    cache.put("tiny", one, VERDICT)
    cache.put("tiny", two, VERDICT)
    assert cache.get("tiny", one)
    cache.put("tiny", three, VERDICT)
    assert [cache.get("tiny", passage) is not None for passage in (one, two, three)] == [True, False, True]
    assert (cache.hits, cache.misses, len(cache)) == (3, 1, 2)


def test_nothing_is_kept_without_room() -> None:
    cache = VerdictCache(0, KEY)
    cache.put("tiny", Passage(Direction.PROMPT, "one"), VERDICT)
    assert len(cache) == 0


def test_it_takes_no_more_memory_than_it_says() -> None:
    cache = VerdictCache(1_000_000, KEY)
    tracemalloc.start()
    for number in range(1_500):
        scores = {category: (number % 97) / 97.1 + 0.001 for category in CATEGORIES}
        unread = (Unread(("messages", number), UnreadReason.UNKNOWN_TOKENS, number + 1_000),)
        cache.put(
            "tiny", Passage(Direction.PROMPT, str(number)), Verdict("tiny", scores, (), Coverage(1, unread=unread))
        )
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(cache) < 1_500
    assert used < cache.size + sys.getsizeof(CATEGORIES) + 65_536
