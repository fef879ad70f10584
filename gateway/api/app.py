"""The ASGI application: which routes there are, what they need, and how each error leaves."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as HttpRoute

from gateway.api.forwarded_headers import forwarded_headers
from gateway.api.model_lists import error_of, model, model_list
from gateway.api.openapi import azure_path, document
from gateway.api.request_body import conversation_of, read_body
from gateway.api.runtime import Gateway, Snapshot
from gateway.bugs import bug_place
from gateway.dialects.dialect import Dialect, Json
from gateway.dialects.moderations import Moderations
from gateway.dialects.openai_errors import error_body
from gateway.errors import GatewayError, InternalError, NotFound, NoWebSocket
from gateway.exchange import Exchange, new_id
from gateway.judging.azure_results import HEADER
from gateway.pipeline.moderation import ModerationPipeline
from gateway.pipeline.pipeline import Pipeline
from gateway.pipeline.record_builder import RecordBuilder
from gateway.pipeline.replies import json_reply
from gateway.records.explanations import ExplanationWorker
from gateway.records.receipts import Receipts
from gateway.records.record import ExplanationSink, LogSink
from gateway.telemetry.metrics import Metrics
from gateway.tenants.tenants import Tenant, presented
from guard_runtime.text.language import language_of

log = logging.getLogger(__name__)

MODERATIONS = Moderations()


def create_app(gateway: Gateway) -> Starlette:
    """The application. Its lifespan starts the guards and the upstreams; once it is up, it is ready."""
    metrics = gateway.runtime.metrics
    receipts = Receipts()
    runtime = gateway.runtime
    kept = [LogSink()] if runtime.sinks is None else runtime.sinks
    worker = ExplanationWorker(runtime.explaining, [sink for sink in kept if isinstance(sink, ExplanationSink)])
    endpoints = Endpoints(
        gateway,
        Pipeline(runtime.judge, (*kept, metrics, receipts, worker), runtime.readers),
        metrics,
        receipts,
        worker,
    )
    served = runtime.dialects
    routes = [
        *(HttpRoute(dialect.path, endpoints.exchange(dialect), methods=["POST"]) for dialect in served),
        *(HttpRoute(path, endpoints.page(name, serve), methods=["GET"]) for path, name, serve in endpoints.pages()),
        HttpRoute(MODERATIONS.path, endpoints.endpoint(MODERATIONS, endpoints.moderation), methods=["POST"]),
        *(
            HttpRoute(azure_path(dialect), endpoints.exchange(dialect), methods=["POST"])
            for dialect in served
            if dialect.azure
        ),
    ]
    app = Starlette(
        routes=routes,
        lifespan=endpoints.lifespan,
        exception_handlers={GatewayError: _render, HTTPException: _unknown_route(served)},
    )
    app.router.redirect_slashes = False  # a redirect would be a second way in
    return app


Endpoint = Callable[[Request], Awaitable[Response]]
Serve = Callable[[Request, RecordBuilder], Awaitable[Response]]


class Endpoints:
    """The endpoints."""

    def __init__(
        self, gateway: Gateway, pipeline: Pipeline, metrics: Metrics, receipts: Receipts, worker: ExplanationWorker
    ) -> None:
        self._gateway = gateway
        self._runtime = gateway.runtime
        self._worker = worker
        self._pipeline = pipeline
        self._metrics = metrics
        self._receipts = receipts
        self._moderations = ModerationPipeline(
            gateway.runtime.judge, MODERATIONS, pipeline.write, gateway.runtime.readers
        )
        self._up = False

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for guard in self._runtime.judge.guards:
                await stack.enter_async_context(guard.running())
                self._metrics.queue(guard.name, partial(attrgetter("queued"), guard))
                self._metrics.counts(guard)
            if self._runtime.explaining:
                await stack.enter_async_context(self._worker.running())
                self._metrics.counts(self._worker)
            for upstream in self._runtime.every_upstream:
                await stack.enter_async_context(upstream.running())
            self._metrics.serving(self._runtime.version, self._runtime.judge.version)
            self._metrics.policies(lambda: self._gateway.snapshot.tenants)
            self._up = True
            yield
            self._up = False

    async def health(self, request: Request) -> Response:
        return Response(b"ok\n", media_type="text/plain")

    async def root(self, request: Request) -> Response:
        """For clients that ask whether anything answers at this address, before they send a prompt."""
        return json_reply({"name": "LibraGate", "openapi": "/openapi.json"})

    async def ready(self, request: Request) -> Response:
        """Ready: every guard is up and has passed its self-test. A guard that has died makes this a 503."""
        down = [guard.name for guard in self._runtime.judge.guards if not guard.ready]
        up = self._up and not down
        body = {"ready": up, "guard": self._runtime.judge.version, "down": down}
        return json_reply(body, status=200 if up else 503)

    async def metrics(self, request: Request) -> Response:
        return Response(self._metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, request: Request) -> Response:
        return json_reply(document(self._runtime.version, self._runtime.dialects, MODERATIONS))

    async def models(self, request: Request) -> Response:
        snapshot = self._gateway.snapshot
        names = snapshot.models_of(_tenant(snapshot, request))
        return json_reply(model_list(request, names))

    async def model(self, request: Request) -> Response:
        snapshot = self._gateway.snapshot
        name = request.path_params["model"]
        snapshot.route(_tenant(snapshot, request), name)
        return json_reply(model(request, name))

    async def receipt(self, request: Request) -> Response:
        tenant = _tenant(self._gateway.snapshot, request)
        return json_reply(self._receipts.find(request.path_params["case"], tenant.id))

    def pages(self) -> tuple[tuple[str, str, Endpoint], ...]:
        """What is served beside the dialects: path, name in records, endpoint."""
        return (
            ("/", "root", self.root),
            ("/healthz", "health", self.health),
            ("/readyz", "ready", self.ready),
            ("/metrics", "metrics", self.metrics),
            ("/openapi.json", "openapi", self.openapi),
            ("/v1/models", "models", self.models),
            ("/v1/models/{model:path}", "model", self.model),
            ("/v1/receipts/{case}", "receipt", self.receipt),
        )

    def page(self, name: str, serve: Endpoint) -> Endpoint:
        """`serve`; what it refuses is answered in OpenAI's error shape, and only a bug is recorded."""

        async def answer(request: Request) -> Response:
            try:
                return await serve(request)
            except GatewayError:
                raise
            except Exception as bug:  # noqa: BLE001 - see `endpoint`
                return self._failed(RecordBuilder(new_id(), name), bug, error_body)

        return answer

    def endpoint(self, dialect: Dialect | Moderations, serve: Serve) -> Endpoint:
        """`serve` under a new id; what it refuses is answered in the dialect's error shape, and recorded. So is a bug
        in what it calls: Starlette's own net would log its message, which may quote content, and record nothing."""

        async def answer(request: Request) -> Response:
            builder = RecordBuilder(new_id(), dialect.name)
            try:
                return await serve(request, builder)
            except GatewayError as exc:
                return self._pipeline.fail(builder, exc, dialect.error(exc))
            except Exception as bug:  # noqa: BLE001 - the one net for bugs of dialects, upstreams, rewrites
                return self._failed(builder, bug, dialect.error)

        return answer

    def _failed(self, builder: RecordBuilder, bug: Exception, shape: Callable[[GatewayError], Json]) -> Response:
        builder.detail = bug_place(bug)
        log.error("request %s failed: %s", builder.id, builder.detail)
        error = InternalError(f"The gateway failed on this request. Report it to its operator as {builder.id}.")
        return self._pipeline.fail(builder, error, shape(error))

    def exchange(self, dialect: Dialect) -> Endpoint:
        async def serve(request: Request, builder: RecordBuilder) -> Response:
            exchange = await _read_exchange(self._gateway.snapshot, request, dialect, builder)
            return await self._pipeline.serve(exchange, builder)

        return self.endpoint(dialect, serve)

    async def moderation(self, request: Request, builder: RecordBuilder) -> Response:
        snapshot = self._gateway.snapshot
        builder.tenant = tenant = _tenant(snapshot, request)
        inputs = MODERATIONS.read_request(await read_body(request, snapshot.limits))
        inputs = tuple(replace(conversation, scope=tenant.id) for conversation in inputs)
        return await self._moderations.serve(tenant, inputs, builder)


async def _read_exchange(snapshot: Snapshot, request: Request, dialect: Dialect, builder: RecordBuilder) -> Exchange:
    """The request, read and allowed. Raises `GatewayError`."""
    builder.tenant = tenant = _tenant(snapshot, request)
    body = await read_body(request, snapshot.limits)
    if "model" in request.path_params:
        body = {**body, "model": request.path_params["model"]}
    conversation = replace(conversation_of(body, dialect, snapshot.limits), scope=tenant.id)
    return Exchange(
        id=builder.id,
        tenant=tenant,
        dialect=dialect,
        body=body,
        conversation=conversation,
        route=snapshot.route(tenant, body["model"]),
        language=language_of(conversation.question),
        created=int(datetime.now(UTC).timestamp()),
        annotated=request.headers.get(HEADER, "").lower() == "true",
        headers=forwarded_headers(request.headers, dialect.forwarded),
    )


def _tenant(snapshot: Snapshot, request: Request) -> Tenant:
    headers = request.headers
    api_keys = [*headers.getlist("x-api-key"), *headers.getlist("api-key")]
    return snapshot.tenants.find(presented(headers.getlist("authorization"), api_keys))


async def _render(request: Request, exc: Exception) -> Response:
    if not isinstance(exc, GatewayError):
        raise exc
    return json_reply(error_of(request, exc), exc.status, {**exc.headers, "x-request-id": new_id()})


def _unknown_route(served: Sequence[Dialect]) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Nothing is relayed that no dialect reads: an unknown route is a 404."""
    guarded = (*(dialect.path for dialect in served), MODERATIONS.path)
    paths = ", ".join(guarded)

    async def answer(request: Request, exc: Exception) -> Response:
        if request.headers.get("upgrade", "").lower() == "websocket":
            return await _render(request, NoWebSocket("WebSockets are not served here. Post the request over HTTP."))
        route = f"{request.method} {request.scope['path'][:128]}"
        meant = _meant(request.scope["path"])
        if meant != request.scope["path"] and meant in guarded:
            return await _render(request, NotFound(f"{route} is not served here. Post to {meant}."))
        return await _render(request, NotFound(f"{route} is not served here. Served: {paths}, /v1/models."))

    return answer


def _meant(path: str) -> str:
    """The path that a client with a base_url of another form most likely meant: nothing is served under it as it is."""
    steps = [step for step in path.split("/") if step]
    if steps[:1] in (["openai"], ["anthropic"]):
        steps = steps[1:]
    while steps[:2] == ["v1", "v1"]:
        steps = steps[1:]
    return "/" + "/".join(steps if steps[:1] == ["v1"] else ["v1", *steps])
