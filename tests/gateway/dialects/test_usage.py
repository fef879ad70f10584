"""What an answer cost is recorded, streamed or not, wherever its dialect says it."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.openapi.everything import BY_PATH, everything
from tests.support.gateway_server import KEY, Parts, record, served

STREAMED = sorted(path for path, full in BY_PATH.items() if full.EVENTS)


@pytest.fixture(scope="module")
def parts() -> Parts:
    return everything()


@pytest.fixture(scope="module")
def url(parts: Parts) -> Iterator[str]:
    with served(parts.gateway) as address:
        yield address


def tokens(url: str, parts: Parts, path: str, **fields: Any) -> dict[str, int]:
    before = len(parts.sink.records)
    body = {**BY_PATH[path].REQUEST, "model": "m", **fields}
    answer = httpx.post(url + path, json=body, headers={"authorization": f"Bearer {KEY}"}, timeout=30)
    assert answer.status_code == 200, answer.text
    counted = record(parts, before + 1)["tokens"]
    assert isinstance(counted, dict)
    return counted


@pytest.mark.parametrize("path", sorted(path for path, full in BY_PATH.items() if "usage" in full.ANSWER))
def test_a_plain_answers_usage_is_recorded(url: str, parts: Parts, path: str) -> None:
    usage = BY_PATH[path].ANSWER["usage"]
    assert tokens(url, parts, path, stream=False) == {k: v for k, v in usage.items() if isinstance(v, int)}


@pytest.mark.parametrize("path", STREAMED)
def test_a_streamed_answers_usage_is_recorded(url: str, parts: Parts, path: str) -> None:
    counted = tokens(url, parts, path, stream=True)
    assert sum(name.startswith(("prompt_", "input_", "completion_", "output_")) for name in counted) >= 2
    assert all(counted.values())
