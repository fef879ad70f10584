"""What the gateway adds to a request: the mock itself, a bare relay, the gateway without and with its guard.

    python -m benchmarks.relay [--rounds 5] [--seconds 3] [--json]

All run in one go on one machine, in turn, round after round; the figures are medians over the rounds.
"""

import argparse
import json
import multiprocessing
import os
import platform
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import aiohttp
import numpy as np
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as HttpRoute
from tokenizers import Tokenizer

from benchmarks import mock
from benchmarks.load import Load, load
from gateway.api.app import create_app
from gateway.api.runtime import Gateway, Runtime, Snapshot
from gateway.api.server import Server, serve_config
from gateway.exchange import Route
from gateway.judging.judge import Judge
from gateway.policy.policy import Action, DirectionPolicy, Policy, Rule
from gateway.records.record import LogSink
from gateway.tenants.tenants import Tenant, Tenants, hashed
from gateway.upstreams.openai import Endpoint, OpenAICompatible
from guard_runtime.artefacts.artefact import Artefact
from guard_runtime.loading.classifier import load_classifier
from guard_runtime.onnx.session import Session
from guard_runtime.verdict import CATEGORIES

MODEL = Path(__file__).parent.parent / "guard_runtime" / "models" / "libra-mini"
KEY = "lg-" + "benchmark" * 5  # of this run on loopback alone
PEPPER = b"benchmark"
CONNECTIONS = (1, 16)
WORDS = (
    "Could you please tell me what the weather will be like in {city} during the coming week, number {n}, whether I "
    "should take an umbrella with me, and which warm clothes would be sensible to pack for a family of four who want "
    "to spend most of their days walking slowly through parks, museums and old streets?"
)
CITIES = ("Chengdu", "Vienna", "Oslo", "Nairobi", "Lima", "Xi'an", "Porto", "Kyoto")


def prompt(number: int) -> str:
    """About 60 tokens, and never the same twice: no verdict comes from the cache."""
    return WORDS.format(city=CITIES[number % len(CITIES)], n=number)


def request(number: int) -> bytes:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": prompt(number)}]}).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer %s\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (KEY.encode(), len(body), body)
    )


def serve_mock(port: int, upstream: int) -> None:
    uvloop.run(mock.serve(port))


def serve_bare(port: int, upstream: int) -> None:
    """The least a relay in Starlette and aiohttp can do."""
    url = f"http://127.0.0.1:{upstream}/v1/chat/completions"

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with aiohttp.ClientSession() as session:
            app.state.session = session
            yield

    async def relay(request: Request) -> Response:
        body = await request.body()
        async with request.app.state.session.post(url, data=body) as reply:
            return Response(await reply.read(), media_type="application/json")

    app = Starlette(routes=[HttpRoute("/v1/chat/completions", relay, methods=["POST"])], lifespan=lifespan)
    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, log_level="warning")


def serve_gateway(port: int, upstream: int, *, guarded: bool) -> None:
    rules = DirectionPolicy({category: (Rule("balanced", Action.LOG),) for category in CATEGORIES})
    tenant = Tenant("bench", Policy("bench", "bench", prompt=rules, response=rules), frozenset({"m"}))
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - the records are written, and go nowhere
    mock = OpenAICompatible("mock", Endpoint(f"http://127.0.0.1:{upstream}/v1"))
    runtime = Runtime(Judge([load_classifier(MODEL)] if guarded else []), {"mock": mock}, sinks=(LogSink(),))
    gateway = Gateway(runtime, Snapshot(Tenants({hashed(KEY, PEPPER): tenant}, PEPPER), {"m": Route(mock, "m")}))
    Server(serve_config(create_app(gateway), host="127.0.0.1", port=port)).run()


def serve_gateway_off(port: int, upstream: int) -> None:
    serve_gateway(port, upstream, guarded=False)


def serve_gateway_guard(port: int, upstream: int) -> None:
    serve_gateway(port, upstream, guarded=True)


SERVERS: dict[str, Callable[[int, int], None]] = {
    "mock": serve_mock,
    "bare": serve_bare,
    "gateway_off": serve_gateway_off,
    "gateway_guard": serve_gateway_guard,
}


def bare_guard_ms(runs: int = 200) -> float:
    """The median of `session.run` alone on the inputs one request costs: its prompt, and the answer in its context
    (reference/artefact.md says how they are laid out)."""
    artefact = Artefact.load(MODEL)
    tokenizer = Tokenizer.from_buffer(artefact.tokenizer)
    session = Session(artefact.model)
    start, end = (tokenizer.token_to_id(token) for token in ("<s>", "</s>"))
    answer = json.loads(mock.BODY)["choices"][0]["message"]["content"]
    said = tokenizer.encode(answer, add_special_tokens=False).ids
    times = []
    for number in range(runs):
        asked = tokenizer.encode(prompt(number), add_special_tokens=False).ids
        context = asked[-(artefact.manifest.max_tokens // 3) :]
        inputs = ([start, *asked, end], [start, *context, end, end, *said, end])
        rows = [np.array([ids], dtype=np.int64) for ids in inputs]
        started = time.perf_counter()
        for row in rows:
            session.run(row, np.ones_like(row))
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


def machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    return f"{', '.join(sorted(names))}, {os.cpu_count()} cores, Python {platform.python_version()}"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing came up on port {port}")


def measured(rounds: int, seconds: float) -> dict[tuple[str, int], list[Load]]:
    """Every server under every number of connections, in turn, `rounds` times."""
    context = multiprocessing.get_context("spawn")
    ports = {name: free_port() for name in SERVERS}
    processes = [
        context.Process(target=serve, args=(ports[name], ports["mock"]), daemon=True) for name, serve in SERVERS.items()
    ]
    for process in processes:
        process.start()
    found: dict[tuple[str, int], list[Load]] = {}
    asked = count()

    def another(number: int) -> bytes:
        """A prompt that no earlier round has asked: a verdict from the cache would be no measure of the guard."""
        return request(next(asked))

    try:
        for port in ports.values():
            wait_for(port)
        for _ in range(rounds):
            for connections in CONNECTIONS:
                for name in SERVERS:
                    run = uvloop.run(load(ports[name], another, connections=connections, seconds=seconds))
                    found.setdefault((name, connections), []).append(run)
    finally:
        for process in processes:
            process.terminate()
    return found


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: medians over the rounds, and the least and most of the medians."""

    name: str
    connections: int
    rps: float
    p50_ms: float
    p99_ms: float
    p50_least_ms: float
    p50_most_ms: float
    failed: int

    @classmethod
    def of(cls, name: str, connections: int, runs: Sequence[Load]) -> "Row":
        p50 = [run.p50_ms for run in runs]
        return cls(
            name,
            connections,
            rps=round(statistics.median(run.rps for run in runs), 1),
            p50_ms=round(statistics.median(p50), 3),
            p99_ms=round(statistics.median(run.p99_ms for run in runs), 3),
            p50_least_ms=round(min(p50), 3),
            p50_most_ms=round(max(p50), 3),
            failed=sum(run.failed for run in runs),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()
    bare = bare_guard_ms()
    found = measured(options.rounds, options.seconds)
    rows = [Row.of(*key, runs) for key, runs in found.items()]
    print(f"{machine()}, {options.rounds} rounds of {options.seconds:g} s, {time.strftime('%Y-%m-%d')}")
    print(f"session.run alone, prompt and answer of one request: {bare:.2f} ms\n")
    print("| server | connections | requests/s | p50 ms (spread) | p99 ms |\n|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.name} | {row.connections} | {row.rps} | {row.p50_ms} ({row.p50_least_ms}-{row.p50_most_ms}) "
            f"| {row.p99_ms} |"
        )
    if failed := sum(row.failed for row in rows):
        raise SystemExit(f"{failed} requests were not answered with a 200: these figures say nothing")
    if options.json:
        print(json.dumps({"machine": machine(), "bare_guard_ms": round(bare, 3), "rows": list(map(asdict, rows))}))


if __name__ == "__main__":
    main()
