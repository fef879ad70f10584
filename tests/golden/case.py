"""What a golden case is, and the plainest request of every dialect."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.golden.world import World
from tests.support.gateway_server import KEY, OTHER_KEY

Headers = tuple[tuple[str, str], ...]

BEARER: Headers = (("authorization", f"Bearer {KEY}"),)
OTHER_BEARER: Headers = (("authorization", f"Bearer {OTHER_KEY}"),)
ANNOTATED: Headers = (*BEARER, ("x-libragate-annotations", "true"))
PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "embeddings": "/v1/embeddings",
    "moderations": "/v1/moderations",
}


@dataclass(frozen=True)
class Case:
    """One request and its world. `body` is sent as JSON unless it is bytes. `then`: what is fetched afterwards, and
    with which headers; {id} is the number of the reply."""

    group: str
    name: str
    path: str
    body: Any = None
    method: str = "POST"
    headers: Headers = BEARER
    world: World = field(default_factory=World)
    then: tuple[str, Headers] | None = None

    @property
    def id(self) -> str:
        return f"{self.group}/{self.name}"


def asked(dialect: str, text: str, **fields: Any) -> dict[str, Any]:
    """A plain request of this dialect."""
    messages = [{"role": "user", "content": text}]
    bodies: Mapping[str, dict[str, Any]] = {
        "chat": {"messages": messages},
        "completions": {"prompt": text},
        "responses": {"input": text},
        "messages": {"max_tokens": 9, "messages": messages},
        "embeddings": {"input": text},
        "moderations": {"input": text},
    }
    return {"model": "m", **bodies[dialect], **fields}
