"""uvicorn with a deadline for request heads, logs without content, and the objects of the start exempt from garbage
collection."""

import asyncio
import gc
import logging
import socket
from copy import deepcopy
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import LOGGING_CONFIG
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.bugs import bug_place


class DeadlineProtocol(HttpToolsProtocol):
    """Closes a connection whose request head is still unfinished `header_seconds` after its first byte (slowloris).

    uvicorn's own keep-alive timer runs only between requests: it would wait for the rest of a head for ever."""

    header_seconds = 10.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._watch()
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self._unwatch()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        self._deadline = self.loop.call_later(self.header_seconds, self._late)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()


GC_THRESHOLDS = (20_000, 20, 50)
"""A request makes some thousand objects, nearly all of which are freed by reference counting."""


class Server(uvicorn.Server):
    """Exempts the objects of the start from garbage collection once it is over: with 16 clients that takes a third off
    the slowest hundredth of relayed requests (`python -m benchmarks.relay`)."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)


class WithoutContent(logging.Filter):
    """Puts the class and place of an exception where its traceback would stand: a traceback ends with the exception's
    message, and that may quote content."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            record.msg, record.args = f"{record.getMessage().rstrip()}: {bug_place(record.exc_info[1])}", ()
        record.exc_info = record.exc_text = record.stack_info = None
        return True


def log_config() -> dict[str, Any]:
    """uvicorn's own, and asyncio's lines with it, both without content."""
    config = deepcopy(LOGGING_CONFIG)
    config["filters"] = {"without_content": {"()": WithoutContent}}
    config["handlers"]["default"]["filters"] = ["without_content"]
    config["loggers"]["asyncio"] = {"handlers": ["default"], "level": "WARNING", "propagate": False}
    return config


def serve_config(app: ASGIApp, *, host: str, port: int, header_seconds: float = 10.0) -> uvicorn.Config:
    """How LibraGate is served: no access log (records are the log), no server header, no trust in proxy headers."""
    protocol = type("Protocol", (DeadlineProtocol,), {"header_seconds": header_seconds})
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=protocol,
        ws="none",  # an upgrade is a GET like any other, and is answered 426
        lifespan="on",
        access_log=False,
        log_level="warning",
        log_config=log_config(),
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=65_536,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=30,
    )
