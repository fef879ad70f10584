"""A real gateway on a free loopback port, in this process: uvicorn on a thread, guards and upstream scripted.

with served(gateway(guard, upstream)) as url: ...
"""

import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import uvicorn
from openai import OpenAI
from starlette.types import ASGIApp

from gateway.api.app import create_app
from gateway.api.runtime import Gateway, Runtime, Snapshot
from gateway.api.server import serve_config
from gateway.exchange import Route
from gateway.judging.judge import Judge
from gateway.judging.media import MediaReaders
from gateway.policy.policy import Action, DirectionPolicy, Policy, Rewrite, Rule
from gateway.records.record import MemorySink
from gateway.tenants.limits import Limits
from gateway.tenants.tenants import Tenant, Tenants, hashed
from gateway.upstreams.upstream import Scripted, Upstream
from guard_runtime.guard import Guard
from guard_runtime.guards.scripted import ScriptedGuard, words
from guard_runtime.verdict import CATEGORIES, Category

KEY = "lg-" + "k3Y7" * 11
OTHER_KEY = "lg-" + "q9Zt" * 11
PEPPER = b"tests"
CRIME = Category.ILLEGAL_ACTIVITIES_AND_CRIME
PRIVACY = Category.PRIVACY_AND_PROPERTY

BAD = words({"forbidden": CRIME, "禁忌": CRIME})


def blocking(action: Action = Action.BLOCK, rewrite: Rewrite = Rewrite.SAFE_MESSAGE, **options: object) -> Policy:
    """A policy with one rule for every category, both ways."""
    rules = DirectionPolicy({category: (Rule(0.5, action, rewrite, "test.yaml:1"),) for category in CATEGORIES})
    return Policy(**({"name": "test", "hash": "0123456789ab", "prompt": rules, "response": rules} | options))  # type: ignore[arg-type]


@dataclass(slots=True)
class Parts:
    """What a test's gateway is made of; every piece has a scripted default."""

    guards: Sequence[Guard] = field(default_factory=lambda: (ScriptedGuard(BAD),))
    upstream: Upstream = field(default_factory=lambda: Scripted.saying("A harmless answer."))
    policy: Policy = field(default_factory=blocking)
    other_policy: Policy | None = None
    limits: Limits = field(default_factory=Limits)
    deadline: float = 5.0
    sink: MemorySink = field(default_factory=MemorySink)
    readers: MediaReaders = field(default_factory=MediaReaders)

    @property
    def gateway(self) -> Gateway:
        tenants: Mapping[str, Tenant] = {
            hashed(KEY, PEPPER): Tenant("shop", self.policy, frozenset({"m"})),
            hashed(OTHER_KEY, PEPPER): Tenant("school", self.other_policy or self.policy, frozenset({"m", "big"})),
        }
        runtime = Runtime(
            judge=Judge(self.guards, deadline=self.deadline),
            upstreams={"upstream": self.upstream},
            sinks=(self.sink,),
            readers=self.readers,
        )
        routes = {"m": Route(self.upstream, "upstream-m"), "big": Route(self.upstream, "upstream-big")}
        return Gateway(runtime, Snapshot(Tenants(tenants, PEPPER), routes, self.limits))


def served(gateway: Gateway) -> AbstractContextManager[str]:
    """The gateway's address while it serves."""
    return running(create_app(gateway), gateway.snapshot.limits)


@contextmanager
def running(app: ASGIApp, limits: Limits) -> Iterator[str]:
    """The application's address while it is served."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config = serve_config(app, host="127.0.0.1", port=port, header_seconds=limits.header_seconds)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        if time.monotonic() > deadline or not thread.is_alive():
            raise RuntimeError("the gateway did not start")
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


def client(url: str, key: str = KEY) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key=key, timeout=30, max_retries=2)


def record(parts: Parts, count: int = 1) -> dict[str, object]:
    """The last of `count` records, once they have been written."""
    deadline = time.monotonic() + 10
    while len(parts.sink.records) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(parts.sink.records) == count, [r.outcome for r in parts.sink.records]
    return parts.sink.records[-1].line()
