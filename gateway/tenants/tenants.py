"""Who asks: an API key leads to a tenant, and to nothing else."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from gateway.errors import UnknownKey
from gateway.policy.policy import Policy

KEY_PREFIX = "lg-"
MIN_KEY = 24
MAX_KEY = 256
HASH_PREFIX = "sha256:"

_BEARER = re.compile(r"bearer +([!-~]+) *", re.IGNORECASE)
_WELL_KNOWN = re.compile(
    r".*(change.?me|your.?(api.?)?key|example|placeholder|password).*|"
    r"(sk|lg|api|pk)?[-_]?(demo|test|key|secret|token|dummy|fake|none|null|libragate)?[-_]?(key)?[-_0-9]*",
    re.IGNORECASE,
)
_VARIETY = 10


@dataclass(frozen=True, slots=True)
class Tenant:
    """`models` are the public names of the models it may ask."""

    id: str
    policy: Policy
    models: frozenset[str]

    def may_use(self, model: str) -> bool:
        return model in self.models


class Tenants:
    """Finds tenants by their keys' hashes. A key is long and random, so a fast keyed hash (HMAC-SHA256) is right: there
    is nothing to guess, and the look-up takes the same time whatever the number of tenants."""

    def __init__(self, hashes: Mapping[str, Tenant], pepper: bytes) -> None:
        """`hashes` maps what `hashed` returns to tenants."""
        self._found = MappingProxyType({value: (value, tenant) for value, tenant in hashes.items()})
        self._pepper = pepper

    def __iter__(self) -> Iterator[Tenant]:
        """Each tenant once, however many keys it has."""
        return iter({tenant.id: tenant for _, tenant in self._found.values()}.values())

    @property
    def hashes(self) -> Iterable[str]:
        """Of the keys, as config.yaml holds them."""
        return self._found.keys()

    def find(self, key: str) -> Tenant:
        """Raises `UnknownKey`, in the same words whatever is wrong with the key."""
        key_hash = hashed(key, self._pepper)
        held, tenant = self._found.get(key_hash, ("", None))
        if tenant is None or not hmac.compare_digest(held, key_hash):
            raise UnknownKey("The API key is not known here.")
        return tenant


def hashed(key: str, pepper: bytes) -> str:
    """The line that config.yaml holds for a key: `sha256:` and 64 hex digits."""
    return HASH_PREFIX + hmac.new(pepper, key.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def new_key() -> str:
    """`lg-` and 43 characters: 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def weakness(key: str) -> str | None:
    """Why a key that somebody chose cannot be used, in words that do not repeat it; None where it can."""
    if not key:
        return "is empty"
    if not re.fullmatch(r"[!-~]+", key):
        return "has a blank or a character outside ASCII in it"
    if _WELL_KNOWN.fullmatch(key):
        return "is one that everybody knows"
    if not MIN_KEY <= len(key) <= MAX_KEY:
        return f"has {len(key)} characters: it needs {MIN_KEY} to {MAX_KEY}"
    if len(set(key)) < _VARIETY:
        return f"uses fewer than {_VARIETY} different characters: it can be guessed"
    return None


def presented(authorization: Sequence[str], api_keys: Sequence[str]) -> str:
    """The one key a request presents: as `Authorization: Bearer`, or as Azure's and Anthropic's clients do in `api-key`
    and `x-api-key`. Raises `UnknownKey` for none, for several, and for what is no key."""
    if authorization or not api_keys:
        key = bearer(authorization)
        if any(other != key for other in api_keys):
            raise UnknownKey("There is more than one API key. Send one.")
        return key
    if len(set(api_keys)) > 1 or not re.fullmatch(r"[!-~]+", api_keys[0]) or len(api_keys[0]) > MAX_KEY:
        raise UnknownKey("The API key header does not hold one key.")
    return api_keys[0]


def bearer(authorization: Sequence[str]) -> str:
    """The key in a request's Authorization headers. Raises `UnknownKey` unless there is exactly one such header, of the
    form `Bearer KEY`."""
    if not authorization:
        raise UnknownKey("There is no API key. Send it as a header: Authorization: Bearer KEY")
    if len(authorization) > 1:
        raise UnknownKey("There is more than one Authorization header. Send one.")
    bearer = _BEARER.fullmatch(authorization[0]) if len(authorization[0]) <= MAX_KEY + len("Bearer  ") else None
    if bearer is None:
        raise UnknownKey("The Authorization header is not of the form: Bearer KEY")
    return bearer[1]
