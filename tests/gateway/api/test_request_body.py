"""How many messages a request may hold: token ids are one text, whatever their number."""

import pytest

from gateway.api.request_body import require_few
from gateway.errors import BadRequest


def test_more_messages_than_the_limit_are_refused_by_name() -> None:
    with pytest.raises(BadRequest, match="input holds 11 items; the limit here is 10"):
        require_few({"input": ["text"] * 11}, frozenset({"input"}), 10)


def test_token_ids_are_one_text() -> None:
    require_few({"input": [7] * 2_000}, frozenset({"input"}), 10)
