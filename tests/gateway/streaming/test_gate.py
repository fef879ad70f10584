"""The gate alone: when a check is due, what it reads, what may leave, and how a mask meets a chunk's border."""

import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.dialect import Channel, Delta, Event
from gateway.errors import UpstreamError
from gateway.policy.policy import StreamMode, StreamSettings
from gateway.streaming.channel import (
    MAX_BEFORE,
    MAX_RUN,
    ChannelRules,
    ChannelText,
    from_last_sentence,
    run_start,
    unescaped,
)
from gateway.streaming.gate import MAX_CHECK, Gate
from gateway.streaming.hold_buffer import MAX_CHANNELS
from gateway.streaming.token_weight import last_part, weigh, weight_of
from guard_runtime.conversation import Kind, Part
from guard_runtime.verdict import Category, Span

SAID: Channel = (0, "content")
THOUGHT: Channel = (0, "reasoning_content")
PRIVATE = re.compile(
    r"(?P<id>(?<!\d)\d{17}[\dX](?!\d))|(?P<phone>(?<!\d)1\d{10}(?!\d))"
    r"|(?P<card>(?<!\d)\d{4}(?: \d{4}){3}(?!\d))|(?P<email>[\w.+-]+@[\w-]+(?:\.[\w-]+)+)|(?P<key>sk-[A-Za-z0-9]{20,})",
    re.ASCII,
)


def spans(parts: Sequence[Part]) -> list[Span]:
    return [
        Span(part.path, found.start(), found.end(), Category.PRIVACY_AND_PROPERTY, str(found.lastgroup))
        for part in parts
        for found in PRIVATE.finditer(part.text or "")
    ]


def masked(text: str) -> str:
    return PRIVATE.sub(lambda found: f"[{found.lastgroup}]", text)


class Driven:
    """A gate with a driver that checks whenever it is due, and keeps what has left."""

    def __init__(self, find: Callable[[Sequence[Part]], list[Span]] = lambda parts: [], **changes: object) -> None:
        self.settings = StreamSettings(**changes)  # type: ignore[arg-type]
        self.gate = Gate(self.settings, "[{}]".format)
        self.find = find
        self.now = 0.0
        self.read: list[tuple[Part, ...]] = []
        self.left: list[dict[Channel, str]] = []
        self.events: list[Event] = []

    def push(self, *deltas: tuple[Channel, str | None], kind: Kind = Kind.TEXT, size: int = 1) -> "Driven":
        event = Event({"n": len(self.events)})
        self.gate.push(event, [Delta(channel, text, kind) for channel, text in deltas], self.now, size)
        return self.turn()

    def turn(self) -> "Driven":
        while True:
            for free in self.gate.release(self.now):
                self.left.append(dict(free.texts))
                self.events.append(free.event)
            if not self.gate.due(self.now):
                return self
            self.read.append(self.gate.take())
            self.gate.clear(self.find(self.read[-1]))

    def wait(self, seconds: float) -> "Driven":
        self.now += seconds
        return self.turn()

    def end(self, *, complete: bool = True) -> "Driven":
        self.gate.end(complete=complete)
        return self.turn()

    def text(self, channel: Channel = SAID) -> str:
        return "".join(texts.get(channel, "") for texts in self.left)


@pytest.mark.parametrize(
    ("pushed", "due"),
    [
        ("一二三", False),
        ("一二三四五六七八九十" * 2, True),
        ("word " * 15, False),
        ("word " * 16, True),
        ("Yes.", False),
        ("Yes!", True),
        ("好。", True),
        ("好\n", True),
    ],
)
def test_the_first_check_is_due_after_twenty_tokens_or_a_sentence(pushed: str, due: bool) -> None:
    gate = Gate(StreamSettings())
    gate.push(Event({}), [Delta(SAID, pushed)], 0.0)
    assert gate.due(0.0) is due


def test_text_is_due_when_the_release_time_is_over_and_not_before() -> None:
    gate = Gate(StreamSettings(release_after=0.3))
    gate.push(Event({}), [Delta(SAID, "一")], 1.0)
    assert not gate.due(1.2)
    assert gate.deadline == pytest.approx(1.3)
    assert gate.due(1.3)


def test_windows_grow_while_risk_is_low_and_shrink_when_it_rises() -> None:
    gate = Gate(StreamSettings(first_window=20, window=32, max_window=128))
    sizes = []
    for risk in (0.0, 0.0, 0.1, 0.0, 0.0, 0.9, 0.4, 0.8, 0.0):
        size = 0
        while not gate.due(0.0):
            gate.push(Event({}), [Delta(SAID, "字")], 0.0)
            size += 1
        sizes.append(size)
        gate.take()
        gate.clear(risk=risk)
    assert sizes == [20, 32, 64, 128, 128, 128, 64, 32, 32]


def test_nothing_of_a_channel_leaves_before_it_is_cleared() -> None:
    driven = Driven().push((SAID, "一二三"))
    assert driven.text() == ""
    assert driven.wait(0.3).text() == "一二三"


def test_a_check_reads_the_new_text_and_a_tail_of_the_old_and_nothing_else() -> None:
    driven = Driven(first_window=4, window=4, max_window=4, overlap=3)
    driven.push((SAID, "一二三四")).push((SAID, "五六七八")).push((SAID, "九十百千"))
    assert [part.text for parts in driven.read for part in parts] == ["一二三四", "二三四五六七八", "六七八九十百千"]


def test_a_fast_answer_is_read_less_than_twice_over() -> None:
    driven = Driven()
    for at in range(4_000):
        driven.push((SAID, chr(0x4E00 + at)))
    assert driven.end().text() == "".join(chr(0x4E00 + at) for at in range(4_000))
    assert driven.gate.judged < 1.6 * 4_000


def test_what_is_kept_in_memory_does_not_grow_with_the_answer() -> None:
    text = ChannelText(SAID, Kind.TEXT, False, ChannelRules("[{}]".format, 48, from_last_sentence))
    pieces = []
    for _ in range(3_000):
        pieces.append(text.grow("一个字", 0.0))
        part, _ = text.read(weight_of(MAX_CHECK))
        text.settle(spans([part]))
        text.release(pieces[-1])
    assert len(text.fresh) + len(text.context) + sum(map(len, text.arrived)) < 1_000
    assert len(text.before) <= MAX_BEFORE
    assert len(text.masks) == 0


def test_a_burst_is_checked_in_slices_and_leaves_whole() -> None:
    driven = Driven()
    text = "长" * 10_000 + "word " * 3_000
    driven.push((SAID, text), size=len(text)).end()
    assert driven.text() == text
    assert max(weigh(part.text or "") for parts in driven.read for part in parts) <= weight_of(MAX_CHECK + 48 + MAX_RUN)


def test_a_number_across_the_border_of_two_slices_is_masked() -> None:
    text = "长" * (MAX_CHECK - 5) + "11010119900307451X" + "长" * MAX_CHECK
    driven = Driven(spans).push((SAID, text), size=len(text)).end()
    assert driven.text() == masked(text)


@pytest.mark.parametrize(
    "text",
    [
        "他的号码是11010119900307451X，请记住",
        "card 6222 0200 0000 0000 please",
        "mail zhang.san+x@mail.example.com.cn now",
        "the key sk-abcdefghijklmnopqrstuvwxyz012345 is mine",
        "电话13800138000。",
        "13800138000",
    ],
)
@pytest.mark.parametrize("size", [1, 2, 5, 7])
@pytest.mark.parametrize("pause", [0.0, 0.35, 5.0])
def test_a_private_thing_in_many_chunks_is_masked_whole_and_the_rest_unharmed(
    text: str, size: int, pause: float
) -> None:
    driven = Driven(spans)
    for at in range(0, len(text), size):
        driven.push((SAID, text[at : at + size])).wait(pause)
    assert driven.end().text() == masked(text)
    assert len(driven.left) == -(-len(text) // size)


def test_the_label_stands_in_the_event_that_holds_the_first_character() -> None:
    driven = Driven(spans).push((SAID, "号码138")).push((SAID, "0013")).push((SAID, "8000好")).end()
    assert [texts[SAID] for texts in driven.left] == ["号码[phone]", "", "好"]


def test_a_number_that_grows_is_named_by_what_it_became() -> None:
    driven = Driven(spans)
    for character in "号11010119900307451X。":
        driven.push((SAID, character)).wait(1.0)
    assert driven.end().text() == "号[id]。"


def test_what_looked_like_a_phone_and_went_on_is_no_phone() -> None:
    driven = Driven(spans)
    for character in "第138001380001234号":
        driven.push((SAID, character)).wait(1.0)
    assert driven.end().text() == "第138001380001234号"


def test_the_tail_a_later_check_reads_is_masked_too() -> None:
    driven = Driven(spans).push((SAID, "电话13800138000。")).push((SAID, "还有别的话要说吗？")).wait(1.0)
    assert [part.text for part in driven.read[-1]] == ["电话[phone]。还有别的话要说吗？"]


def test_a_run_longer_than_any_number_is_not_held_for_ever() -> None:
    driven = Driven()
    for _ in range(3 * MAX_RUN):
        driven.push((SAID, "k"))
    assert MAX_RUN <= len(driven.wait(1.0).text()) < 3 * MAX_RUN
    assert driven.end().text() == "k" * 3 * MAX_RUN


def test_a_run_alone_is_held_as_long_as_it_may_go_on() -> None:
    driven = Driven().push((SAID, "号码是1380013")).wait(60.0)
    assert driven.text() == ""
    assert driven.push((SAID, "，")).wait(2.0).text() == "号码是1380013，"


def test_a_run_that_other_text_waits_for_is_let_go_after_two_release_times() -> None:
    driven = Driven(release_after=0.3).push((THOUGHT, "so the answer is yes")).wait(0.3).push((SAID, "是的。"))
    assert driven.wait(0.2).text() == ""
    assert driven.wait(0.1).text(THOUGHT) == "so the answer is yes"
    assert driven.text() == "是的。"


def test_a_run_at_the_end_of_an_incomplete_answer_never_leaves() -> None:
    driven = Driven(spans).push((SAID, "号码是")).push((SAID, "1101011990030745")).end(complete=False)
    assert driven.text() == "号码是"
    assert driven.gate.settled


def test_events_leave_in_their_order_and_are_the_upstreams_own() -> None:
    driven = Driven().push().push((SAID, "一"), (THOUGHT, "二")).push((THOUGHT, "三")).push().end()
    assert [event.data for event in driven.events] == [{"n": n} for n in range(4)] or len(driven.events) == 4
    assert driven.left == [{}, {SAID: "一", THOUGHT: "二"}, {THOUGHT: "三"}, {}]


def test_what_adds_no_text_waits_for_the_first_check() -> None:
    driven = Driven().push()
    assert driven.left == []
    assert driven.push((SAID, "好。")).left == [{}, {SAID: "好。"}]


def test_an_event_waits_for_every_channel_in_it() -> None:
    gate = Gate(StreamSettings())
    gate.push(Event({}), [Delta(SAID, "一"), Delta(THOUGHT, "word")], 0.0)
    assert gate.due(1.0)
    gate.take()
    gate.clear()
    assert gate.release(1.0) == []  # "word" may go on


def test_an_unreadable_field_is_held_and_put_to_the_judge() -> None:
    driven = Driven().push(((0, "delta", "weird"), None))
    assert driven.left == []
    driven.wait(0.3)
    assert driven.read == [(Part((0, "delta", "weird"), None),)]
    assert len(driven.left) == 1


def test_half_a_character_is_unreadable() -> None:
    gate = Gate(StreamSettings())
    gate.push(Event({}), [Delta(SAID, "好\ud83d")], 0.0)
    assert sorted(gate.take(), key=lambda part: part.text is None) == [Part(SAID, "好\ufffd"), Part(SAID, None)]


def test_tool_arguments_are_read_with_their_escapes_undone_and_masked_where_they_stand() -> None:
    channel = (0, "tool_calls", 0, "arguments")
    raw = '{"to": "\\u5f20\\u4e09", "tel": "\\u0031' + "3800138000" + '", "x": "\\ud83d\\ude00"}'
    driven = Driven(spans)
    for at in range(0, len(raw), 3):
        driven.push((channel, raw[at : at + 3]), kind=Kind.TOOL_CALL)
    driven.end()
    assert "张三" in "".join(part.text or "" for parts in driven.read for part in parts)
    assert driven.text(channel) == raw.replace("\\u00313800138000", "[phone]")


def test_a_function_name_is_never_held_as_a_run() -> None:
    channel = (0, "tool_calls", 0, "name")
    assert Driven().push((channel, "get_weather"), kind=Kind.NAME).wait(0.3).text(channel) == "get_weather"


def test_in_async_mode_text_leaves_at_once_and_the_counters_tell() -> None:
    gate = Gate(StreamSettings(mode=StreamMode.ASYNC))
    gate.push(Event({}), [Delta(SAID, "一二三")], 0.0)
    gate.push(Event({"finish": True}), [], 0.0)
    assert len(gate.release(0.0)) == 1
    assert (gate.released, gate.cleared, gate.unguarded) == (3, 0, 3)
    gate.end(complete=True)
    gate.take()
    gate.clear()
    assert len(gate.release(0.0)) == 1
    assert (gate.released, gate.cleared, gate.unguarded) == (3, 3, 0)


def test_a_full_gate_is_due_and_says_so() -> None:
    gate = Gate(StreamSettings(max_held=100))
    gate.push(Event({}), [Delta(SAID, "一")], 0.0, 99)
    assert not gate.full
    assert not gate.due(0.0)
    gate.push(Event({}), [Delta(SAID, "二")], 0.0, 1)
    assert gate.full
    assert gate.due(0.0)
    gate.take()
    gate.clear()
    assert len(gate.release(0.0)) == 2
    assert not gate.full


def test_an_answer_may_not_scatter_over_any_number_of_channels() -> None:
    gate = Gate(StreamSettings())
    with pytest.raises(UpstreamError, match="channels"):
        for index in range(MAX_CHANNELS + 1):
            gate.push(Event({}), [Delta((index, "content"), "一")], 0.0)


@pytest.mark.parametrize(
    ("text", "end", "start"),
    [
        ("好", 1, 1),
        ("号码138", 5, 2),
        ("号码138。", 5, 5),
        ("号码138。", 4, 2),
        ("card 6222 0200 ", 15, 5),
        ("card 6222 0200 x", 15, 15),
        ("a word ", 7, 7),
        ("mail a@b.c", 10, 5),
        ("\uff11\uff13\uff18", 3, 0),
        ("1\u200b3", 3, 0),
        ("k" * 300, 300, 300 - MAX_RUN),
        ("", 0, 0),
    ],
)
def test_where_a_run_that_may_go_on_begins(text: str, end: int, start: int) -> None:
    assert run_start(text, end) == start


@given(st.text(max_size=200), st.integers(0, 60))
def test_a_tail_is_an_end_of_the_text_and_no_longer_than_asked(text: str, tokens: int) -> None:
    end = last_part(text, tokens)
    assert text.endswith(end)
    assert weigh(end) <= weight_of(tokens)
    assert end == text or weigh(text[len(text) - len(end) - 1 :]) > weight_of(tokens)


@given(st.text(max_size=100))
def test_escapes_are_undone_and_every_place_leads_back(text: str) -> None:
    raw = text.encode("ascii", "backslashreplace").decode()
    found, offsets = unescaped(raw)
    assert len(offsets) == len(found) + 1
    assert list(offsets) == sorted(set(offsets))
    assert offsets[-1] == len(raw)


ALPHABET = st.sampled_from(
    ["中", "文", "。", "，", "a", "B", "7", "1", " ", "\n", "-", "@", ".", "😀", "é", "\u200b", "한", "🇨🇳", '"', "\\"]
)
UNITS = st.one_of(
    ALPHABET,
    st.sampled_from(["13800138000", "11010119900307451X", "6222 0200 0000 0000", "a.b@c.de", " hello ", "中文。"]),
)


@settings(max_examples=200)
@given(
    text=st.lists(UNITS, max_size=60).map("".join),
    cuts=st.lists(st.integers(1, 12), min_size=1, max_size=20),
    pauses=st.lists(st.sampled_from([0.0, 0.0, 0.1, 0.4]), min_size=1, max_size=8),
)
def test_any_chunking_gives_the_whole_answer_masked_and_never_a_character_early(
    text: str, cuts: list[int], pauses: list[float]
) -> None:
    driven = Driven(spans, first_window=6, window=8, max_window=16, overlap=12)
    at = number = 0
    while at < len(text):
        size = cuts[number % len(cuts)]
        driven.push((SAID, text[at : at + size])).wait(pauses[number % len(pauses)])
        assert driven.gate.unguarded == 0
        assert driven.gate.released <= driven.gate.cleared <= at + size
        assert masked(text).startswith(driven.text())
        at, number = at + size, number + 1
    assert driven.end().text() == masked(text)


@settings(max_examples=100)
@given(
    deltas=st.lists(st.tuples(st.sampled_from([SAID, THOUGHT, (1, "content")]), UNITS), max_size=40),
    late=st.integers(0, 5),
)
def test_what_is_out_when_a_check_says_no_was_let_through_by_an_earlier_one(
    deltas: list[tuple[Channel, str]], late: int
) -> None:
    """Checks answer `late` pushes after they were asked, and the fourth says no."""
    gate = Gate(StreamSettings(first_window=2, window=2, max_window=4))
    pushed: dict[Channel, str] = {}
    allowed: dict[Channel, int] = {}
    asked: tuple[int, dict[Channel, int]] | None = None
    out: dict[Channel, str] = {}
    checks = 0
    for now, (channel, text) in enumerate(deltas):
        gate.push(Event({}), [Delta(channel, text)], float(now))
        pushed[channel] = pushed.get(channel, "") + text
        if asked is not None and now - asked[0] >= late:
            checks += 1
            if checks == 4:
                break
            gate.clear()
            allowed, asked = asked[1], None
        for free in gate.release(float(now)):
            for where, said in free.texts.items():
                out[where] = out.get(where, "") + said
        if gate.due(float(now)):
            gate.take()
            asked = (now, {where: len(said) for where, said in pushed.items()})
        for where, said in out.items():
            assert said == pushed[where][: len(said)]
            assert len(said) <= allowed.get(where, 0)


def test_a_window_with_little_in_it_waits_four_times_as_long_once_text_has_left() -> None:
    gate = Gate(StreamSettings(release_after=0.3), question="问" * 20)
    gate.push(Event({}), [Delta(SAID, "一句话。")], 0.0)
    gate.take()
    gate.clear()
    gate.push(Event({}), [Delta(SAID, "二" * 10)], 1.0)
    assert not gate.due(1.4) and gate.deadline == pytest.approx(2.2) and gate.due(2.2)
    gate.push(Event({}), [Delta(SAID, "二" * 21)], 1.1)
    assert gate.deadline == pytest.approx(1.3) and gate.due(1.3)  # more than a quarter over the 24 that are read again


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("一二三四五六七八九十" * 3, "七八九十" + "一二三四五六七八九十" * 2),
        ("一二三四五。" + "六" * 12, "六" * 12),
        ("一二三四五。六七八", "一二三四五。六七八"[-8:]),
        ("A first line. " + "word " * 10, "word " * 10),
    ],
)
def test_a_check_reaches_back_to_a_sentences_start_within_a_third_and_the_whole_overlap(text: str, again: str) -> None:
    assert from_last_sentence(text, 24) == again
