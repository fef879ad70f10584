"""A gateway for the document's tests: every dialect answered, by a scripted upstream that knows them all."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from gateway.dialects.dialect import Event, Json
from gateway.errors import UpstreamError
from gateway.policy.policy import Action
from gateway.upstreams.upstream import NO_HEADERS, Headers
from guard_runtime.guards.scripted import ScriptedGuard
from tests.gateway.dialects import full_embeddings
from tests.gateway.dialects.choices import full_chat, full_completions
from tests.gateway.dialects.messages import full_messages, full_token_count
from tests.gateway.dialects.responses import full_compaction, full_responses
from tests.support.gateway_server import BAD, Parts, blocking

BY_PATH: dict[str, Any] = {
    "/v1/chat/completions": full_chat,
    "/v1/completions": full_completions,
    "/v1/responses": full_responses,
    "/v1/responses/compact": full_compaction,
    "/v1/messages": full_messages,
    "/v1/messages/count_tokens": full_token_count,
    "/v1/embeddings": full_embeddings,
}


class Everything:
    """Answers each dialect with the body, and the events, that have every field there is."""

    name = "everything"

    async def answer(self, path: str, body: Json, headers: Headers = NO_HEADERS) -> Json:
        if path not in BY_PATH:
            raise UpstreamError(f"{path} is no dialect's")
        answer: Json = BY_PATH[path].ANSWER
        return answer

    @asynccontextmanager
    async def stream(self, path: str, body: Json, headers: Headers = NO_HEADERS) -> AsyncIterator[AsyncIterator[Event]]:
        yield _played(path)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Everything"]:
        yield self


async def _played(path: str) -> AsyncIterator[Event]:
    for event in BY_PATH[path].EVENTS:
        yield event
    if path in ("/v1/chat/completions", "/v1/completions"):
        yield Event(None)


def everything() -> Parts:
    """What no guard can read passes with a line in the record, so that bodies with a picture in them are taken."""
    rules = replace(blocking().prompt, on_unreadable=Action.LOG)
    return Parts(guards=(ScriptedGuard(BAD),), upstream=Everything(), policy=blocking(prompt=rules, response=rules))
