"""A snapshot is replaced by one assignment: what has begun keeps the old one, what begins then has the new one."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import orjson

from gateway.api.runtime import Gateway
from gateway.dialects.dialect import Event, Json
from gateway.policy.policy import Action, Policy
from gateway.tenants.limits import Limits
from gateway.tenants.tenants import Tenant, Tenants, hashed
from gateway.upstreams.upstream import NO_HEADERS, Headers, Scripted
from tests.support.gateway_server import KEY, PEPPER, Parts, blocking, served

LOGS, BLOCKS = blocking(Action.LOG, hash="00000000000a"), blocking(hash="00000000000b")
SAID = "A good beginning of it. Now comes a forbidden thing."
ASKED = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


class Turning(Scripted):
    """Says the forbidden word, once `turn` has been called in the middle of its answer."""

    turn: Callable[[], None]

    @asynccontextmanager
    async def stream(self, path: str, body: Json, headers: Headers = NO_HEADERS) -> AsyncIterator[AsyncIterator[Event]]:
        async with super().stream(path, body, headers) as events:
            yield self._turned(events)

    async def _turned(self, events: AsyncIterator[Event]) -> AsyncIterator[Event]:
        number = 0
        async for event in events:
            number += 1
            if number == 3:
                self.turn()
            yield event


def turning() -> Turning:
    upstream = Turning.saying(SAID)
    assert isinstance(upstream, Turning)
    return upstream


def tenants(policy: Policy) -> Tenants:
    return Tenants({hashed(KEY, PEPPER): Tenant("shop", policy, frozenset({"m"}))}, PEPPER)


def post(url: str, **fields: object) -> httpx.Response:
    headers = {"authorization": f"Bearer {KEY}"}
    return httpx.post(f"{url}/v1/chat/completions", json={**ASKED, **fields}, headers=headers, timeout=30)


def text_of(reply: httpx.Response) -> str:
    """What a streamed answer says."""
    events = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for event in events for choice in orjson.loads(event)["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def swapped(gateway: Gateway, policy: Policy, limits: Limits | None = None) -> None:
    gateway.snapshot = replace(gateway.snapshot, tenants=tenants(policy), limits=limits or gateway.snapshot.limits)


def test_a_running_stream_keeps_its_policy_and_the_next_request_has_the_new_one() -> None:
    upstream = turning()
    parts = Parts(policy=LOGS, upstream=upstream)
    gateway = parts.gateway
    upstream.turn = lambda: swapped(gateway, BLOCKS)
    with served(gateway) as url:
        first = post(url, stream=True)
        second = post(url, stream=True)
    assert gateway.snapshot.tenants.find(KEY).policy is BLOCKS
    assert text_of(first) == SAID
    assert first.headers["x-libragate-policy"] == LOGS.hash
    assert "forbidden" not in text_of(second)
    assert second.headers["x-libragate-policy"] == BLOCKS.hash
    assert [(r.policy, r.outcome) for r in parts.sink.records] == [(LOGS.hash, "allowed"), (BLOCKS.hash, "blocked")]


def test_limits_and_models_change_with_the_snapshot() -> None:
    gateway = Parts().gateway
    with served(gateway) as url:
        assert post(url).status_code == 200
        swapped(gateway, LOGS, Limits(body_bytes=10))
        assert post(url).status_code == 413
        gateway.snapshot = replace(gateway.snapshot, routes={}, limits=Limits())
        assert post(url).status_code == 404
        key = {"authorization": f"Bearer {KEY}"}
        assert httpx.get(f"{url}/v1/models", headers=key).json()["data"] == []


def test_metrics_tell_the_policies_in_force_and_none_that_was_replaced() -> None:
    gateway = Parts(policy=LOGS).gateway
    with served(gateway) as url:
        before = httpx.get(f"{url}/metrics").text
        swapped(gateway, BLOCKS)
        after = httpx.get(f"{url}/metrics").text
    assert f'libragate_policy_info{{hash="{LOGS.hash}",tenant="shop"}} 1.0' in before
    assert LOGS.hash not in after
    assert f'libragate_policy_info{{hash="{BLOCKS.hash}",tenant="shop"}} 1.0' in after


def test_a_snapshots_hash_changes_with_whatever_it_holds() -> None:
    snapshot = Parts().gateway.snapshot
    hashes = {
        snapshot.hash,
        replace(snapshot, tenants=tenants(LOGS)).hash,
        replace(snapshot, tenants=tenants(BLOCKS)).hash,
        replace(snapshot, routes={"m": snapshot.routes["m"]}).hash,
        replace(snapshot, limits=Limits(messages=1)).hash,
    }
    assert len(hashes) == 5
    assert replace(snapshot).hash == snapshot.hash
