"""One request on its way, as a value: who asks, in which dialect, for what, and where the answer comes from."""

import secrets
from dataclasses import dataclass, field, replace

from gateway.dialects.dialect import Dialect, Json
from gateway.judging.azure_results import content_filter_results
from gateway.judging.judge import Judgement
from gateway.policy.policy import Policy
from gateway.tenants.tenants import Tenant
from gateway.upstreams.upstream import Headers, Upstream
from guard_runtime.conversation import Conversation

_LETTERS = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"


def new_id() -> str:
    """A request's id: 60 random bits in letters that can be read out over the telephone, K7Q3-MD9F-2XWA."""
    letters = "".join(_LETTERS[byte & 31] for byte in secrets.token_bytes(12))
    return "-".join((letters[:4], letters[4:8], letters[8:]))


@dataclass(frozen=True, slots=True)
class Route:
    """Where a model's answers come from, and what that upstream calls the model."""

    upstream: Upstream
    model: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that has been read and may be served. `created` is in seconds since 1970. `annotated`: the caller asked
    for Azure's filter results; `prompt_results` are those of the prompt, once it has been judged; `headers` go to the
    upstream with the body."""

    id: str
    tenant: Tenant
    dialect: Dialect
    body: Json
    conversation: Conversation
    route: Route
    language: str
    created: int
    annotated: bool = False
    prompt_results: Json | None = None
    headers: Headers = field(default_factory=dict)

    @property
    def policy(self) -> Policy:
        return self.tenant.policy

    def upstream_request(self, body: Json, judgement: Judgement) -> "Exchange":
        """This exchange as its upstream is asked: with `body`, and the upstream's own name for the model."""
        body = {**body, "model": self.route.model}
        return replace(self, body=body, prompt_results=self.results(judgement))

    def results(self, judgement: Judgement) -> Json | None:
        """Azure's filter results, where they are wanted and this dialect has a place for them."""
        if not self.dialect.annotates or not (self.annotated or self.policy.annotations):
            return None
        return content_filter_results(judgement, judgement.decision.direction)
