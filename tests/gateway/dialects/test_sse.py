"""The wire form of events: any chunking reads the same, and nothing gets in between."""

import json
from itertools import pairwise

import httpx
import httpx_sse
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.dialect import Event
from gateway.dialects.sse import KEEP_ALIVE, Decoder, encode
from gateway.errors import UpstreamError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
objects = st.dictionaries(texts, texts | st.integers(-(2**53), 2**53) | st.lists(texts, max_size=2), max_size=3)
names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
line_ends = st.sampled_from(["\n", "\r\n", "\r"])


@st.composite
def frames(draw: st.DrawFn) -> str:
    """One block of an event stream, lawful and odd at once: comments, unknown fields, data over several lines."""
    lines = [f": {draw(names)}"] if draw(st.booleans()) else []
    if draw(st.booleans()):
        lines.append(f"event:{draw(st.sampled_from(['', ' ']))}{draw(names)}")
    lines += draw(
        st.lists(st.sampled_from(["id: 7", "retry: 10", "data", "nonsense", "foo: bar", "data:"]), max_size=2)
    )
    if draw(st.booleans()):
        data = json.dumps(draw(objects), indent=draw(st.sampled_from([None, 1])), ensure_ascii=draw(st.booleans()))
        data = draw(st.sampled_from([data, "[DONE]"]))
        lines += [f"data:{draw(st.sampled_from(['', ' ']))}{line}" for line in data.split("\n")]
    end = draw(line_ends)
    return end.join([*lines, "", ""])


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


def read(*chunks: bytes, max_frame: int = 1_000_000) -> list[Event]:
    decoder = Decoder(max_frame)
    return [event for chunk in chunks for event in decoder.decode(chunk)] + decoder.flush()


def by_httpx_sse(data: bytes) -> list[Event]:
    response = httpx.Response(200, headers={"content-type": "text/event-stream; charset=utf-8"}, content=data)
    found = [sse for sse in httpx_sse.EventSource(response).iter_sse() if sse.data.strip()]
    return [Event(None if sse.data.strip() == "[DONE]" else json.loads(sse.data), sse.event) for sse in found]


def named(events: list[Event]) -> list[Event]:
    """An event without a name is a "message", says the specification."""
    return [Event(event.data, event.name or "message") for event in events]


@given(st.lists(frames(), max_size=5), st.lists(st.integers(0, 10_000), max_size=20))
def test_any_stream_in_any_chunking_reads_as_httpx_sse_reads_it(blocks: list[str], cuts: list[int]) -> None:
    data = "".join(blocks).encode()
    assert named(read(*pieces(data, cuts))) == by_httpx_sse(data)


@given(st.lists(st.builds(Event, objects | st.none(), names.map(str.lstrip).map(lambda n: n or None)), max_size=5))
def test_one_event_in_is_one_event_out(events: list[Event]) -> None:
    data = b"".join(KEEP_ALIVE + encode(event) for event in events)
    assert read(data) == events
    assert by_httpx_sse(data) == named(events)


@given(st.text(max_size=30))
def test_no_text_in_an_event_can_end_it(text: str) -> None:
    hostile = text + "\n\ndata: {}\n\r\r" + text
    try:
        written = encode(Event({"text": hostile, hostile: 1}))
    except UpstreamError:
        with pytest.raises(UnicodeEncodeError):
            text.encode()
        return
    assert len(by_httpx_sse(written)) == 1
    with pytest.raises(UpstreamError):
        encode(Event({}, name=hostile))


def test_every_cut_of_every_line_end_reads_the_same() -> None:
    data = 'event: a\r\ndata: {"x":\r\ndata: "中"}\r\n\r\n: c\rdata: {"y": 1}\r\rdata: [DONE]\n\n'.encode()
    whole = [Event({"x": "中"}, "a"), Event({"y": 1}), Event(None)]
    assert all(read(data[:i], data[i:j], data[j:]) == whole for i in range(len(data)) for j in range(i, len(data)))


def test_an_event_is_out_as_soon_as_its_blank_line_is_in() -> None:
    decoder = Decoder()
    assert list(decoder.decode(b'data: {"x": 1}\r')) == []
    assert list(decoder.decode(b"\r")) == [Event({"x": 1})]
    assert list(decoder.decode(b'\ndata: {"x": 2}\n\n')) == [Event({"x": 2})]


def test_a_byte_order_mark_is_dropped_at_the_start_alone() -> None:
    mark = b"\xef\xbb\xbf"
    assert read(mark[:1], mark[1:] + b"data: {}\n\n") == [Event({})]
    with pytest.raises(UpstreamError):
        read(b"data: {}\n\ndata: " + mark + b"{}\n\n")


def test_of_two_equal_keys_the_last_is_kept() -> None:
    (event,) = read(b'data: {"a": 1, "a": 2}\n\n')
    assert encode(event) == b'data: {"a":2}\n\n'


@pytest.mark.parametrize(
    "garbage",
    [
        b"data: \xff\xfe\n\n",
        b'data: {"a": "\xc3"}\n\n',
        b"event: \xff\ndata: {}\n\n",
        b"data: [1]\n\n",
        b"data: 1\n\n",
        b'data: "text"\n\n',
        b"data: null\n\n",
        b"data: <html>\n\n",
        b'data: {"a": NaN}\n\n',
        b'data: {"a": "\\ud800"}\n\n',
        b'data: {"a": 1}\ndata: {"b": 1}\n\n',
        b"data: " + b'{"a":' * 2000 + b"1" + b"}" * 2000 + b"\n\n",
    ],
)
def test_garbage_is_the_providers_error_and_what_came_before_it_counts(garbage: bytes) -> None:
    seen: list[Event] = []
    with pytest.raises(UpstreamError) as raised:
        seen.extend(Decoder().decode(b'data: {"ok": 1}\n\n' + garbage))
    assert seen == [Event({"ok": 1})]
    assert raised.value.__cause__ is None, "a parser's error holds the document, which no log may have"


def test_an_event_cut_off_by_the_end_is_an_error_and_one_that_lacks_its_blank_line_is_not() -> None:
    with pytest.raises(UpstreamError):
        read(b'data: {"a": "b')
    assert read(b'data: {"a": 1}\n') == [Event({"a": 1})]
    assert read(b"data: {}\n\ndata: [DONE]") == [Event({}), Event(None)]


@pytest.mark.parametrize("endless", [b"data: " + b"x" * 600, b"data: x\n" * 300, b"x" * 600, b"event: " + b"n" * 600])
def test_an_event_without_an_end_is_not_kept_for_ever(endless: bytes) -> None:
    assert read(b"data: {}\n\n" * 300, max_frame=500) == [Event({})] * 300
    for step in (1, 7, len(endless)):
        decoder = Decoder(max_frame=500)
        with pytest.raises(UpstreamError, match="500 bytes"):
            for i in range(0, len(endless), step):
                list(decoder.decode(endless[i : i + step]))


def test_a_megabyte_byte_by_byte_takes_one_pass() -> None:
    data = b'data: {"a": "' + b"x" * 1_000_000 + b'"}\n\n'
    decoder = Decoder(2_000_000)
    (event,) = [event for i in range(len(data)) for event in decoder.decode(data[i : i + 1])]
    assert event.data == {"a": "x" * 1_000_000}
