"""The golden cases, one table: what is asked, of which world."""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.gateway.dialects import full_embeddings, full_moderations
from tests.gateway.dialects.choices import full_chat, full_completions
from tests.gateway.dialects.messages import full_messages
from tests.gateway.dialects.responses import full_responses
from tests.golden.case import ANNOTATED, BEARER, OTHER_BEARER, PATHS, Case, Headers, asked
from tests.golden.world import World
from tests.support.gateway_server import KEY, OTHER_KEY

AZURE = "/openai/deployments/{}?api-version=2024-10-21"
HELLO = "Hello there."
BADLY = "Say something forbidden please."
CHINESE = "请说一些禁忌的话。"
SECRET = "My number is secret-4711, keep it."

# What happens to a request, in every dialect, plain and streamed: its text, then policy, guard and upstream.
COMMON: Mapping[str, tuple[str, str, str, str]] = {
    "allowed": (HELLO, "block", "words", "harmless"),
    "prompt_logged": (BADLY, "log", "words", "harmless"),
    "prompt_blocked": (BADLY, "block", "words", "harmless"),
    "prompt_blocked_by_a_completion": (BADLY, "completion", "words", "harmless"),
    "prompt_masked": (SECRET, "mask", "marking", "harmless"),
    "prompt_answered_by_the_safe_message": (BADLY, "safe_message", "words", "harmless"),
    "answer_logged": (HELLO, "log", "words", "turns_bad"),
    "answer_blocked": (HELLO, "block", "words", "turns_bad"),
    "answer_blocked_at_once": (HELLO, "block", "words", "bad"),
    "answer_masked": (HELLO, "mask", "marking", "secrets"),
    "answer_replaced_by_the_safe_message": (HELLO, "safe_answer", "words", "turns_bad"),
    "answer_regenerated": (HELLO, "regenerate", "words", "better_then"),
    "answer_regenerated_in_vain": (HELLO, "regenerate", "words", "never_better"),
    "guard_down": (HELLO, "block", "down", "harmless"),
    "guard_down_on_the_answer": (HELLO, "block", "down_on_answers", "harmless"),
    "guard_down_in_the_middle": (HELLO, "block", "down_later", "later"),
    "upstream_500": (HELLO, "block", "words", "status_500"),
    "everything_there_is": ("", "unreadable_allowed", "words", "full"),
}
STREAMED_ONLY: Mapping[str, tuple[str, str, str, str]] = {
    "upstream_dies": (HELLO, "block", "words", "dies"),
    "upstream_cut": (HELLO, "block", "words", "cut"),
    "upstream_empty": (HELLO, "block", "words", "empty"),
    "upstream_error_event": (HELLO, "block", "words", "error_event"),
    "upstream_strange_event": (HELLO, "block", "words", "strange_event"),
}
FULL = {
    "chat": full_chat.REQUEST,
    "completions": {**full_completions.REQUEST, "prompt": ["once upon a time"]},
    "responses": full_responses.REQUEST,
    "messages": full_messages.REQUEST,
    "embeddings": full_embeddings.REQUEST,
}


def common() -> Iterator[Case]:
    for dialect in ("chat", "completions", "responses", "messages"):
        for stream in (False, True):
            situations = {**COMMON, **STREAMED_ONLY} if stream else COMMON
            for name, (text, policy, guard, upstream) in situations.items():
                body = asked(dialect, text) if text else {**FULL[dialect], "model": "m"}
                if stream:
                    body = {**body, "stream": True}
                else:
                    body = {key: value for key, value in body.items() if key not in ("stream", "stream_options")}
                world = World(policy, guard, upstream, dialect)
                yield Case(f"{dialect}_{'streamed' if stream else 'plain'}", name, PATHS[dialect], body, world=world)


_IMAGE = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
_PICTURE = {"messages": [{"role": "user", "content": _IMAGE}]}
_SYSTEM = {"messages": [{"role": "system", "content": "be forbidden"}, {"role": "user", "content": HELLO}]}
_LATE_SYSTEM = {"messages": [*_SYSTEM["messages"], {"role": "system", "content": "be forbidden"}]}
_TOOL = {"type": "function", "function": {"name": "weather", "description": "a forbidden tool"}}
_TOOLS = {"tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]}
_SCHEMA = {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}}
_RESULT = {
    "messages": [
        {"role": "user", "content": HELLO},
        {
            "role": "assistant",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "a forbidden result"},
    ]
}

# Chat alone, plain and streamed: the body's further fields (or its text), then policy, guard and upstream.
CHAT: Mapping[str, tuple[str | dict[str, Any], str, str, str]] = {
    "chinese_blocked": (CHINESE, "block", "words", "harmless"),
    "chinese_own_words": (CHINESE, "own_words", "words", "harmless"),
    "own_words": (BADLY, "own_words", "words", "harmless"),
    "own_words_as_a_completion": (BADLY, "own_words_completion", "words", "harmless"),
    "chinese_prompt_masked": ("我的号码是 secret-99，请保密。", "mask", "marking", "harmless"),
    "no_rules": (BADLY, "no_rules", "words", "bad"),
    "no_guards": (BADLY, "block", "none", "bad"),
    "two_guards": ("forbidden secret-1", "block", "two", "harmless"),
    "hateful": ("Something hateful and forbidden.", "block", "words", "harmless"),
    "mask_without_a_span": (SECRET, "mask", "marking_nothing", "harmless"),
    "answer_mask_without_a_span": (HELLO, "mask", "marking_nothing", "secrets"),
    "answer_masked_where_only_answers_are": (HELLO, "mask_some", "marking", "secrets"),
    "regenerated_twice_in_vain": (HELLO, "regenerate_twice", "words", "never_better"),
    "guard_silent": (HELLO, "block", "silent", "harmless"),
    "guard_overloaded": (HELLO, "block", "overloaded", "harmless"),
    "guard_buggy": (HELLO, "block", "buggy", "harmless"),
    "guard_buggy_on_the_answer": (HELLO, "block", "buggy_on_answers", "harmless"),
    "guard_buggy_in_the_middle": (HELLO, "block", "buggy_later", "later"),
    "guard_down_let_through": (HELLO, "fail_open", "down", "harmless"),
    "guard_down_logged": (HELLO, "fail_logged", "down", "harmless"),
    "guard_down_safe_message": (HELLO, "fail_safe_message", "down", "harmless"),
    "guard_down_on_the_answer_safe_message": (HELLO, "fail_safe_message", "down_on_answers", "harmless"),
    "guard_partial": (HELLO, "block", "partial", "harmless"),
    "guard_partial_logged": (HELLO, "unreadable_logged", "partial", "harmless"),
    "picture_blocked": (_PICTURE, "block", "words", "harmless"),
    "picture_allowed": (_PICTURE, "unreadable_allowed", "words", "harmless"),
    "picture_logged": (_PICTURE, "unreadable_logged", "words", "harmless"),
    "picture_safe_message": (_PICTURE, "unreadable_safe_message", "words", "harmless"),
    "system_blocked": (_SYSTEM, "block", "words", "harmless"),
    "system_trusted": (_SYSTEM, "trust_system", "words", "harmless"),
    "late_system_not_trusted": (_LATE_SYSTEM, "trust_system", "words", "harmless"),
    "tool_blocked": ({"tools": [_TOOL]}, "block", "words", "harmless"),
    "tool_trusted": ({"tools": [_TOOL]}, "trust_tools", "words", "harmless"),
    "tool_result_blocked": (_RESULT, "block", "words", "harmless"),
    "tool_call": (_TOOLS, "block", "words", "tool_call"),
    "tool_call_blocked": (_TOOLS, "block", "words", "bad_tool_call"),
    "tool_call_masked": (_TOOLS, "mask", "marking", "secret_tool_call"),
    "tool_call_torn": (_TOOLS, "block", "words", "torn_tool_call"),
    "tool_call_index_wrong": (_TOOLS, "block", "words", "wrong_tool_index"),
    "structured": (_SCHEMA, "block", "words", "structured"),
    "structured_blocked": (_SCHEMA, "block", "words", "bad_structured"),
    "structured_prompt_blocked_by_a_completion": (
        {**_SCHEMA, "messages": [{"role": "user", "content": BADLY}]},
        "completion",
        "words",
        "structured",
    ),
    "structured_safe_message": (_SCHEMA, "safe_answer", "words", "bad_structured"),
    "reasoning": (HELLO, "block", "words", "reasoning"),
    "reasoning_blocked": (HELLO, "block", "words", "bad_reasoning"),
    "model_refuses": (HELLO, "block", "words", "refuses"),
    "empty_text": (HELLO, "block", "words", "empty_text"),
    "two_choices": ({"n": 2}, "block", "words", "harmless"),
    "two_choices_one_blocked": ({"n": 2}, "block", "words", "two_texts"),
    "two_choices_one_replaced": ({"n": 2}, "safe_answer", "words", "two_texts"),
    "two_choices_one_regenerated": ({"n": 2}, "regenerate", "words", "two_texts"),
    "two_choices_prompt_blocked_by_a_completion": (
        {"n": 2, "messages": [{"role": "user", "content": BADLY}]},
        "completion",
        "words",
        "harmless",
    ),
    "text_recorded": (HELLO, "record_text", "words", "harmless"),
    "text_recorded_prompt_blocked": (BADLY, "record_text", "words", "harmless"),
    "text_recorded_answer_blocked": (HELLO, "record_text", "words", "turns_bad"),
    "text_recorded_answer_masked": (SECRET, "record_text_masked", "marking", "secrets"),
    "scores_shown": (BADLY, "scores", "words", "harmless"),
    "scores_shown_logged": ("Something hateful and forbidden.", "scores_logged", "words", "bad"),
    "annotated": (HELLO, "annotated", "words", "harmless"),
    "annotated_prompt_blocked": ("Something hateful.", "annotated", "words", "harmless"),
    "annotated_prompt_blocked_by_a_completion": ("Something hateful.", "annotated_completion", "words", "harmless"),
    "annotated_answer_blocked": (HELLO, "annotated", "words", "turns_bad"),
    "annotated_logged": ("Something hateful.", "annotated_logged", "words", "turns_bad"),
    "annotated_guard_down": (HELLO, "annotated_fail_open", "down", "harmless"),
    "annotated_two_choices": ({"n": 2}, "annotated", "words", "two_texts"),
    "upstream_429": (HELLO, "block", "words", "status_429"),
    "upstream_400": (HELLO, "block", "words", "status_400"),
    "upstream_401": (HELLO, "block", "words", "status_401"),
    "upstream_302": (HELLO, "block", "words", "status_302"),
    "upstream_503_without_json": (HELLO, "block", "words", "no_json"),
    "upstream_timeout": (HELLO, "block", "words", "timeout"),
    "upstream_not_an_answer": (HELLO, "block", "words", "not_an_answer"),
    "upstream_no_choices": (HELLO, "block", "words", "no_choices"),
    "upstream_wrong_types": (HELLO, "block", "words", "wrong_types"),
    "upstream_unknown_field": (HELLO, "block", "words", "unknown_field"),
}
CHAT_STREAMED: Mapping[str, tuple[str | dict[str, Any], str, str, str]] = {
    "async": (HELLO, "async", "words", "harmless"),
    "async_blocked": (HELLO, "async", "words", "turns_bad"),
    "async_cannot_mask": (HELLO, "async_masks", "marking", "secrets"),
    "upstream_dies_at_once": (HELLO, "block", "words", "dies_at_once"),
    "upstream_times_out": (HELLO, "block", "words", "times_out"),
    "upstream_silent": (HELLO, "idle", "words", "silent"),
    "upstream_without_its_last_event": (HELLO, "block", "words", "no_end"),
    "upstream_only_the_last_event": (HELLO, "block", "words", "only_end"),
    "upstream_more_after_the_end": (HELLO, "block", "words", "more_after_end"),
    "usage_asked_for": ({"stream_options": {"include_usage": True}}, "block", "words", "harmless"),
}


def chat() -> Iterator[Case]:
    for stream in (False, True):
        situations = {**CHAT, **CHAT_STREAMED} if stream else CHAT
        for name, (said, policy, guard, upstream) in situations.items():
            text, fields = (said, {}) if isinstance(said, str) else (HELLO, said)
            body = asked("chat", text, **fields, **({"stream": True} if stream else {}))
            world = World(policy, guard, upstream)
            yield Case(f"chat_{'streamed' if stream else 'plain'}", name, PATHS["chat"], body, world=world)


_TEXTS = [HELLO, "Something hateful.", CHINESE]

# Endpoints that answer without a conversation: dialect, body, world.
OTHERS: Mapping[str, tuple[str, dict[str, Any], World]] = {
    "allowed": ("embeddings", asked("embeddings", HELLO), World(dialect="embeddings")),
    "blocked": ("embeddings", asked("embeddings", BADLY), World(dialect="embeddings")),
    "blocked_without_a_completion": ("embeddings", asked("embeddings", BADLY), World("completion")),
    "masked": ("embeddings", asked("embeddings", SECRET), World("mask", "marking", dialect="embeddings")),
    "guard_down": ("embeddings", asked("embeddings", HELLO), World(guard="down", dialect="embeddings")),
    "upstream_500": ("embeddings", asked("embeddings", HELLO), World(upstream="status_500")),
    "not_an_answer": ("embeddings", asked("embeddings", HELLO), World(upstream="not_an_answer")),
    "everything_there_is": (
        "embeddings",
        {**FULL["embeddings"], "model": "m"},
        World("unreadable_allowed", upstream="full", dialect="embeddings"),
    ),
    "harmless": ("moderations", asked("moderations", HELLO), World()),
    "flagged": ("moderations", asked("moderations", BADLY), World()),
    "several": ("moderations", {"input": _TEXTS}, World()),
    "several_logged": ("moderations", {"input": _TEXTS}, World("log")),
    "with_scores": ("moderations", {"input": _TEXTS}, World("scores")),
    "text_recorded": ("moderations", {"input": _TEXTS}, World("record_text")),
    "picture": ("moderations", full_moderations.PARTS, World()),
    "picture_allowed": ("moderations", full_moderations.PARTS, World("unreadable_allowed")),
    "of_answers": ("moderations", full_moderations.ANSWERS, World()),
    "guard_is_down": ("moderations", asked("moderations", HELLO), World(guard="down")),
    "guard_is_down_fail_open": ("moderations", asked("moderations", HELLO), World("fail_open", "down")),
    "guard_is_buggy": ("moderations", asked("moderations", HELLO), World(guard="buggy")),
    "no_guards": ("moderations", asked("moderations", HELLO), World(guard="none")),
    "no_input": ("moderations", {}, World()),
    "wrong_direction": ("moderations", {"input": "x", "libragate": {"direction": "sideways"}}, World()),
}


def others() -> Iterator[Case]:
    for name, (dialect, body, world) in OTHERS.items():
        yield Case(dialect, name, PATHS[dialect], body, world=world)


_AZURE_KEY: Headers = (("api-key", KEY),)


def azure() -> Iterator[Case]:
    hello, badly = asked("chat", HELLO), asked("chat", BADLY)
    chat_path = AZURE.format("m/chat/completions")
    yield Case("azure", "chat", chat_path, hello, headers=_AZURE_KEY)
    yield Case("azure", "chat_without_a_model", chat_path, {"messages": hello["messages"]}, headers=_AZURE_KEY)
    yield Case("azure", "chat_streamed", chat_path, {**hello, "stream": True}, headers=_AZURE_KEY)
    yield Case("azure", "chat_blocked", chat_path, badly, headers=_AZURE_KEY)
    yield Case("azure", "chat_annotated", chat_path, hello, headers=ANNOTATED)
    yield Case("azure", "chat_annotated_streamed", chat_path, {**hello, "stream": True}, headers=ANNOTATED)
    yield Case("azure", "chat_annotated_blocked", chat_path, badly, headers=ANNOTATED)
    for dialect in ("completions", "embeddings"):
        path = AZURE.format(f"m/{dialect}")
        world = World(dialect=dialect)
        yield Case("azure", dialect, path, asked(dialect, HELLO), headers=_AZURE_KEY, world=world)
        yield Case("azure", f"{dialect}_annotated", path, asked(dialect, HELLO), headers=ANNOTATED, world=world)
    yield Case("azure", "responses_are_not_served", AZURE.format("m/responses"), asked("responses", HELLO))
    yield Case("azure", "another_model", AZURE.format("big/chat/completions"), hello)


def receipts() -> Iterator[Case]:
    own, foreign = ("/v1/receipts/{id}", BEARER), ("/v1/receipts/{id}", OTHER_BEARER)
    for dialect in ("chat", "messages"):
        yield Case("receipts", dialect, PATHS[dialect], asked(dialect, HELLO), then=own, world=World(dialect=dialect))
    stream = asked("chat", SECRET, stream=True)
    masking = World("mask", "marking", "secrets")
    yield Case("receipts", "masked_stream", PATHS["chat"], stream, then=own, world=masking)
    yield Case("receipts", "blocked", PATHS["chat"], asked("chat", BADLY), then=own)
    yield Case("receipts", "of_another_tenant", PATHS["chat"], asked("chat", HELLO), then=foreign)
    yield Case("receipts", "of_a_refused_request", PATHS["chat"], {"model": "m"}, then=own)
    yield Case("receipts", "not_found", "/v1/receipts/2222-2222-2222", method="GET")
    yield Case("receipts", "without_a_key", "/v1/receipts/2222-2222-2222", method="GET", headers=())


def routes() -> Iterator[Case]:
    gets: Mapping[str, tuple[str, Headers]] = {
        "models": ("/v1/models", BEARER),
        "models_of_the_other_tenant": ("/v1/models", OTHER_BEARER),
        "models_without_a_key": ("/v1/models", ()),
        "model": ("/v1/models/m", BEARER),
        "model_not_allowed": ("/v1/models/big", BEARER),
        "model_unknown": ("/v1/models/a/b", BEARER),
        "healthz": ("/healthz", ()),
        "readyz": ("/readyz", ()),
        "openapi": ("/openapi.json", ()),
        "root": ("/", ()),
        "unknown_route": ("/v1/assistants", BEARER),
        "trailing_slash": ("/v1/models/", BEARER),
        "wrong_method": ("/v1/chat/completions", BEARER),
    }
    for name, (path, headers) in gets.items():
        yield Case("routes", name, path, method="GET", headers=headers)
    yield Case("routes", "readyz_guard_dead", "/readyz", method="GET", headers=(), world=World(guard="dead"))
    counting = World("own_words", "two", "secrets")  # of no other case: its counters are this case's alone
    stream = asked("chat", HELLO, stream=True)
    yield Case("routes", "metrics", PATHS["chat"], stream, world=counting, then=("/metrics", ()))
    yield Case("routes", "models_posted", "/v1/models", {})
    yield Case("routes", "head_of_healthz", "/healthz", method="HEAD", headers=())
    yield Case("routes", "posted_with_a_trailing_slash", "/v1/chat/completions/", asked("chat", HELLO))
    yield Case("routes", "double_slash", "//v1/chat/completions", asked("chat", HELLO))
    yield Case("routes", "count_tokens", "/v1/messages/count_tokens", asked("messages", HELLO))


_HELLO_JSON = b'{"model": "m", "messages": [{"role": "user", "content": "Hello there."}]}'

# The body, or the headers with which the same harmless body is sent.
BAD_BODIES: Mapping[str, Any] = {
    "empty": b"",
    "blank": b" \n",
    "not_json": b"{model: m}",
    "cut": _HELLO_JSON[:-1],
    "a_list": b"[]",
    "a_byte_order_mark": b"\xef\xbb\xbf" + _HELLO_JSON,
    "not_utf8": b'{"model": "m\xff"}',
    "a_lone_surrogate": b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}',
    "not_a_number": b'{"model": "m", "messages": [], "temperature": NaN}',
    "duplicate_key": b'{"model": "m", "model": "big", "messages": []}',
    "duplicate_key_deep_inside": b'{"model": "m", "messages": [{"role": "user", "content": "a", "content": "b"}]}',
    "too_deep": b'{"model": "m", "messages": ' + b"[" * 200 + b"]" * 200 + b"}",
    "too_large": asked("chat", "x" * 20_000),
    "too_many_messages": {"model": "m", "messages": [{"role": "user", "content": "x"}] * 41},
    "unknown_field": asked("chat", HELLO, whisper="psst"),
    "unknown_field_in_a_message": {"model": "m", "messages": [{"role": "user", "content": "x", "whisper": "psst"}]},
    "wrong_type": asked("chat", HELLO, temperature="warm"),
    "wrong_type_of_messages": {"model": "m", "messages": "Hello"},
    "wrong_role": {"model": "m", "messages": [{"role": "root", "content": "x"}]},
    "wrong_n": asked("chat", HELLO, n=0),
    "no_model": {"messages": [{"role": "user", "content": "x"}]},
    "no_messages": {"model": "m"},
    "model_unknown": asked("chat", HELLO, model="no-such-model"),
    "model_not_allowed": asked("chat", HELLO, model="big"),
    "provider_option": asked("chat", HELLO, api_base="https://example.org"),
    "provider_option_deep_inside": asked("chat", HELLO, metadata={"a": {"litellm_params": {"x": "y"}}}),
    "provider_option_extra_body": asked("chat", HELLO, extra_body={"model": "big"}),
}
BAD_HEADERS: Mapping[str, Headers] = {
    "no_key": (),
    "wrong_key": (("authorization", "Bearer lg-wrong"),),
    "no_bearer": (("authorization", f"Basic {KEY}"),),
    "two_keys": (("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {OTHER_KEY}")),
    "two_kinds_of_keys": (("authorization", f"Bearer {KEY}"), ("x-api-key", OTHER_KEY)),
    "compressed": (*BEARER, ("content-encoding", "gzip")),
    "content_type_of_text": (*BEARER, ("content-type", "text/plain")),
}


def refused() -> Iterator[Case]:
    for name, body in BAD_BODIES.items():
        yield Case("refused", name, PATHS["chat"], body)
    for name, headers in BAD_HEADERS.items():
        yield Case("refused", name, PATHS["chat"], _HELLO_JSON, headers=headers)
    for dialect in ("completions", "responses", "messages", "embeddings", "moderations"):
        path, hello = PATHS[dialect], asked(dialect, HELLO)
        yield Case("refused", f"{dialect}_without_a_key", path, hello, headers=())
        yield Case("refused", f"{dialect}_duplicate_key", path, b'{"model": "m", "model": "m"}')
        yield Case("refused", f"{dialect}_unknown_field", path, {**hello, "whisper": "psst"})
        if dialect != "moderations":
            yield Case("refused", f"{dialect}_model_unknown", path, {**hello, "model": "no-such-model"})
    yield Case(
        "refused", "responses_of_a_conversation", PATHS["responses"], asked("responses", HELLO, conversation="c")
    )


CASES: tuple[Case, ...] = (*common(), *chat(), *others(), *azure(), *receipts(), *routes(), *refused())
