"""The clients that are programs of their own see what reference/clients.md says. Run by `make test-clients`."""

import pytest

from tests.clients.programs.outside import PROGRAMS, cells
from tests.clients.table import rows


@pytest.mark.parametrize("client", PROGRAMS)
def test_a_client_sees_what_the_docs_say(url: str, client: str) -> None:
    assert cells(client, url) == rows(client)
