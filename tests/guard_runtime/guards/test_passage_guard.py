"""Everything judged is read, split or joined; nothing twice; half a reading is none."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard_runtime.conversation import Conversation, Direction, Kind, Part, Role, Source, Turn, source_of
from guard_runtime.errors import GuardFailed, GuardOverloaded
from guard_runtime.guard import Guard, OperatingPoints, Passage
from guard_runtime.guards.passage_guard import PassageGuard, ReadLimits
from guard_runtime.loading.classifier import load_classifier
from guard_runtime.loading.options import ServingOptions
from guard_runtime.serving.batch_observer import BatchStats
from guard_runtime.serving.batcher import Batcher, Priority, QueueLimits
from guard_runtime.serving.verdict_cache import VerdictCache
from guard_runtime.verdict import CATEGORIES, Category, Coverage, Unread, UnreadReason, Verdict
from tests.guard_runtime import tiny

CRIME = Category.ILLEGAL_ACTIVITIES_AND_CRIME


class Listener:
    """A model that writes down what it is given; a passage with BAD in it is harmful, one with BREAK fails."""

    name = "listener"
    version = "1"

    def __init__(self) -> None:
        self.operating_points: OperatingPoints = {}
        self.read: list[Passage] = []

    def predict(self, batch: Sequence[Passage]) -> Sequence[Verdict]:
        self.read.extend(batch)
        if any("BREAK" in passage.text for passage in batch):
            raise GuardFailed("broken")
        return [self._verdict(passage) for passage in batch]

    def _verdict(self, passage: Passage) -> Verdict:
        scores = dict.fromkeys(CATEGORIES, 0.0) | {CRIME: 0.9 if "BAD" in passage.text else 0.1}
        unread = (Unread(passage.path, UnreadReason.UNKNOWN_TOKENS, 3),) if "???" in passage.text else ()
        return Verdict(self.name, scores, (), Coverage(1, len(passage.text), 1, 5, 0, unread))


class Penalised(Listener):
    """Takes half the logarithm of the number of windows off a user's scores."""

    window_penalties: Mapping[Source, float] = MappingProxyType({Source.USER: 0.5})


def said(role: Role, *texts: str | None) -> Turn:
    return Turn(role, tuple(Part((role.value, number), text) for number, text in enumerate(texts)))


def asked(*texts: str | None) -> Conversation:
    return Conversation((said(Role.USER, *texts),))


SOURCES = [
    (Role.USER, Kind.TEXT, Source.USER),
    (Role.USER, Kind.TOOL_RESULT, Source.TOOL_RESULT),
    (Role.USER, Kind.SCHEMA, Source.TOOL_DEFINITION),
    (Role.SYSTEM, Kind.TEXT, Source.SYSTEM),
    (Role.SYSTEM, Kind.TOOL_DEFINITION, Source.TOOL_DEFINITION),
    (Role.ASSISTANT, Kind.REASONING, Source.ASSISTANT),
    (Role.ASSISTANT, Kind.TOOL_CALL, Source.TOOL_CALL),
    (Role.TOOL, Kind.TEXT, Source.TOOL_RESULT),
]


@pytest.mark.parametrize(("role", "kind", "source"), SOURCES)
def test_role_and_kind_say_what_a_text_is(role: Role, kind: Kind, source: Source) -> None:
    assert source_of(role, kind) is source
    _, read = check(Conversation((Turn(role, (Part(("text",), "hello", kind),)),)))
    assert [passage.source for passage in read] == [source]


def test_texts_of_several_sources_joined_are_read_as_the_users() -> None:
    turns = (said(Role.USER, "one"), said(Role.TOOL, "two", "three"))
    _, read = check(Conversation(turns))
    joined = {passage.text: passage.source for passage in read if passage.path == ()}
    assert joined == {"two\nthree": Source.TOOL_RESULT, "one\ntwo\nthree": Source.USER}


def test_the_leading_system_prompt_is_read_alone_and_a_later_one_as_what_the_user_says() -> None:
    turns = (said(Role.SYSTEM, "rules"), said(Role.USER, "one"), said(Role.SYSTEM, "more rules"))
    _, read = check(Conversation(turns))
    assert {passage.text: passage.source for passage in read} == {
        "rules": Source.SYSTEM,
        "one": Source.USER,
        "more rules": Source.USER,
        "one\nmore rules": Source.USER,
    }


def test_scores_are_told_by_source_with_the_part_and_the_characters_they_come_from() -> None:
    long = "a" * 5_000 + "BAD" + "b" * 3_000
    [verdict], _ = check(Conversation((said(Role.SYSTEM, "rules"), said(Role.USER, long))))
    by_source = {read.source: read for read in verdict.sources}
    assert {source: read.scores[CRIME] for source, read in by_source.items()} == {Source.SYSTEM: 0.1, Source.USER: 0.9}
    system, user = (by_source[source].places[CRIME] for source in (Source.SYSTEM, Source.USER))
    assert (system.path, system.start, system.end) == (("system", 0), 0, 5)
    assert user.path == ("user", 0)
    assert "BAD" in long[user.start : user.end]
    assert verdict.scores[CRIME] == 0.9


def test_a_place_that_the_cache_remembers_is_told_where_the_text_stands_now() -> None:
    again = Conversation((Turn(Role.USER, (Part(("elsewhere",), "BAD"),)),))
    (_, verdict), read = check(asked("BAD"), again)
    assert len(read) == 1
    assert verdict.sources[0].places[CRIME].path == ("elsewhere",)


def test_many_windows_of_one_source_lower_its_scores_by_the_models_penalty() -> None:
    model = Penalised()
    [alone], _ = check(asked("BAD"), model=model)
    [many], _ = check(asked("BAD", *(f"part {n}" for n in range(9))), model=model)
    windows = many.sources[0].windows
    assert windows > 10
    odds = 0.9 / 0.1 * windows**-0.5
    assert alone.scores[CRIME] == 0.9
    assert many.scores[CRIME] == pytest.approx(odds / (1 + odds))
    place = many.sources[0].places[CRIME]
    assert (place.raw, place.correction) == (0.9, pytest.approx(0.5 * math.log(windows)))


def test_the_windows_of_one_source_do_not_lower_the_scores_of_another() -> None:
    turns = (said(Role.SYSTEM, *(f"rule {n}" for n in range(20))), said(Role.USER, "BAD"))
    [verdict], _ = check(Conversation(turns), model=Penalised())
    assert verdict.scores[CRIME] == 0.9


def check(
    *conversations: Conversation, limits: ReadLimits | None = None, model: Listener | None = None
) -> tuple[list[Verdict], list[Passage]]:
    model = model or Listener()

    async def scenario() -> list[Verdict]:
        batcher = Batcher(model, name="listener", limits=QueueLimits(batch=4))
        guard = PassageGuard(model, batcher, VerdictCache(1 << 20, b"k"), limits=limits or ReadLimits())
        async with guard.running():
            return [await guard.check(conversation) for conversation in conversations]

    return anyio.run(scenario), model.read


def texts(read: Sequence[Passage]) -> set[str]:
    return {passage.text for passage in read}


def test_a_passage_guard_is_a_guard(folder: Path) -> None:
    guard: Guard = load_classifier(folder)
    assert guard.name == "tiny"
    assert guard.version.startswith("0.1.0+")
    assert not guard.ready


def test_every_part_of_every_turn_is_read_alone_and_the_end_joined() -> None:
    turns = (
        said(Role.SYSTEM, "rules"),
        said(Role.USER, "one"),
        said(Role.ASSISTANT, "two"),
        said(Role.USER, "three", "four"),
    )
    _, read = check(Conversation(turns))
    alone = {"rules", "one", "two", "three", "four"}
    assert texts(read) == alone | {"three\nfour", "one\ntwo\nthree\nfour"}
    assert all(passage.direction is Direction.PROMPT and passage.context is None for passage in read)


def test_only_four_turns_are_joined() -> None:
    turns = tuple(said(Role.USER, f"turn {number}") for number in range(9))
    _, read = check(Conversation(turns))
    assert "turn 5\nturn 6\nturn 7\nturn 8" in texts(read)
    assert all("turn 4\n" not in text for text in texts(read) if not text.startswith("turn 1\n"))


def test_what_the_user_said_shortly_is_read_joined_however_far_apart() -> None:
    turns = (
        said(Role.USER, "how do I make"),
        *(said(Role.ASSISTANT, "hm") for _ in range(9)),
        said(Role.USER, "a BAD"),
    )
    _, read = check(Conversation(turns))
    assert "how do I make\na BAD" in texts(read)
    _, read = check(Conversation((said(Role.USER, "long " * 50), *turns[1:])))
    assert not any(text.startswith("long") and text.endswith("BAD") for text in texts(read))


def test_a_word_cut_between_parts_is_read_whole() -> None:
    _, read = check(asked("怎么做炸", "弹"))
    assert "怎么做炸弹" in texts(read)


def test_an_answer_is_read_part_by_part_and_joined_in_the_context_of_the_question() -> None:
    conversation = Conversation((said(Role.USER, "why?"), said(Role.ASSISTANT, "hm"), said(Role.USER, "go on")))
    _, read = check(conversation.reply(Part(("text",), "because"), Part(("reasoning",), "thought", Kind.REASONING)))
    assert {(passage.text, passage.context) for passage in read} == {
        ("because", "go on"),
        ("thought", "go on"),
        ("because\nthought", "go on"),
    }
    assert all(passage.direction is Direction.RESPONSE for passage in read)


def test_the_worst_part_decides() -> None:
    (verdict,), _ = check(asked("fine", "BAD", "fine too"))
    assert verdict.scores[CRIME] == 0.9
    (verdict,), _ = check(asked("fine", "fine too"))
    assert verdict.scores[CRIME] == 0.1


def test_a_text_is_read_once_however_often_it_stands_there() -> None:
    _, read = check(asked(*["same"] * 50))
    assert len(read) == 2


def test_parts_without_text_and_blank_parts_cost_nothing() -> None:
    (verdict,), read = check(asked(None, "", " \n"))
    assert read == []
    assert verdict.risk == 0


def test_forty_turns_later_only_the_new_one_is_read() -> None:
    turns = tuple(said(Role.USER, f"turn {number}") for number in range(40))
    before, after = Conversation(turns), Conversation((*turns, said(Role.USER, "turn 40")))
    (_, verdict), read = check(before, after)
    assert len(read) == 40 + 1 + 4
    assert verdict.coverage.cached == 40
    assert verdict.coverage.parts == 41
    assert verdict.coverage.windows == 3


def test_a_failure_is_not_remembered() -> None:
    model = Listener()

    async def scenario() -> None:
        guard = PassageGuard(model, Batcher(model, name="listener"), VerdictCache(1 << 20, b"k"))
        async with guard.running():
            for _ in range(2):
                with pytest.raises(GuardFailed, match="broken"):
                    await guard.check(asked("BREAK"))

    anyio.run(scenario)
    assert len(model.read) == 2


def test_one_failed_passage_fails_the_check_and_calls_off_the_rest() -> None:
    model = Listener()

    async def scenario() -> int:
        batcher = Batcher(model, name="listener")
        guard = PassageGuard(model, batcher, VerdictCache(1 << 20, b"k"))
        async with guard.running():
            with pytest.raises(GuardFailed, match="broken"):
                await guard.check(asked("BREAK", *(f"part {number}" for number in range(500))))
            return batcher.queued

    assert anyio.run(scenario) == 0
    assert len(model.read) < 50


def test_many_parts_do_not_overload_the_queue_by_themselves() -> None:
    model = Listener()

    async def scenario() -> Verdict:
        guard = PassageGuard(
            model, Batcher(model, name="listener", limits=QueueLimits(queue=16)), VerdictCache(0, b"k")
        )
        async with guard.running():
            return await guard.check(asked(*(f"part {number}" for number in range(300))))

    assert anyio.run(scenario).coverage.parts == 300


def test_an_overloaded_queue_is_said_so() -> None:
    model = Listener()

    async def scenario() -> None:
        guard = PassageGuard(model, Batcher(model, name="listener", limits=QueueLimits(queue=0)), VerdictCache(0, b"k"))
        async with guard.running():
            with pytest.raises(GuardOverloaded):
                await guard.check(asked("one", "two"))

    anyio.run(scenario)


@pytest.mark.parametrize("bad", [0, 4_999, 5_000, 9_700, 30_000])
def test_a_long_part_is_read_in_sections_that_overlap(bad: int) -> None:
    text = "x" * bad + "BAD" + "x" * (30_000 - bad)
    (verdict,), read = check(asked(text))
    assert verdict.scores[CRIME] == 0.9
    assert max(len(passage.text) for passage in read) <= 5_000
    assert verdict.coverage.unread == ()
    assert verdict.coverage.characters == len(text)


def test_the_middle_of_a_very_long_part_is_said_to_be_unread() -> None:
    text = "BAD" + "".join(f"{number} " for number in range(60_000))
    (verdict,), read = check(asked("hello", text))
    (unread,) = verdict.coverage.unread
    assert (unread.path, unread.reason) == (("user", 1), "too_long")
    held = sum(len(passage.text) for passage in read if passage.path == ("user", 1)) - 12 * 400
    assert unread.characters == len(text) - held
    assert verdict.scores[CRIME] == 0.9


@settings(max_examples=25)
@given(st.lists(st.text("ab BAD\n", max_size=40), max_size=6), st.integers(5, 12))
def test_no_piece_of_a_part_escapes_whatever_the_sections(parts: list[str], section: int) -> None:
    limits = ReadLimits(section=section, overlap=4, sections=64)
    (verdict,), _ = check(asked(*parts), limits=limits)
    assert (verdict.scores[CRIME] == 0.9) >= any("BAD" in part for part in parts)


def test_unread_pieces_are_placed_where_they_stand_now_though_the_verdict_is_an_old_one() -> None:
    first = Conversation((Turn(Role.USER, (Part(("here",), "???"),)),))
    second = Conversation((Turn(Role.USER, (Part(("there",), "???"),)),))
    (one, two), read = check(first, second)
    assert len(read) == 1
    assert [item.path for item in one.coverage.unread] == [("here",)]
    assert [item.path for item in two.coverage.unread] == [("there",)]


def test_answers_go_before_prompts() -> None:
    order: list[Priority] = []

    class Watched(Batcher):
        async def check(self, passage: Passage, priority: Priority = Priority.PROMPT) -> Verdict:
            order.append(priority)
            return await super().check(passage, priority)

    async def scenario() -> None:
        model = Listener()
        batcher = Watched(model, name="listener")
        async with PassageGuard(model, batcher, VerdictCache(0, b"k")).running() as guard:
            await guard.check(asked("one"))
            await guard.check(asked("one").reply(Part(("text",), "two")))

    anyio.run(scenario)
    assert order == [Priority.PROMPT, Priority.STREAM]


def test_it_counts_what_the_cache_knew_and_what_the_model_counts() -> None:
    class Counting(Listener):
        def counts(self) -> dict[str, int]:
            return {"checks": len(self.read)}

    async def scenario() -> dict[str, int]:
        model = Counting()
        guard = PassageGuard(model, Batcher(model, name="listener"), VerdictCache(1 << 20, b"k"))
        async with guard.running():
            for _ in range(2):
                await guard.check(asked("one"))
        return dict(guard.counts())

    assert anyio.run(scenario) == {"cache_hits": 1, "cache_misses": 1, "checks": 1}


def test_only_a_guard_with_an_explainer_explains() -> None:
    class Because:
        name = "listener"

        async def explain(self, conversation: Conversation) -> str:
            return "because"

    model, because = Listener(), Because()
    batcher, cache = Batcher(model, name="listener"), VerdictCache(0, b"k")
    assert PassageGuard(model, batcher, cache).explainers == ()
    assert PassageGuard(model, batcher, cache, explainer=because).explainers == (because,)


def test_a_loaded_guard_reads_a_conversation_and_its_batches_are_observed(folder: Path) -> None:
    batches: list[BatchStats] = []

    class Observer:
        def batch_finished(self, guard: str, batch: BatchStats) -> None:
            assert guard == "tiny"
            batches.append(batch)

    async def scenario() -> tuple[Verdict, Verdict]:
        guard = load_classifier(folder, serving=ServingOptions(observer=Observer()))
        async with guard.running():
            assert guard.ready
            harmful = await guard.check(asked("how to make a", "bomb"))
            harmless = await guard.check(asked("今天天气很好").reply(Part(("text",), "很好")))
        return harmful, harmless

    harmful, harmless = anyio.run(scenario)
    assert harmful.scores[CRIME] == pytest.approx(tiny.UNSAFE)
    assert harmless.risk == pytest.approx(tiny.SAFE)
    assert sum(batch.passages for batch in batches) == 4
