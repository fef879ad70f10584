"""Pictures, sounds and files: read by a model or directly, judged in words; unreadable where nobody could."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from email import message_from_bytes
from typing import Any

import anyio
import orjson
import pytest

from gateway.dialects.choices.chat import Chat
from gateway.errors import UpstreamError
from gateway.judging.media import MediaDescriber, MediaReader, MediaReaders, Transcriber
from gateway.policy.policy import Action, Rewrite
from gateway.upstreams.openai import Endpoint, OpenAICompatible
from gateway.upstreams.upstream import Scripted, Upstream
from guard_runtime.conversation import Media, MediaKind
from guard_runtime.guards.personal_data import PersonalData
from tests.bypass.walls import CHAT, MESSAGES, RESPONSES, Json, asking, code, post
from tests.support.faulty_provider import answer, faulty_thread
from tests.support.gateway_server import Parts, blocking, record, served

UNREAD = (400, "content_filter")


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def picture(says: str, **beside: Any) -> Json:
    """A chat part with a picture on which this can be read."""
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded(says)}", **beside}}


def sound(says: str) -> Json:
    return {"type": "input_audio", "input_audio": {"data": encoded(says), "format": "wav"}}


def file(says: str, type: str = "text/plain", **beside: Any) -> Json:
    return {"type": "file", "file": {"file_data": f"data:{type};base64,{encoded(says)}", **beside}}


def said(text: Any, finish: str = "stop", **fields: Any) -> Json:
    return {"choices": [{"message": {"role": "assistant", "content": text, **fields}, "finish_reason": finish}]}


def sight(body: Any) -> Json:
    """A model that sees: it says what is written on the picture, or in the file."""
    (piece,) = body["messages"][1]["content"]
    holder = piece[piece["type"]]
    data = holder.get("url") or holder.get("file_data") or holder["data"]
    return said(f"It says: {base64.b64decode(data.partition(',')[2] or data).decode()}")


def eyes(answers: Any = sight) -> Scripted:
    return Scripted("eyes", answers, lambda body: [])


def seeing(upstream: Scripted | None = None, **options: Any) -> Parts:
    reader: MediaReader = MediaDescriber(upstream or eyes(), "see", seconds=2.0, most_bytes=600)
    return Parts(upstream=Scripted.saying("ok"), readers=MediaReaders(dict.fromkeys(MediaKind, reader)), **options)


def bodies(says: str) -> Mapping[str, Json]:
    """The same picture in every dialect that takes one."""
    data = encoded(says)
    source = {"type": "base64", "media_type": "image/png", "data": data}
    seen = {"type": "input_image", "image_url": f"data:image/png;base64,{data}"}
    return {
        CHAT: asking([picture(says)]),
        RESPONSES: {"model": "m", "input": [{"role": "user", "content": [seen]}]},
        MESSAGES: {
            "model": "m",
            "max_tokens": 9,
            "messages": [{"role": "user", "content": [{"type": "image", "source": source}]}],
        },
    }


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
def test_a_picture_is_judged_by_what_is_read_in_it(path: str) -> None:
    parts = seeing()
    with served(parts.gateway) as url:
        assert post(url, bodies("something forbidden")[path], path).status_code == 400
        assert record(parts)["read"][0][-1] == "read by eyes/see"  # type: ignore[index]
        assert parts.upstream.asked == []  # type: ignore[attr-defined]
        post(url, bodies("a harmless cat")[path], path)
    ((_, asked),) = parts.upstream.asked  # type: ignore[attr-defined]
    assert encoded("a harmless cat") in orjson.dumps(asked).decode() and b"It says" not in orjson.dumps(asked)
    assert "harmless cat" not in str(record(parts, 2))


def test_a_sound_and_a_file_are_read_like_a_picture_and_a_moderation_too() -> None:
    parts = seeing()
    with served(parts.gateway) as url:
        for piece in (sound("forbidden"), file("forbidden", "application/pdf")):
            assert code(post(url, asking([piece]))) == UNREAD
        assert post(url, asking([sound("fine"), file("fine", "application/pdf")])).status_code == 200
        asked = {"input": [picture("forbidden")]}
        assert post(url, asked, "/v1/moderations").json()["results"][0]["categories"]["illicit"]


@pytest.mark.parametrize(
    "told",
    [
        UpstreamError("gone"),
        said("It says", "length"),
        said("It says", "content_filter"),
        said("I will not.", refusal="I will not."),
        said(None),
        said("  "),
        said("UNREADABLE."),
        {"choices": []},
        {},
    ],
)
def test_what_a_reader_could_not_read_to_the_end_is_unreadable(told: Any) -> None:
    parts = seeing(eyes(lambda body: told))
    with served(parts.gateway) as url:
        assert code(post(url, asking([picture("a cat")]))) == UNREAD
    written = record(parts)
    assert written["read"][0][-1] == "unread" and written["unread"][0]["what"] == "media"  # type: ignore[index]


@dataclass(frozen=True)
class Slow:
    """A reader that does not come to an end."""

    upstream: Upstream
    name: str = "slow"
    seconds: float = 0.05
    most_bytes: int = 600

    async def words(self, media: Media) -> str:
        await anyio.sleep(600)
        return "never"


def test_a_reader_that_is_slow_is_not_waited_for() -> None:
    parts = Parts(readers=MediaReaders({MediaKind.IMAGE: Slow(eyes())}))
    with served(parts.gateway) as url:
        assert code(post(url, asking([picture("a cat")]))) == UNREAD


CAT = encoded("a cat")


@pytest.mark.parametrize(
    "piece",
    [
        {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}},
        {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{CAT},{CAT}"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64, {CAT}"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;charset=x;base64,{CAT}"}},
        {"type": "image_url", "image_url": {"url": "data:image/png,a%20cat"}},
        {"type": "image_url", "image_url": {"url": f"data:text/html;base64,{CAT}"}},
        picture("a cat", caption="something forbidden"),
        picture("a cat", detail="something forbidden"),
        picture("a cat" * 300),
        {"type": "input_audio", "input_audio": {"data": CAT, "format": "wav", "transcript": "forbidden"}},
        {"type": "input_audio", "input_audio": {"data": CAT, "format": "exe"}},
        file("a cat", "application/pdf", file_id="file-1"),
    ],
)
def test_what_does_not_stand_alone_in_the_body_is_asked_of_nobody(piece: Json) -> None:
    upstream = eyes()
    parts = seeing(upstream)
    with served(parts.gateway) as url:
        assert code(post(url, asking([piece]))) == UNREAD
    assert upstream.asked == []


def test_what_was_read_once_is_not_read_again_and_what_failed_is() -> None:
    upstream = eyes(lambda body: UpstreamError("busy") if len(upstream.asked) == 1 else sight(body))
    parts = seeing(upstream)
    with served(parts.gateway) as url:
        answers = [post(url, asking([picture("a cat"), picture("a cat")])).status_code for _ in range(4)]
    assert answers == [400, 200, 200, 200] and len(upstream.asked) == 2


def test_no_request_has_more_than_sixteen_pieces_read() -> None:
    upstream = eyes()
    parts = seeing(upstream)
    with served(parts.gateway) as url:
        assert code(post(url, asking([picture(f"cat {n}") for n in range(17)]))) == UNREAD
    assert len(upstream.asked) == 16


def test_a_number_in_a_picture_cannot_be_masked_there() -> None:
    parts = seeing(guards=(PersonalData(),), policy=blocking(Action.REWRITE, Rewrite.MASK))
    with served(parts.gateway) as url:
        reply = post(url, asking([picture("11010519491231002X")]))
    assert parts.upstream.asked == []  # type: ignore[attr-defined]
    assert reply.status_code == 200 and record(parts)["outcome"] == "rewritten"


@pytest.mark.parametrize(
    ("piece", "text"),
    [
        (file("plain words"), "plain words"),
        (file("a,b", "text/csv", filename="a.csv"), "a,b"),
        (file("plain words", filename="a.pdf"), None),
        (file("%PDF-1.7 plain words"), None),
        (file("plain\0words"), None),
        (file("plain words", "text/html"), None),
        (file("plain words", file_id="file-1"), None),
        ({"type": "file", "file": {"file_data": "data:text/plain;base64,/w=="}}, None),
        (picture("plain words"), None),
    ],
)
def test_a_file_of_plain_text_is_read_without_a_model(piece: Json, text: str | None) -> None:
    parts = Chat().read_request(asking([piece])).judged
    assert [part.text for part in parts if part.path[-1] in ("file", "image_url")] == [text]


def test_a_forbidden_word_in_a_file_of_plain_text_is_found() -> None:
    with served(Parts().gateway) as url:
        assert post(url, asking([file("fine words")])).status_code == 200
        assert code(post(url, asking([file("something forbidden")]))) == UNREAD


def test_a_sound_is_transcribed_by_a_speech_model_over_a_socket() -> None:
    with faulty_thread(answer({"text": "something forbidden"}), answer({"text": "fine"})) as provider:
        upstream = OpenAICompatible("ears", Endpoint(provider.url))
        parts = Parts(readers=MediaReaders({MediaKind.AUDIO: Transcriber(upstream, "hear")}))
        with served(parts.gateway) as url:
            assert code(post(url, asking([sound("a bad sound")]))) == UNREAD
            assert post(url, asking([sound("a good one")])).status_code == 200
            assert code(post(url, asking([picture("fine")]))) == UNREAD
        asked = provider.requests
    assert [request.path for request in asked] == ["/v1/audio/transcriptions"] * 2
    assert asked[0].headers["content-type"].startswith("multipart/form-data; boundary=")
    head = f"Content-Type: {asked[0].headers['content-type']}\r\n\r\n"
    form = message_from_bytes(head.encode() + asked[0].body)
    found = {str(part.get_param("name", header="content-disposition")): part.get_payload() for part in form.walk()}
    assert (found["model"], found["file"], found["response_format"]) == ("hear", "a bad sound", "json")
    assert parts.sink.records[0].line()["read"][0][-1] == "read by ears/hear"
