"""A closed loop of requests over kept connections: as fast as the server answers, each latency noted."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np


@dataclass(frozen=True, slots=True)
class Load:
    """`request(i)` gives the bytes of the i-th request. Requests per second and latencies in milliseconds."""

    rps: float
    p50_ms: float
    p99_ms: float
    failed: int


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes) -> "asyncio.Future[int]":
        """The status of the reply."""
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        size = int(head[head.find(b"content-length:") + 15 :].split(b"\r\n", 1)[0])
        if len(self._buffer) >= end + 4 + size and self._answer is not None:
            status = int(self._buffer[9:12])
            self._buffer = self._buffer[end + 4 + size :]
            self._answer.set_result(status)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed the connection"))


async def load(port: int, request: Callable[[int], bytes], *, connections: int, seconds: float) -> Load:
    """Runs the loop for `seconds` after a tenth of it as warm-up."""
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    failed = 0
    number = 0
    begun = time.perf_counter() + seconds / 10
    ends = begun + seconds

    async def one() -> None:
        nonlocal number, failed
        _, connection = await loop.create_connection(_Connection, "127.0.0.1", port)
        while (started := time.perf_counter()) < ends:
            number += 1
            status = await connection.ask(request(number))
            failed += status != 200
            if started >= begun:
                latencies.append(time.perf_counter() - started)
        connection.transport.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    p50, p99 = np.percentile(latencies, [50, 99]) * 1000
    return Load(len(latencies) / seconds, float(p50), float(p99), failed)
