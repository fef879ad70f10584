"""A hash of several fields, keyed with a secret of this process, so that no caller can aim at an entry of a cache."""

import hashlib
from collections.abc import Iterable

DIGEST_BYTES = 24


def keyed_hash(key: bytes, fields: Iterable[bytes]) -> bytes:
    """Lengths go before the fields, so that no two lists of fields spell the same bytes."""
    digest = hashlib.blake2b(key=key, digest_size=DIGEST_BYTES)
    for field in fields:
        digest.update(len(field).to_bytes(8, "big"))
        digest.update(field)
    return digest.digest()
