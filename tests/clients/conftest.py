"""One gateway for all clients."""

from collections.abc import Iterator

import pytest

from tests.clients.situations import gateway


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    with gateway() as address:
        yield address
