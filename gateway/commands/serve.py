"""`libragate serve`."""

import errno
import json
import shlex
import socket
from dataclasses import dataclass
from pathlib import Path

import click
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.app import create_app
from gateway.api.server import Server, serve_config
from gateway.commands.loading import loaded
from gateway.commands.terminal import Exit, config_option, json_option, paint, print_json, say, stop
from gateway.commands.version import libragate_version
from gateway.config.loader import Config
from gateway.errors import ConfigError
from gateway.telemetry.metrics import Metrics
from gateway.wiring import gateway_of, judge_of
from guard_runtime.errors import GuardError


@click.command("serve")
@config_option
@click.option("--host", help="地址 overrides listen.host")
@click.option("--port", type=click.IntRange(0, 65535), help="端口 overrides listen.port; 0 takes a free one")
@json_option
def command(config: Path, host: str | None, port: int | None, as_json: bool) -> None:
    """开始服务 Serves the gateway. Records go to standard output, everything else to standard error."""
    loaded_config = loaded("serve", config, as_json=as_json)
    address = (host or loaded_config.listen.host, loaded_config.listen.port if port is None else port)
    listening = _bound(address, as_json=as_json)
    say("正在载入护栏 Loading the guards ...")
    try:
        metrics = Metrics()
        judge = judge_of(loaded_config, metrics)
        gateway = gateway_of(loaded_config, judge, libragate_version(), metrics)
    except ConfigError as exc:
        stop("serve", Exit.WRONG_INPUT, exc.mistakes, as_json=as_json)
    except GuardError as exc:
        stop("serve", Exit.COULD_NOT_LOOK, [f"a guard cannot look: {exc}"], as_json=as_json)
    say("正在启动 Starting the upstreams ...")
    app = _Watched(create_app(gateway))
    options = serve_config(app, host=address[0], port=address[1], header_seconds=loaded_config.limits.header_seconds)
    server = _Server(options, _Welcome.of(loaded_config, listening, as_json=as_json))
    try:
        server.run(sockets=[listening])
    except SystemExit:
        stop("serve", app.code, app.problems, as_json=as_json)


def _bound(address: tuple[str, int], *, as_json: bool) -> socket.socket:
    """Taken before anything is loaded: nobody waits for the guards only to hear that the port is in use."""
    host, port = address
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
    except OSError as exc:
        listening.close()
        stop("serve", Exit.WRONG_INPUT, [_refused(exc, host, port)], as_json=as_json)
    return listening


def _refused(exc: OSError, host: str, port: int) -> str:
    match exc:
        case socket.gaierror():
            return f"the host {host} cannot be looked up -- write an address of this machine: --host 127.0.0.1"
        case OSError(errno=errno.EADDRINUSE):
            return f"port {port} of {host} is in use -- stop what uses it, or choose another: --port {port + 1}"
        case OSError(errno=errno.EADDRNOTAVAIL):
            return f"{host} is no address of this machine -- try --host 127.0.0.1, or 0.0.0.0 for all of them"
        case PermissionError():
            return f"port {port} is not for this account -- choose one above 1023: --port 8080"
        case _:
            return f"port {port} of {host} cannot be taken ({exc.strerror}) -- choose another: --port 8080"


@dataclass(frozen=True, slots=True)
class _Welcome:
    """What is said once callers can come: the address, the keys, and a line to try it with."""

    config: Config
    address: str
    as_json: bool

    @classmethod
    def of(cls, config: Config, listening: socket.socket, *, as_json: bool) -> "_Welcome":
        host, port = listening.getsockname()[:2]
        reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        return cls(config, f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}", as_json)

    def say(self) -> None:
        if self.as_json:
            print_json("serve", Exit.FINE, address=self.address, keys=dict(self.config.keys), curl=self.curl)
            return
        say(f"{paint('ready', 'green')}  {self.address}/v1")
        for tenant, key in self.config.keys.items():
            made = "" if key.startswith("$") else "  本次启动造的 made for this run"
            say(f"tenant {tenant}  key {key}{made}")
        say(f"\n{self.curl}\n")

    @property
    def curl(self) -> str:
        tenant = min(self.config.tenants, key=lambda tenant: (tenant.id not in self.config.keys, tenant.id))
        key = self.config.keys.get(tenant.id, "$LIBRAGATE_KEY")
        model = min((name for name in self.config.models if tenant.may_use(name)), default="demo")
        body = {"model": model, "messages": [{"role": "user", "content": "你好"}]}
        quoted_body = shlex.quote(json.dumps(body, ensure_ascii=False))
        url = f"{self.address}/v1/chat/completions"
        return f'curl {url} -H "Authorization: Bearer {key}" -H "Content-Type: application/json" -d {quoted_body}'


class _Server(Server):
    """Says when it is ready."""

    def __init__(self, options: uvicorn.Config, welcome: _Welcome) -> None:
        super().__init__(options)
        self._welcome = welcome

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._welcome.say()


class _Watched:
    """The application; remembers why it could not start, and keeps Starlette's trace of it off the screen."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.code = Exit.COULD_NOT_LOOK
        self.problems: tuple[str, ...] = ("it could not start",)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, _without_trace(send))
        except ConfigError as exc:
            self.code, self.problems = Exit.WRONG_INPUT, exc.mistakes
            raise
        except GuardError as exc:
            self.problems = (f"a guard cannot look: {exc}",)
            raise


def _without_trace(send: Send) -> Send:
    async def quiet(message: Message) -> None:
        failed = message["type"] == "lifespan.startup.failed"
        await send({"type": message["type"], "message": ""} if failed else message)

    return quiet
