"""The ASGI application: which routes there are, what they need, and how each error leaves."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as HttpRoute

from gateway.api.openapi import azure_path, document
from gateway.api.request_body import read_body, require_few
from gateway.bugs import bug_place
from gateway.dialects.dialect import Dialect, Json
from gateway.dialects.moderations import Moderations
from gateway.dialects.openai_errors import error_body
from gateway.dialects.registry import dialects
from gateway.errors import GatewayError, InternalError, ModelNotAllowed, ModelNotFound, NotFound
from gateway.exchange import Exchange, Route, new_id
from gateway.judging.azure_results import HEADER
from gateway.judging.judge import Judge
from gateway.judging.media import Readers
from gateway.pipeline.moderation import ModerationPipeline
from gateway.pipeline.pipeline import Pipeline
from gateway.pipeline.record_builder import RecordBuilder
from gateway.pipeline.replies import json_reply
from gateway.records.explanations import Analyst
from gateway.records.receipts import Receipts
from gateway.records.record import Auditor, LogSink, Sink
from gateway.telemetry.metrics import Metrics
from gateway.tenants.limits import Limits
from gateway.tenants.tenants import Tenant, Tenants, presented
from gateway.upstreams.forbidden import refuse_forbidden
from guard_runtime.guard import Explaining
from guard_runtime.text.language import language_of

log = logging.getLogger(__name__)

MODERATIONS = Moderations()


@dataclass(frozen=True, slots=True)
class Gateway:
    """Everything a running gateway is made of. `routes` maps the public name of a model to where it is answered.
    `explaining`: guards that say why for the audit log."""

    judge: Judge
    tenants: Tenants
    routes: Mapping[str, Route]
    limits: Limits = field(default_factory=Limits)
    dialects: Sequence[Dialect] = field(default_factory=dialects)
    sinks: Sequence[Sink] | None = None
    explaining: Sequence[Explaining] = ()
    readers: Readers = field(default_factory=Readers)
    version: str = "0"


def create_app(gateway: Gateway) -> Starlette:
    """The application. Its lifespan starts the guards and the upstreams; once it is up, it is ready."""
    metrics = Metrics()
    receipts = Receipts()
    kept = [LogSink()] if gateway.sinks is None else gateway.sinks
    analyst = Analyst(gateway.explaining, [sink for sink in kept if isinstance(sink, Auditor)])
    endpoints = Endpoints(
        gateway,
        Pipeline(gateway.judge, (*kept, metrics, receipts, analyst), gateway.readers),
        metrics,
        receipts,
        analyst,
    )
    served = gateway.dialects
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
        exception_handlers={GatewayError: _render, HTTPException: partial(_unknown_route, served)},
    )
    app.router.redirect_slashes = False  # a redirect would be a second way in
    return app


Endpoint = Callable[[Request], Awaitable[Response]]
Serve = Callable[[Request, RecordBuilder], Awaitable[Response]]


class Endpoints:
    """The endpoints."""

    def __init__(
        self, gateway: Gateway, pipeline: Pipeline, metrics: Metrics, receipts: Receipts, analyst: Analyst
    ) -> None:
        self._gateway = gateway
        self._analyst = analyst
        self._pipeline = pipeline
        self._metrics = metrics
        self._receipts = receipts
        self._moderations = ModerationPipeline(gateway.judge, MODERATIONS, pipeline.write, gateway.readers)
        self._up = False

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for guard in self._gateway.judge.guards:
                await stack.enter_async_context(guard.running())
                self._metrics.queue(guard.name, partial(attrgetter("queued"), guard))
                self._metrics.counts(guard)
            if self._gateway.explaining:
                await stack.enter_async_context(self._analyst.running())
                self._metrics.counts(self._analyst)
            asked = (*(route.upstream for route in self._gateway.routes.values()), *self._gateway.readers.upstreams)
            for upstream in {id(upstream): upstream for upstream in asked}.values():
                await stack.enter_async_context(upstream.running())
            self._metrics.serving(self._gateway.version, self._gateway.judge.version)
            for tenant in self._gateway.tenants:
                self._metrics.policy(tenant.id, tenant.policy.hash)
            self._up = True
            yield
            self._up = False

    async def health(self, request: Request) -> Response:
        return Response(b"ok\n", media_type="text/plain")

    async def ready(self, request: Request) -> Response:
        """Ready: every guard is up and has passed its self-test. A guard that has died makes this a 503."""
        down = [guard.name for guard in self._gateway.judge.guards if not guard.alive]
        up = self._up and not down
        body = {"ready": up, "guard": self._gateway.judge.version, "down": down}
        return json_reply(body, status=200 if up else 503)

    async def metrics(self, request: Request) -> Response:
        return Response(self._metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, request: Request) -> Response:
        return json_reply(document(self._gateway.version, self._gateway.dialects, MODERATIONS))

    async def models(self, request: Request) -> Response:
        tenant = self._tenant(request)
        return json_reply({"object": "list", "data": [_model(name) for name in self._allowed(tenant)]})

    async def model(self, request: Request) -> Response:
        tenant = self._tenant(request)
        name = request.path_params["model"]
        self._route(tenant, name)
        return json_reply(_model(name))

    async def receipt(self, request: Request) -> Response:
        return json_reply(self._receipts.find(request.path_params["case"], self._tenant(request).id))

    def pages(self) -> tuple[tuple[str, str, Endpoint], ...]:
        """What is served beside the dialects: path, name in records, endpoint."""
        return (
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
            return await self._pipeline.serve(await self._exchange(request, dialect, builder), builder)

        return self.endpoint(dialect, serve)

    async def moderation(self, request: Request, builder: RecordBuilder) -> Response:
        builder.tenant = tenant = self._tenant(request)
        inputs = MODERATIONS.read_request(await read_body(request, self._gateway.limits))
        return await self._moderations.serve(tenant, inputs, builder)

    async def _exchange(self, request: Request, dialect: Dialect, builder: RecordBuilder) -> Exchange:
        """The request, read and allowed. Raises `GatewayError`."""
        builder.tenant = tenant = self._tenant(request)
        body = await read_body(request, self._gateway.limits)
        refuse_forbidden(body, dialect.fields.free_keys)
        if "model" in request.path_params:
            body = {**body, "model": request.path_params["model"]}
        require_few(body, dialect.fields.counted, self._gateway.limits.messages)
        conversation = dialect.read_request(body)
        return Exchange(
            id=builder.id,
            tenant=tenant,
            dialect=dialect,
            body=body,
            conversation=conversation,
            route=self._route(tenant, body["model"]),
            language=language_of(conversation.question),
            created=int(datetime.now(UTC).timestamp()),
            annotated=request.headers.get(HEADER, "").lower() == "true",
        )

    def _tenant(self, request: Request) -> Tenant:
        headers = request.headers
        api_keys = [*headers.getlist("x-api-key"), *headers.getlist("api-key")]
        return self._gateway.tenants.find(presented(headers.getlist("authorization"), api_keys))

    def _allowed(self, tenant: Tenant) -> list[str]:
        return [name for name in self._gateway.routes if name in tenant.models]

    def _route(self, tenant: Tenant, model: str) -> Route:
        if model not in self._gateway.routes:
            names = ", ".join(self._allowed(tenant)) or "none"
            raise ModelNotFound(f"There is no model {model[:64]!r} here. You may use: {names}.", param="model")
        if model not in tenant.models:
            raise ModelNotAllowed(f"This key may not use the model {model[:64]!r}.", param="model")
        return self._gateway.routes[model]


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "libragate"}


async def _render(request: Request, exc: Exception) -> Response:
    if not isinstance(exc, GatewayError):
        raise exc
    return json_reply(error_body(exc), exc.status, {**exc.headers, "x-request-id": new_id()})


async def _unknown_route(served: Sequence[Dialect], request: Request, exc: Exception) -> Response:
    """Nothing is relayed that no dialect reads: an unknown route is a 404 in OpenAI's shape."""
    paths = ", ".join((*(dialect.path for dialect in served), MODERATIONS.path))
    error = NotFound(f"{request.method} {request.scope['path'][:128]} is not served here. Served: {paths}, /v1/models.")
    return await _render(request, error)
