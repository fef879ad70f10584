"""Personal data and secrets are found where they stand; ordinary numbers are not taken for them."""

import itertools
import time

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard_runtime.conversation import Conversation, Kind, Part, Role, Turn
from guard_runtime.guard import Guard
from guard_runtime.guards.personal_data import THRESHOLDS, PersonalData, finds
from guard_runtime.verdict import CATEGORIES, Category, Verdict

PRIVACY = Category.PRIVACY_AND_PROPERTY

# Made up, with right check digits; documented test numbers where there are any.
RESIDENT = "11010519491231002X"
CARD = "4111111111111111"
MOBILE = "13812345678"

FOUND = [
    (RESIDENT, "cn_resident_id"),
    ("11010519491231002x", "cn_resident_id"),
    ("110105 19491231 002X", "cn_resident_id"),
    ("1 1 0 1 0 5 1 9 4 9 1 2 3 1 0 0 2 X", "cn_resident_id"),
    ("１１０１０５１９４９１２３１００２Ｘ", "cn_resident_id"),  # noqa: RUF001
    (CARD, "bank_card"),
    ("4111 1111 1111 1111", "bank_card"),
    ("4111-1111-1111-1111", "bank_card"),
    ("6222 0212 3456 7890 128", "bank_card"),
    ("3782 822463 10005", "bank_card"),
    (MOBILE, "phone"),
    ("138 1234 5678", "phone"),
    ("138-1234-5678", "phone"),
    ("+86 138 1234 5678", "phone"),
    ("008613812345678", "phone"),
    ("1\u200b3\u200b8\u200b1\u200b2\u200b3\u200b4\u200b5\u200b6\u200b7\u200b8", "phone"),
    ("１３８１２３４５６７８", "phone"),  # noqa: RUF001
    ("①③⑧①②③④⑤⑥⑦⑧", "phone"),
    ("1 3 8 1 2 3 4 5 6 7 8", "phone"),
    ("010-62345678", "phone"),
    ("(021)6234 5678", "phone"),
    ("+1 415 555 2671", "phone"),
    ("+44 20 7946 0958", "phone"),
    ("415-555-2671", "phone"),
    ("zhang.san+work@mail.qq.com", "email"),
    ("ｚｈａｎｇ＠ｑｑ．ｃｏｍ", "email"),  # noqa: RUF001
    ("8.8.8.8", "ip_address"),
    ("2001:4860:4860::8888", "ip_address"),
    ("AKIAIOSFODNN7EXAMPLE", "api_key"),
    ("sk-proj-a8F3kd92Kd82jf0skdJ3k2l9dkEw", "api_key"),
    ("ghp_" + "a1B2c3D4e" * 4, "api_key"),
    ("xoxb-2149380174-8Hd73hsKq02LmZ", "api_key"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcDEF123456_-x", "jwt"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----", "private_key"),
]


@pytest.mark.parametrize(("text", "label"), FOUND)
@pytest.mark.parametrize(("before", "after"), [("", ""), ("请记住：", "，谢谢。"), ("it is ", ", thanks")])
def test_it_is_found_whole_and_where_it_stands(text: str, label: str, before: str, after: str) -> None:
    (find,) = finds(before + text + after)
    assert (find.label, find.start, find.end) == (label, len(before), len(before) + len(text))
    assert find.score >= THRESHOLDS["strict"]


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ('api_key = "9f8d7c6b5a4e3f2d1c0b9a8f7e6d5c4b"', "9f8d7c6b5a4e3f2d1c0b9a8f7e6d5c4b"),
        ("密钥：Zk3x9PqL0vWm7RtB2nYc", "Zk3x9PqL0vWm7RtB2nYc"),
        ("口令是 Zk3x9PqL0vWm7RtB2nYc 吗", "Zk3x9PqL0vWm7RtB2nYc"),
    ],
)
def test_of_a_labelled_secret_only_the_secret_is_marked(text: str, secret: str) -> None:
    (find,) = finds(text)
    assert (text[find.start : find.end], find.label) == (secret, "secret")


@pytest.mark.parametrize(
    "text",
    [
        "今天天气很好，我们去公园玩吧。",
        "订单号20231121123456",
        "订单 2023112113812345678 已发货",
        "价格 19,999.00 元，共 12 件",
        "2026-11-21 10:30:00",
        "12345678901",
        "1234567890123456",
        "身份证 110105194912310021 校验位不对",
        "0.13812345678",
        "13812345678.5",
        "a13812345678b",
        "192.168.1.1 127.0.0.1 10.0.0.1 ::1 fe80::1",
        "版本1.2.3.4 and v2.10.0.1",
        "ISBN 978-7-111-12345-6",
        "6901234567892",
        "1700000000000",
        "std::map<a,b> at 10:20:30:40",
        "sk-estimator-html-repr-doc-link-label-name",
        "api_key=your_api_key_here_please",
        "token: <YOUR_TOKEN>",
        "password: correct horse",
        "400-800-8820 95588 12306",
        "http://a.b/c@d @user",
        "3.14159265358979",
        "123-456-7890",
        "0000 0000 0000 0000",
        "1 2 3 4 5 6 7 8 9 10 11 12",
        "550e8400-e29b-41d4-a716-446655440000",
        "commit da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "-----BEGIN PUBLIC KEY-----",
        "",
    ],
)
def test_what_is_none_is_not_found(text: str) -> None:
    assert finds(text) == ()


def test_a_wrong_check_digit_is_no_id_number_and_no_card() -> None:
    assert finds("110105194912310029") == ()
    assert finds("4111111111111112") == ()


def test_finds_do_not_overlap_and_come_in_order() -> None:
    text = f"{MOBILE} {RESIDENT} a@b.co,{CARD} 8.8.8.8"
    found = finds(text)
    assert [find.label for find in found] == ["phone", "cn_resident_id", "email", "bank_card", "ip_address"]
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))


@given(
    st.lists(
        st.sampled_from([RESIDENT, MOBILE, "\u200b", "\uff11", "@", "a@b.co", "臺", ".", " ", "-", "\ud800"]),
        max_size=12,
    )
)
def test_spans_are_always_inside_the_text(pieces: list[str]) -> None:
    text = "".join(pieces)
    found = finds(text)
    assert all(0 <= find.start < find.end <= len(text) for find in found)
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))


def judged(conversation: Conversation) -> Verdict:
    return anyio.run(PersonalData().check, conversation)


def test_the_guard_scores_one_category_and_marks_each_part() -> None:
    turn = Turn(
        Role.USER, (Part(("a",), f"我的号码是{MOBILE}"), Part(("b",), None), Part(("c",), RESIDENT, Kind.TOOL_CALL))
    )
    verdict = judged(Conversation((turn,)))
    assert {category for category in CATEGORIES if verdict.scores[category]} == {PRIVACY}
    assert verdict.scores[PRIVACY] == 1.0
    assert [(span.path, span.start, span.end, span.label) for span in verdict.spans] == [
        (("a",), 5, 16, "phone"),
        (("c",), 0, 18, "cn_resident_id"),
    ]
    assert (verdict.coverage.parts, verdict.coverage.characters) == (2, 16 + 18)


def test_only_what_is_judged_is_read() -> None:
    question = Conversation((Turn(Role.USER, (Part(("q",), MOBILE),)),))
    assert judged(question).spans
    assert not judged(question.reply(Part(("a",), "ok"))).spans
    assert judged(question.reply(Part(("a",), MOBILE))).spans[0].path == ("a",)


def test_a_number_cut_in_two_parts_is_marked_in_both() -> None:
    parts = (Part(("a",), f"id {RESIDENT[:7]}"), Part(("b",), f"{RESIDENT[7:]} ok"))
    verdict = judged(Conversation((Turn(Role.USER, parts),)))
    assert [(span.path, span.start, span.end) for span in verdict.spans] == [(("a",), 3, 10), (("b",), 0, 11)]


def test_a_long_text_is_read_on_a_thread_and_to_its_end() -> None:
    text = "好" * 300_000 + RESIDENT
    (span,) = judged(Conversation((Turn(Role.USER, (Part(("a",), text),)),))).spans
    assert (span.start, span.end) == (300_000, 300_018)


def test_it_is_a_guard_with_points_of_its_own() -> None:
    guard: Guard = PersonalData()
    assert (guard.name, guard.ready, guard.queued) == ("rules", True, 0)
    for point, at in (("balanced", THRESHOLDS["balanced"]), ("strict", THRESHOLDS["strict"])):
        assert all(points == {PRIVACY: at} for points in guard.operating_points[point].values())


@pytest.mark.parametrize("piece", ["1", "13812345678 ", "a@", "-----BEGIN PRIVATE KEY-----", "key=", "+1-1-", "1-"])
def test_time_grows_with_the_text_and_no_faster(piece: str) -> None:
    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        runs = []
        for _ in range(2):
            started = time.thread_time()
            finds(text)
            runs.append(time.thread_time() - started)
        return min(runs)

    # Eight times the text: quadratic work would take 64 times as long.
    assert seconds(80_000) < 24 * max(seconds(10_000), 0.001)
