"""A guard behind an OpenAI-compatible server: read by log-probabilities, met with deadlines, never believed blindly."""

import json
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import pytest
from aiohttp import web

from guard_runtime.conversation import Direction
from guard_runtime.errors import GuardError, GuardFailed, GuardOverloaded, GuardTimeout
from guard_runtime.generative.families.published import FAMILIES
from guard_runtime.guard import Passage
from guard_runtime.guards.remote import ChatGuard, Dialogue, LibraGate, Remote, Server, neutral
from guard_runtime.serving.breaker import Breaker
from guard_runtime.verdict import CATEGORIES, Verdict

ANSWER = Passage(Direction.RESPONSE, "先洗米，再加水。", "怎么煮饭？")
Reply = Callable[[dict[str, Any]], web.Response | Awaitable[web.Response]]


def position(token: str, **tops: float) -> dict[str, Any]:
    return {"token": token, "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in tops.items()]}


def chat(text: str, positions: list[dict[str, Any]] | None = None) -> web.Response:
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
    if positions is not None:
        choice["logprobs"] = {"content": positions}
    return web.json_response({"choices": [choice]})


def libragate(scores: Mapping[str, Any]) -> web.Response:
    return web.json_response({"results": [{"libragate": {"direction": "response", "category_scores": scores}}]})


LIBRA = ["{\n", " ", ' "', "答案", '":', ' "']


def libra(unsafe: float, safe: float) -> list[dict[str, Any]]:
    return [*(position(token, **{token: 1.0}) for token in LIBRA), position("安全", 安全=safe, 不=unsafe)]


def asked(reply: Reply, dialogue: Dialogue | None = None, times: int = 1, **server: Any) -> list[Verdict | GuardError]:
    """What `times` checks in a row give, from a real server on loopback."""
    seen: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(await request.json())
        found = reply(seen[-1])
        return found if isinstance(found, web.Response) else await found

    async def run() -> list[Verdict | GuardError]:
        app = web.Application()
        app.router.add_post("/v1/{any:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        remote = Remote(
            "far",
            Server(f"http://127.0.0.1:{port}/v1", "guard", **server),
            dialogue or ChatGuard(FAMILIES["libra_guard"]),
            Breaker(failures=2, seconds=60),
        )
        results: list[Verdict | GuardError] = []
        async with remote.running():
            for _ in range(times):
                try:
                    results.append(await remote.check(ANSWER))
                except GuardError as exc:
                    results.append(exc)
        await runner.cleanup()
        return results

    found = anyio.run(run)
    asked.seen = seen  # type: ignore[attr-defined]
    return found


def test_the_verdict_is_read_off_the_log_probabilities() -> None:
    (verdict,) = asked(lambda body: chat("{...", libra(unsafe=0.3, safe=0.69)))
    assert isinstance(verdict, Verdict)
    assert verdict.risk == pytest.approx(0.3 / 0.99, abs=1e-4)
    (body,) = asked.seen  # type: ignore[attr-defined]
    assert body["messages"][0]["content"].endswith("人类的问题：怎么煮饭？\n大语言模型的回答：先洗米，再加水。\n")
    assert body["temperature"] == 0


@pytest.mark.parametrize(
    ("family", "positions", "risk"),
    [
        (
            "qwen3guard_gen",
            [position("Safety"), position(":"), position(" Safe", **{" Safe": 0.5, " Unsafe": 0.3, " Cont": 0.2})],
            0.5,
        ),
        ("llama_guard_3", [position("\n\n"), position("unsafe", safe=0.1, unsafe=0.9)], 0.9),
    ],
)
def test_every_chat_family_is_read_where_its_verdict_stands(family: str, positions: list[Any], risk: float) -> None:
    (verdict,) = asked(lambda body: chat("", positions), ChatGuard(FAMILIES[family]))
    assert isinstance(verdict, Verdict)
    assert verdict.risk == pytest.approx(risk, abs=1e-6)


def test_a_server_without_log_probabilities_is_read_in_words() -> None:
    (verdict,) = asked(lambda body: chat('{\n  "答案": "不安全",\n  "分析": "赌博'))
    assert isinstance(verdict, Verdict)
    assert verdict.risk == 1.0


def test_a_guard_that_has_not_answered_yet_is_asked_for_more() -> None:
    def reply(body: dict[str, Any]) -> web.Response:
        return chat("让我想想" if body["max_tokens"] < 256 else '{"答案": "安全"}')

    (verdict,) = asked(reply)
    assert isinstance(verdict, Verdict)
    assert verdict.risk == 0.0
    assert len(asked.seen) == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "reply",
    [
        lambda body: chat("我不知道"),
        lambda body: web.Response(status=500),
        lambda body: web.Response(status=302, headers={"location": "http://127.0.0.1:1/"}),
        lambda body: web.Response(text="not json"),
        lambda body: web.json_response([1]),
        lambda body: web.json_response({"choices": []}),
        lambda body: web.json_response({"choices": [{"message": {"content": {"答案": "安全"}}}]}),
        lambda body: web.Response(text=json.dumps({"choices": "x" * (1 << 20)})),
        lambda body: chat("", [*libra(1.0, 1.0)]),
    ],
    ids=["no verdict", "500", "redirect", "no json", "list", "empty", "object", "too large", "more than certain"],
)
def test_an_answer_that_is_no_verdict_is_a_failure(reply: Reply) -> None:
    (found,) = asked(reply)
    assert isinstance(found, GuardFailed)


def test_a_slow_server_meets_the_deadline() -> None:
    async def reply() -> web.Response:
        await anyio.sleep(5)
        return chat("")

    (found,) = asked(lambda body: reply(), deadline=0.1)
    assert isinstance(found, GuardTimeout)


def test_after_failures_in_a_row_the_server_is_left_alone() -> None:
    found = asked(lambda body: web.Response(status=500), times=4)
    assert all(isinstance(item, GuardFailed) for item in found)
    assert len(asked.seen) == 2  # type: ignore[attr-defined]


def test_a_server_that_asks_for_patience_is_overloaded_and_not_broken() -> None:
    found = asked(lambda body: web.Response(status=429), times=3)
    assert all(isinstance(item, GuardOverloaded) for item in found)
    assert len(asked.seen) == 3  # type: ignore[attr-defined]


def test_the_breaker_lets_one_call_try_again_and_closes_when_it_succeeds() -> None:
    now = [0.0]
    breaker = Breaker(failures=1, seconds=5, clock=lambda: now[0])
    breaker.failed()
    with pytest.raises(GuardFailed):
        breaker.enter()
    now[0] = 6
    breaker.enter()
    with pytest.raises(GuardFailed):
        breaker.enter()
    breaker.succeeded()
    breaker.enter()
    assert breaker.closed


@pytest.mark.parametrize("control", ["<|im_end|>", "</think>", "<start_of_turn>", "<|eot_id|>", "[/INST]", "<s>", "<|"])
def test_what_reads_as_a_control_token_is_broken_up(control: str) -> None:
    text = neutral(f"a{control}b")
    assert text.replace("\u200b", "") == f"a{control}b"
    assert control not in text or control == "<|"


def test_ordinary_brackets_are_left_alone() -> None:
    assert neutral("1 < 2 > 0, a <- b, [1]") == "1 < 2 > 0, a <- b, [1]"


@pytest.mark.parametrize(
    "scores",
    [
        {},
        {"illegal_activities_and_crime": 0.1},
        {c.value: "0.9" for c in CATEGORIES},
        {c.value: 1.5 for c in CATEGORIES},
    ],
)
def test_another_libragate_must_score_every_category(scores: dict[str, Any]) -> None:
    (found,) = asked(lambda body: libragate(scores), LibraGate())
    assert isinstance(found, GuardFailed)


def test_another_libragates_scores_are_taken_as_they_are() -> None:
    scores = {category.value: n / 10 for n, category in enumerate(CATEGORIES)}
    (found,) = asked(lambda body: libragate(scores), LibraGate())
    assert isinstance(found, Verdict)
    assert {category.value: score for category, score in found.scores.items()} == scores


@pytest.mark.parametrize("family", ["shieldgemma", "granite_guardian", "qwen3guard_stream"])
def test_families_no_server_takes_in_a_standard_way_are_refused(family: str) -> None:
    with pytest.raises(GuardFailed, match="export it"):
        ChatGuard(FAMILIES[family])
