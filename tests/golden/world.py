"""The scripted policies, guards and upstreams that golden cases name: the only file here that imports the gateway.

Whatever could depend on time is taken out: windows fill by length and never by waiting, and between any two events of
a stream the event loop turns so often that everything the gateway can do with the first has been done.
"""

import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api.app import create_app
from gateway.dialects.dialect import Event, Json
from gateway.errors import UpstreamError, UpstreamTimeout
from gateway.policy.policy import (
    Action,
    DirectionPolicy,
    OnBlock,
    Policy,
    Rewrite,
    Rule,
    StreamMode,
    StreamSettings,
)
from gateway.policy.sources import History, Sources, Treatment
from gateway.tenants.limits import Limits
from gateway.upstreams.errors import provider_error
from gateway.upstreams.upstream import Pause, Scripted, Step
from guard_runtime.conversation import Conversation
from guard_runtime.errors import GuardFailed, GuardOverloaded
from guard_runtime.guard import Guard
from guard_runtime.guards.scripted import ScriptedGuard, words
from guard_runtime.verdict import CATEGORIES, Category, Coverage, Span, Unread, UnreadReason, Verdict
from tests.gateway.dialects import full_embeddings
from tests.gateway.dialects.choices import full_chat, full_completions
from tests.gateway.dialects.messages import full_messages
from tests.gateway.dialects.responses import full_responses
from tests.golden import answers
from tests.support.gateway_server import Parts

CRIME = Category.ILLEGAL_ACTIVITIES_AND_CRIME
HATE = Category.HATE_SPEECH_AND_ABUSE
PRIVACY = Category.PRIVACY_AND_PROPERTY
LIMITS = Limits(body_bytes=20_000, messages=40)
WORLD = "x-golden-world"
"""The header by which a request names its world; the gateway does not get to see it."""
SETTLED = 60
"""Turns of the event loop between two events: many more than a check takes."""
DONE = Event(None)
AGAIN = "Answer again, politely."

# Small windows, so that a short answer takes several checks; `release_after` is longer than any case, so that a check
# starts because of what has come and never because of when.
STREAM = StreamSettings(first_window=4, window=4, max_window=8, overlap=12, release_after=60.0)


@dataclass(frozen=True)
class World:
    """What a case is played against, by name; `dialect` is the dialect in which the upstream answers."""

    policy: str = "block"
    guard: str = "words"
    upstream: str = "harmless"
    dialect: str = "chat"

    @property
    def parts(self) -> Parts:
        return Parts(
            guards=GUARDS[self.guard](),
            upstream=SCRIPTS[self.upstream](self.dialect),
            policy=POLICIES[self.policy],
            limits=LIMITS,
            deadline=0.3 if self.guard == "silent" else 30.0,
        )


def scripted(parts: Parts) -> Scripted:
    assert isinstance(parts.upstream, Scripted)
    return parts.upstream


def application(worlds: Mapping[str, Parts]) -> ASGIApp:
    """Every world's gateway, side by side in one application: a server for each would take most of the time."""
    apps = {name: create_app(parts.gateway) for name, parts in worlds.items()}

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for one in apps.values():
                await stack.enter_async_context(one.router.lifespan_context(one))
            yield

    together = Starlette(lifespan=lifespan)

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await together(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name != WORLD.encode()]
        world = next(value for name, value in scope["headers"] if name == WORLD.encode())
        await apps[world.decode()]({**scope, "headers": headers}, receive, send)

    return dispatch


JUDGED_ANEW = Sources(history=History.ALWAYS)
"""No request's record depends on what was let through before it."""


def _policy(action: Action = Action.BLOCK, rewrite: Rewrite = Rewrite.SAFE_MESSAGE, **options: Any) -> Policy:
    failing = {key: options.pop(key) for key in ("on_guard_failure", "on_unreadable") if key in options}
    rules = DirectionPolicy(
        {category: (Rule(0.5, action, rewrite, "golden.yaml:1"),) for category in CATEGORIES}, **failing
    )
    options.setdefault("sources", JUDGED_ANEW)
    return Policy(
        **{"name": "golden", "hash": "0123456789ab", "prompt": rules, "response": rules, "stream": STREAM, **options}
    )


LETS_THROUGH = DirectionPolicy()
_MASKS = _policy(Action.REWRITE, Rewrite.MASK).response
_IDLE = replace(STREAM, idle_timeout=1.0)
_ASYNC = replace(STREAM, mode=StreamMode.ASYNC)

POLICIES: Mapping[str, Policy] = {
    "block": _policy(),
    "no_rules": _policy(prompt=LETS_THROUGH, response=LETS_THROUGH),
    "log": _policy(Action.LOG),
    "completion": _policy(on_block=OnBlock.COMPLETION),
    "safe_message": _policy(Action.REWRITE),
    "safe_answer": _policy(Action.REWRITE, prompt=LETS_THROUGH),
    "mask": _policy(Action.REWRITE, Rewrite.MASK),
    "mask_some": _policy(
        response=DirectionPolicy({**_MASKS.rules, CRIME: (Rule(0.5, Action.BLOCK, place="golden.yaml:2"),)})
    ),
    "regenerate": _policy(Action.REWRITE, Rewrite.REGENERATE, regenerate_instruction={"en": AGAIN, "zh": AGAIN}),
    "regenerate_twice": _policy(
        Action.REWRITE, Rewrite.REGENERATE, regenerate_instruction={"en": AGAIN, "zh": AGAIN}, max_regenerations=2
    ),
    "own_words": _policy(refusal={"en": "We do not talk about that.", "zh": "我们不谈这个。"}),
    "own_words_completion": _policy(on_block=OnBlock.COMPLETION, refusal={"en": "No.", "zh": "不行。"}),
    "fail_open": _policy(on_guard_failure=Action.ALLOW),
    "fail_logged": _policy(on_guard_failure=Action.LOG),
    "fail_safe_message": _policy(on_guard_failure=Action.REWRITE),
    "unreadable_allowed": _policy(on_unreadable=Action.ALLOW),
    "unreadable_logged": _policy(on_unreadable=Action.LOG),
    "unreadable_safe_message": _policy(on_unreadable=Action.REWRITE),
    "trust_system": _policy(sources=replace(JUDGED_ANEW, system=Treatment.TRUST)),
    "trust_tools": _policy(sources=replace(JUDGED_ANEW, tools=Treatment.TRUST)),
    "record_text": _policy(record_text=True),
    "record_text_masked": _policy(Action.REWRITE, Rewrite.MASK, record_text=True),
    "scores": _policy(expose_scores=True),
    "scores_logged": _policy(Action.LOG, expose_scores=True),
    "annotated": _policy(annotations=True),
    "annotated_logged": _policy(Action.LOG, annotations=True),
    "annotated_completion": _policy(annotations=True, on_block=OnBlock.COMPLETION),
    "annotated_fail_open": _policy(annotations=True, on_guard_failure=Action.ALLOW),
    "async": _policy(stream=_ASYNC),
    "async_masks": _policy(Action.REWRITE, Rewrite.MASK, stream=_ASYNC),
    "idle": _policy(stream=_IDLE),
}


def _scores(text: str) -> Mapping[Category, float]:
    return {**words({"forbidden": CRIME, "禁忌": CRIME})(text), **words({"hateful": HATE}, 0.7)(text)}


def _failing_on(word: str, error: Exception) -> Callable[[], Sequence[Guard]]:
    def script(text: str) -> Mapping[Category, float]:
        if word in text:
            raise error
        return _scores(text)

    return lambda: (ScriptedGuard(script),)


class _Marking(ScriptedGuard):
    """Marks every `secret-` with the digits behind it."""

    def __init__(self, *, marks: bool = True) -> None:
        super().__init__(_scores, name="marking")
        self._marks = marks

    async def check(self, conversation: Conversation) -> Verdict:
        verdict = await super().check(conversation)
        spans = tuple(
            Span(part.path, found.start(), found.end(), PRIVACY, "secret")
            for part in conversation.judged
            for found in re.finditer(r"secret-\d+", part.text or "")
        )
        scores = {**verdict.scores, PRIVACY: 0.9 if spans else 0.0}
        return Verdict(self.name, scores, spans if self._marks else (), verdict.coverage)


class _Partial(ScriptedGuard):
    """Says that it did not read to the end."""

    async def check(self, conversation: Conversation) -> Verdict:
        verdict = await super().check(conversation)
        unread = tuple(Unread(part.path, UnreadReason.TOO_LONG, 7) for part in conversation.judged)
        return Verdict(self.name, verdict.scores, (), verdict.coverage + Coverage(unread=unread))


class _Silent(ScriptedGuard):
    async def check(self, conversation: Conversation) -> Verdict:
        await anyio.sleep_forever()
        raise AssertionError("for ever has ended")


class _Dead(ScriptedGuard):
    @asynccontextmanager
    async def running(self) -> AsyncIterator[ScriptedGuard]:
        self.ready = False
        yield self


GUARDS: Mapping[str, Callable[[], Sequence[Guard]]] = {
    "words": lambda: (ScriptedGuard(_scores),),
    "two": lambda: (ScriptedGuard(_scores), _Marking()),
    "none": lambda: (),
    "marking": lambda: (_Marking(),),
    "marking_nothing": lambda: (_Marking(marks=False),),
    "partial": lambda: (_Partial(_scores),),
    "silent": lambda: (_Silent(_scores),),
    "dead": lambda: (_Dead(_scores, name="dead"), ScriptedGuard(_scores)),
    "down": _failing_on("", GuardFailed("out of order")),
    "overloaded": _failing_on("", GuardOverloaded("the queue is full")),
    "down_on_answers": _failing_on("answer", GuardFailed("out of order")),
    "down_later": _failing_on("later", GuardFailed("out of order")),
    "buggy": _failing_on("", RuntimeError("a bug in the guard")),
    "buggy_on_answers": _failing_on("answer", RuntimeError("a bug in the guard")),
    "buggy_later": _failing_on("later", RuntimeError("a bug in the guard")),
}

HARMLESS = "A harmless answer. 好的，没问题。It goes on for a while, and then it ends."
BAD = "A forbidden answer."
TURNS_BAD = "A good beginning of an answer. It goes on for a while. Later comes a forbidden thing. And an end."
LATER = "A good beginning of an answer. It goes on for a while. And later it comes to its end."
SECRETS = "The answer is secret-123456, and then for some time nothing more. Also secret-77 stands here."


def _settled(events: Iterable[Step]) -> list[Step]:
    return [step for event in events for step in (event, *[Pause(0.0)] * SETTLED)]


def _events(dialect: str, body: Json, text: str) -> list[Event]:
    return [*answers.events(dialect, body, text), *_end(dialect)]


def _end(dialect: str) -> list[Event]:
    return [DONE] if dialect in ("chat", "completions") else []


Build = Callable[[str], Scripted]


def _saying(text: str, then: str | None = None) -> Build:
    """Answers with `text`; with `then` where it is asked again."""

    def build(dialect: str) -> Scripted:
        def chosen(body: Json) -> str:
            return then if then is not None and AGAIN in str(body) else text

        return Scripted(
            "scripted",
            lambda body: answers.answer(dialect, body, chosen(body)),
            lambda body: _settled(_events(dialect, body, chosen(body))),
        )

    return build


def _failing(error: UpstreamError) -> Build:
    return lambda dialect: Scripted("scripted", lambda body: error, lambda body: [error])


def _broken(change: Callable[[list[Event]], list[Step]], text: str = HARMLESS) -> Build:
    """Streams that are not as they should be: `change` is given the events of a good one."""
    return lambda dialect: Scripted(
        "scripted",
        lambda body: answers.answer(dialect, body, text),
        lambda body: _settled(change(_events(dialect, body, text))),
    )


def _giving(whole: Any, *steps: Step) -> Build:
    """Exactly this answer, and exactly these events, whatever was asked."""
    return lambda dialect: Scripted("scripted", lambda body: whole, lambda body: _settled(steps))


def _full(dialect: str) -> Scripted:
    """Every field of an answer and every event of a stream that there is."""
    bodies: Mapping[str, Any] = {
        "chat": full_chat,
        "completions": full_completions,
        "messages": full_messages,
        "responses": full_responses,
        "embeddings": full_embeddings,
    }
    told = bodies[dialect]
    return Scripted("scripted", lambda body: told.ANSWER, lambda body: _settled([*told.EVENTS, *_end(dialect)]))


def _calling(arguments: str, *pieces: str) -> Build:
    return _giving(answers.chat(answers.call(arguments), finish="tool_calls"), *answers.call_deltas(*pieces), DONE)


_NAMELESS = Event({"type": "no_such_event", "text": "who knows"}, "no_such_event")
_UNKNOWN_FIELD = full_chat.chunk(full_chat.piece(0, {"content": "ok", "whisper": "psst"}))
_REASONING = {"role": "assistant", "content": "The answer.", "reasoning_content": "I think, therefore."}
_BAD_REASONING = {"role": "assistant", "content": "The answer.", "reasoning_content": "A forbidden thought."}
_ERROR_EVENT = Event({"error": {"message": "overloaded", "type": "server_error", "code": "overloaded"}})

SCRIPTS: Mapping[str, Build] = {
    "harmless": _saying(HARMLESS),
    "bad": _saying(BAD),
    "turns_bad": _saying(TURNS_BAD),
    "later": _saying(LATER),
    "secrets": _saying(SECRETS),
    "better_then": _saying(BAD, then=HARMLESS),
    "never_better": _saying(BAD, then="Another forbidden answer."),
    "empty_text": _saying(""),
    "full": _full,
    "status_429": _failing(provider_error("p", 429, {"error": {"message": "slow down", "type": "requests"}})),
    "status_500": _failing(provider_error("p", 500, {"error": {"message": "we are sorry", "code": "oops"}})),
    "status_400": _failing(
        provider_error("p", 400, {"error": {"message": "bad seed", "param": "seed", "type": "invalid_request_error"}})
    ),
    "status_401": _failing(provider_error("p", 401, {"error": {"message": "wrong key"}})),
    "status_302": _failing(provider_error("p", 302, None)),
    "no_json": _failing(provider_error("p", 503, None)),
    "timeout": _failing(UpstreamTimeout("The model's provider gave no answer within 120 seconds.")),
    "not_an_answer": _giving({"hello": "world"}, Event({"hello": "world"}), DONE),
    "no_choices": _giving(answers.chat(), full_chat.chunk(), DONE),
    "wrong_types": _giving({**answers.chat(), "choices": "none"}, Event({"choices": "none"}), DONE),
    "unknown_field": _giving(answers.chat({"role": "assistant", "content": "ok", "whisper": "psst"}), _UNKNOWN_FIELD),
    "dies_at_once": _broken(lambda events: [UpstreamError("The connection to the model's provider broke.")]),
    "dies": _broken(lambda events: [*events[:6], UpstreamError("The connection to the model's provider broke.")]),
    "times_out": _broken(lambda events: [*events[:6], UpstreamTimeout("The model's provider was silent.")]),
    "cut": _broken(lambda events: [*events[:6]]),
    "no_end": _broken(lambda events: [*events[:-1]]),
    "empty": _broken(lambda events: []),
    "only_end": _broken(lambda events: [DONE]),
    "silent": _broken(lambda events: [*events[:6], Pause(600.0)]),
    "error_event": _broken(lambda events: [*events[:6], _ERROR_EVENT, DONE]),
    "strange_event": _broken(lambda events: [*events[:6], _NAMELESS, *events[6:]]),
    "more_after_end": _broken(lambda events: [*events, *events[:4]]),
    "tool_call": _calling('{"city": "Lyon"}', '{"city": ', '"Lyon"}'),
    "bad_tool_call": _calling('{"city": "forbidden"}', '{"city": ', '"forbid', 'den"}'),
    "secret_tool_call": _calling('{"city": "secret-12"}', '{"city": ', '"secret-', '12"}'),
    "torn_tool_call": _calling('{"city": ', '{"city": '),
    "wrong_tool_index": _giving(answers.chat(answers.call("{}")), *answers.call_deltas("{}", index="one"), DONE),
    "two_texts": _giving(
        answers.chat({"role": "assistant", "content": "A good answer."}, {"role": "assistant", "content": BAD}),
        full_chat.chunk(full_chat.piece(0, {"role": "assistant", "content": "A good answer."})),
        full_chat.chunk(full_chat.piece(1, {"role": "assistant", "content": BAD})),
        full_chat.chunk(full_chat.piece(0, {}, "stop"), full_chat.piece(1, {}, "stop")),
        DONE,
    ),
    "reasoning": _giving(
        answers.chat(_REASONING),
        *answers.deltas({"role": "assistant", "reasoning_content": "I think."}, {"content": "The answer."}),
        DONE,
    ),
    "bad_reasoning": _giving(
        answers.chat(_BAD_REASONING),
        *answers.deltas({"role": "assistant", "reasoning_content": "A forbidden thought."}, {"content": "The answer."}),
        DONE,
    ),
    "structured": _giving(
        answers.chat({"role": "assistant", "content": '{"word": "fine"}'}),
        *answers.deltas({"role": "assistant", "content": '{"word": '}, {"content": '"fine"}'}),
        DONE,
    ),
    "bad_structured": _giving(
        answers.chat({"role": "assistant", "content": '{"word": "forbidden"}'}),
        *answers.deltas({"role": "assistant", "content": '{"word": '}, {"content": '"forbidden"}'}),
        DONE,
    ),
    "refuses": _giving(
        answers.chat({"role": "assistant", "content": None, "refusal": "I would rather not."}),
        *answers.deltas({"role": "assistant", "refusal": "I would "}, {"refusal": "rather not."}),
        DONE,
    ),
}
