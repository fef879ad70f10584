"""A guard's explanation reaches the audit log alone: afterwards, where text is recorded, and nobody waits for it."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import anyio
import httpx
import pytest

from gateway.api.app import create_app
from gateway.api.runtime import Gateway
from gateway.config.loader import Config, load_config
from gateway.config.schema import GenerativeFile
from gateway.errors import ConfigError
from gateway.judging.judge import Judge, Judgement
from gateway.policy.policy import Action, Decision, Reason
from gateway.records.explanations import ExplanationWorker
from gateway.records.record import Explanation, LogSink, MemorySink, Outcome, Record
from gateway.wiring import gateway_of, require_explanations
from guard_runtime.conversation import Conversation, Direction
from guard_runtime.errors import GuardFailed
from guard_runtime.guard import ExplainingGuard
from guard_runtime.guards.cascade import Band, Cascade
from guard_runtime.guards.passage_guard import PassageGuard
from guard_runtime.guards.scripted import ScriptedGuard
from guard_runtime.serving.batcher import Batcher
from guard_runtime.serving.verdict_cache import VerdictCache
from guard_runtime.verdict import CATEGORIES
from tests.support.gateway_server import BAD, KEY, Parts, blocking

ASKED = {"model": "m", "messages": [{"role": "user", "content": "Tell me something forbidden."}]}
FINE = {"model": "m", "messages": [{"role": "user", "content": "Tell me something nice."}]}


class Explaining:
    """Says what it is told; without words it thinks for ever."""

    name = "wordy"

    def __init__(self, text: str | None = "because", error: Exception | None = None) -> None:
        self.asked: list[Conversation] = []
        self._text = text
        self._error = error

    async def explain(self, conversation: Conversation) -> str:
        self.asked.append(conversation)
        if self._error is not None:
            raise self._error
        if self._text is None:
            await anyio.sleep_forever()
        return self._text or ""


def record(*, text: dict[str, list[str]] | None, action: Action = Action.LOG, id: str = "r1") -> Record:
    decision = Decision(action, Reason.GUARD_FAILURE, Direction.RESPONSE)
    return Record(
        id=id, outcome=Outcome.ALLOWED, status=200, dialect="chat", tenant="shop", text=text,
        judgements=((Direction.RESPONSE, Judgement(decision, (decision,))),),
    )  # fmt: skip


SAID = {"prompt": ["怎么煮饭？"], "response": ["先洗米。"]}


async def asked(gateway: Gateway, bodies: Sequence[object], until: int) -> list[int]:
    """The statuses of these requests; then the loop runs until so many explanations are there."""
    app = create_app(gateway)
    statuses = []
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            for body in bodies:
                reply = await client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {KEY}"})
                statuses.append(reply.status_code)
            (sink,) = gateway.runtime.sinks or ()
            assert isinstance(sink, MemorySink)
            await anyio.wait_all_tasks_blocked()
            assert len(sink.explanations) == until
    return statuses


def gateway(guard: Explaining, *, record_text: bool = True) -> tuple[Gateway, MemorySink]:
    parts = Parts(policy=blocking(record_text=record_text))
    made = parts.gateway
    made.runtime = replace(made.runtime, explaining=(guard,))
    return made, parts.sink


def test_a_blocked_prompt_is_explained_in_the_audit_log() -> None:
    guard = Explaining("因为它要违禁的东西")
    made, sink = gateway(guard)
    assert anyio.run(asked, made, [ASKED, FINE], 1) == [400, 200]
    (found,) = sink.explanations
    assert (found.id, found.guard, found.direction) == (sink.records[0].id, "wordy", Direction.PROMPT)
    assert found.text == "因为它要违禁的东西"
    assert [part.text for part in guard.asked[0].judged] == ["Tell me something forbidden."]


def test_a_guard_that_thinks_for_ever_delays_no_caller_and_no_shutdown() -> None:
    guard = Explaining(None)
    made, sink = gateway(guard)
    assert anyio.run(asked, made, [ASKED] * 5, 0) == [400] * 5
    assert len(sink.records) == 5
    assert not sink.explanations


def test_without_recorded_text_nothing_is_asked_and_nothing_is_written() -> None:
    guard = Explaining()
    made, sink = gateway(guard, record_text=False)
    assert anyio.run(asked, made, [ASKED], 0) == [400]
    assert not guard.asked
    assert not sink.explanations


def analyst_of(guard: Explaining, most: int = 2) -> tuple[ExplanationWorker, MemorySink]:
    sink = MemorySink()
    return ExplanationWorker([guard], [sink], most=most), sink


def test_what_does_not_fit_is_dropped_and_counted() -> None:
    guard = Explaining(None)
    analyst, _ = analyst_of(guard)

    async def scenario() -> None:
        async with analyst.running():
            analyst.write(record(text=SAID))
            await anyio.wait_all_tasks_blocked()
            for _ in range(5):
                analyst.write(record(text=SAID))
            await anyio.wait_all_tasks_blocked()

    anyio.run(scenario)
    assert len(guard.asked) == 1
    assert analyst.counts() == {"explained": 0, "silent": 0, "failed": 0, "dropped": 3}


@pytest.mark.parametrize("error", [GuardFailed("no verdict"), ValueError("a bug")])
def test_an_explanation_that_fails_is_counted_and_the_next_one_is_asked_for(error: Exception) -> None:
    guard = Explaining(error=error)
    analyst, sink = analyst_of(guard)

    async def scenario() -> None:
        async with analyst.running():
            for id in ("r1", "r2"):
                analyst.write(record(text=SAID, id=id))
            await anyio.wait_all_tasks_blocked()

    anyio.run(scenario)
    assert len(guard.asked) == 2
    assert analyst.counts()["failed"] == 2
    assert not sink.explanations


def test_one_that_takes_too_long_is_given_up() -> None:
    sink = MemorySink()
    analyst = ExplanationWorker([Explaining(None)], [sink], seconds=0)

    async def scenario() -> None:
        async with analyst.running():
            analyst.write(record(text=SAID))
            await anyio.sleep(0.02)

    anyio.run(scenario)
    assert analyst.counts()["failed"] == 1


def test_an_answer_is_explained_in_the_context_of_its_question_and_only_where_the_policy_acted() -> None:
    guard = Explaining()
    analyst, sink = analyst_of(guard)

    async def scenario() -> None:
        async with analyst.running():
            analyst.write(record(text=SAID))
            analyst.write(record(text=SAID, action=Action.ALLOW))
            await anyio.wait_all_tasks_blocked()

    anyio.run(scenario)
    (conversation,) = guard.asked
    assert conversation.direction is Direction.RESPONSE
    assert conversation.question == "怎么煮饭？"
    assert [part.text for part in conversation.judged] == ["先洗米。"]
    assert len(sink.explanations) == 1


def test_a_guard_with_nothing_to_say_leaves_no_line() -> None:
    analyst, sink = analyst_of(Explaining(""))

    async def scenario() -> None:
        async with analyst.running():
            analyst.write(record(text=SAID))
            await anyio.wait_all_tasks_blocked()

    anyio.run(scenario)
    assert analyst.counts()["silent"] == 1
    assert not sink.explanations


def test_the_audit_line_is_one_json_object() -> None:
    stream = io.TextIOWrapper(io.BytesIO())
    LogSink(stream).explained(Explanation("r1", "shop", "wordy", Direction.RESPONSE, "因为"))
    line = json.loads(stream.buffer.getvalue())  # type: ignore[attr-defined]
    assert line["event"] == "analysis"
    assert (line["id"], line["tenant"], line["guard"], line["direction"]) == ("r1", "shop", "wordy", "response")
    assert line["text"] == "因为"


POLICY = "refusal: {zh: 抱歉, en: Sorry}\nrules:\n" + "".join(
    f"  {category}: {{prompt: [{{at: 0.8, do: block}}], response: [{{at: 0.8, do: block}}]}}\n"
    for category in CATEGORIES
)
WORDS = "{kind: generative, name: libra, path: libra, analysis: true}"
REST = "upstreams: {up: {kind: scripted}}\nmodels: {m: {upstream: up}}\ntenants: {a: {policy: base, key_variable: K}}\n"


def configured(folder: Path, guard: str) -> Config:
    (folder / "policies").mkdir(parents=True)
    (folder / "policies/base.yaml").write_text(POLICY, "utf-8")
    (folder / "config.yaml").write_text(f"{REST}guards: [{guard}]\n", "utf-8")
    return load_config(folder / "config.yaml", {})


def explained(explainer: ExplainingGuard | None = None) -> PassageGuard:
    model = ScriptedGuard(BAD, name="libra")
    batcher = Batcher(model, name="libra")  # type: ignore[arg-type]
    return PassageGuard(model, batcher, VerdictCache(0, b"k"), explainer=explainer)


def test_only_guards_with_an_explainer_are_asked_why(tmp_path: Path) -> None:
    explainer = Explaining()
    config = configured(tmp_path, "{kind: scripted}")
    assert gateway_of(config, Judge([explained(explainer)]), "0").runtime.explaining == [explainer]
    assert gateway_of(config, Judge([explained()]), "0").runtime.explaining == []


def test_a_guard_that_cannot_say_why_stops_the_start(tmp_path: Path) -> None:
    (asked,) = configured(tmp_path / "on", WORDS).guards
    (silent,) = configured(tmp_path / "off", WORDS.replace("true", "false")).guards
    assert isinstance(asked, GenerativeFile)
    assert isinstance(silent, GenerativeFile)
    with pytest.raises(ConfigError, match="guard libra: analysis: this guard writes no explanation -- use libra_guard"):
        require_explanations(asked, explained())
    require_explanations(asked, explained(Explaining()))
    require_explanations(silent, explained())


def test_the_larger_guard_of_a_cascade_is_asked_why(tmp_path: Path) -> None:
    explainer = Explaining()
    pair = Cascade(ScriptedGuard(BAD), explained(explainer), Band(0.2, 0.8), name="pair")
    assert gateway_of(configured(tmp_path, "{kind: scripted}"), Judge([pair]), "0").runtime.explaining == [explainer]
