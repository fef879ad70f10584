"""The `anthropic` package against a gateway: each call sees in each situation what reference/clients.md says."""

import pytest

from tests.clients.anthropic_calls import CALLS, STREAMS, seen
from tests.clients.situations import Situation, cases
from tests.clients.table import expected


@pytest.mark.parametrize(("call", "situation"), cases(CALLS, STREAMS))
def test_a_call_sees_what_the_docs_say(url: str, call: str, situation: Situation) -> None:
    assert str(seen(call, url, situation.key, situation.prompt)) == expected("anthropic", call, situation)
