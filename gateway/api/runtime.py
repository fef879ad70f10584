"""What a running gateway is made of: what lives as long as the process, and what a reload may replace."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.dialects.dialect import Dialect
from gateway.dialects.registry import dialects
from gateway.errors import ModelNotAllowed, ModelNotFound
from gateway.exchange import Route
from gateway.judging.judge import Judge
from gateway.judging.media import MediaReaders
from gateway.records.record import Sink
from gateway.telemetry.metrics import Metrics
from gateway.tenants.limits import Limits
from gateway.tenants.tenants import Tenant, Tenants
from gateway.upstreams.upstream import Upstream
from guard_runtime.guard import ExplainingGuard


@dataclass(frozen=True, slots=True)
class Runtime:
    """Lives as long as the process; the lifespan starts and stops the guards and upstreams. `explaining` are
    the guards that say why for the audit log. `metrics` may have been told of the guards' batches already."""

    judge: Judge
    upstreams: Mapping[str, Upstream]
    sinks: Sequence[Sink] | None = None
    readers: MediaReaders = field(default_factory=MediaReaders)
    dialects: Sequence[Dialect] = field(default_factory=dialects)
    explaining: Sequence[ExplainingGuard] = ()
    version: str = "0"
    metrics: Metrics = field(default_factory=Metrics)

    @property
    def every_upstream(self) -> Sequence[Upstream]:
        """Each once, those that put media into words included."""
        upstreams = (*self.upstreams.values(), *self.readers.upstreams)
        return tuple({id(upstream): upstream for upstream in upstreams}.values())


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the configuration says of callers, at one moment. `routes` maps the public name of a model to where it is
    answered, by one of the runtime's upstreams. A request keeps the snapshot it began with."""

    tenants: Tenants
    routes: Mapping[str, Route]
    limits: Limits = field(default_factory=Limits)

    @property
    def hash(self) -> str:
        """Twelve hex digits that change with any policy, tenant, key, route or limit."""
        routes = sorted((name, route.upstream.name, route.model) for name, route in self.routes.items())
        tenants = sorted((tenant.id, tenant.policy.hash, sorted(tenant.models)) for tenant in self.tenants)
        content = repr((tenants, sorted(self.tenants.hashes), routes, self.limits))
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def models_of(self, tenant: Tenant) -> list[str]:
        return [name for name in self.routes if name in tenant.models]

    def route(self, tenant: Tenant, model: str) -> Route:
        """Raises `ModelNotFound` or `ModelNotAllowed`."""
        if model not in self.routes:
            names = ", ".join(self.models_of(tenant)) or "none"
            raise ModelNotFound(f"There is no model {model[:64]!r} here. You may use: {names}.", param="model")
        if model not in tenant.models:
            raise ModelNotAllowed(f"This key may not use the model {model[:64]!r}.", param="model")
        return self.routes[model]


@dataclass(slots=True)
class Gateway:
    """A runtime, and the snapshot that new requests are served by: assigning another one is all that a swap is."""

    runtime: Runtime
    snapshot: Snapshot
