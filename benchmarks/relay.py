"""What the gateway adds to a request: the mock itself, a bare relay, the gateway without and with its guard.

    python -m benchmarks.relay [--rounds 5] [--seconds 3] [--json]

All run in one go on one machine, in turn, round after round; the figures are medians over the rounds.
"""

import argparse
import json
import multiprocessing
import os
import platform
import secrets
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as HttpRoute

from benchmarks import mock
from benchmarks.load import Load, load
from gateway.app import Gateway, create_app
from gateway.exchange import Route
from gateway.judge import Judge
from gateway.openai_upstream import Endpoint, OpenAICompatible
from gateway.policy import Action, DirectionPolicy, Policy, Rule
from gateway.server import serve_config
from gateway.sinks import LogSink
from gateway.tenants import Tenant, Tenants, hashed
from guard_runtime.artefact import Artefact
from guard_runtime.conversation import Direction
from guard_runtime.guard import Guard, Passage
from guard_runtime.guards.classifier import Classifier
from guard_runtime.reader import load_classifier
from guard_runtime.verdict import CATEGORIES

MODEL = Path(__file__).parent.parent / "guard_runtime" / "models" / "libra-mini"
KEY = "lg-" + secrets.token_urlsafe(32)
PEPPER = b"benchmark"
CONNECTIONS = (1, 16)
WORDS = (
    "Could you please tell me what the weather will be like in {city} during the coming week, number {n}, whether I "
    "should take an umbrella with me, and which warm clothes would be sensible to pack for a family of four who want to spend "
    "most of their days walking slowly through parks, museums and old streets?"
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
    guards: tuple[Guard, ...] = (load_classifier(MODEL),) if guarded else ()
    gateway = Gateway(
        judge=Judge(guards),
        tenants=Tenants({hashed(KEY, PEPPER): tenant}, PEPPER),
        routes={"m": Route(OpenAICompatible("mock", Endpoint(f"http://127.0.0.1:{upstream}/v1")), "m")},
        sinks=(LogSink(),),
    )
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - the records are written, and go nowhere
    uvicorn.Server(serve_config(create_app(gateway), host="127.0.0.1", port=port)).run()


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
    """The median of `session.run` alone on the inputs one request costs: its prompt, and the answer in its context."""
    classifier = Classifier(Artefact.load(MODEL))
    answer = json.loads(mock.BODY)["choices"][0]["message"]["content"]
    times = []
    for number in range(runs):
        asked = prompt(number)
        passages = (Passage(Direction.PROMPT, asked), Passage(Direction.RESPONSE, answer, asked))
        inputs = [each for passage in passages for each in classifier.inputs(passage)]
        started = time.perf_counter()
        for ids, mask in inputs:
            classifier.session.run(ids, mask)
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
    try:
        for port in ports.values():
            wait_for(port)
        for _ in range(rounds):
            for connections in CONNECTIONS:
                for name in SERVERS:
                    run = uvloop.run(load(ports[name], request, connections=connections, seconds=seconds))
                    found.setdefault((name, connections), []).append(run)
    finally:
        for process in processes:
            process.terminate()
    return found


def rows_of(found: dict[tuple[str, int], list[Load]]) -> list[dict[str, object]]:
    return [
        {
            "name": name,
            "connections": connections,
            "rps": round(statistics.median(run.rps for run in runs), 1),
            "p50_ms": round(statistics.median(run.p50_ms for run in runs), 3),
            "p99_ms": round(statistics.median(run.p99_ms for run in runs), 3),
            "p50_spread_ms": [round(min(run.p50_ms for run in runs), 3), round(max(run.p50_ms for run in runs), 3)],
            "failed": sum(run.failed for run in runs),
        }
        for (name, connections), runs in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()
    bare = bare_guard_ms()
    rows = rows_of(measured(options.rounds, options.seconds))
    print(f"{machine()}, {options.rounds} rounds of {options.seconds:g} s, {time.strftime('%Y-%m-%d')}")
    print(f"session.run alone, prompt and answer of one request: {bare:.2f} ms\n")
    print("| server | connections | requests/s | p50 ms (spread) | p99 ms |\n|---|---|---|---|---|")
    for row in rows:
        spread = "-".join(map(str, row["p50_spread_ms"]))  # type: ignore[arg-type]
        figures = (row["name"], row["connections"], row["rps"], f"{row['p50_ms']} ({spread})", row["p99_ms"])
        print(f"| {' | '.join(map(str, figures))} |")
    if options.json:
        print(json.dumps({"machine": machine(), "bare_guard_ms": round(bare, 3), "rows": rows}))


if __name__ == "__main__":
    main()
