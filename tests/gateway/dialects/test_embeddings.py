"""Embeddings: what goes in is judged, what comes out is numbers; over the served gateway with the OpenAI SDK."""

from collections.abc import Sequence
from typing import Any

import openai
import pytest

from gateway.dialects.embeddings import Embeddings
from gateway.errors import BadRequest, UpstreamError
from gateway.policy.policy import Action, OnBlock, Rewrite
from gateway.upstreams.upstream import Scripted
from guard_runtime.guards.personal_data import PersonalData
from tests.gateway.dialects.full_embeddings import ANSWER
from tests.support.gateway_server import Parts, blocking, client, record, served


def decode(ids: Sequence[int]) -> str:
    return " ".join(["zero", "one", "forbidden"][number] for number in ids)


def answers(body: Any) -> dict[str, Any]:
    count = len(body["input"]) if isinstance(body["input"], list) else 1
    data = [{"object": "embedding", "index": i, "embedding": "AACAPwAAAMA="} for i in range(count)]
    return {"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 2, "total_tokens": 2}}


def embedder() -> Scripted:
    return Scripted("embedder", answers, lambda body: [])


def test_harmless_texts_are_embedded_and_the_upstream_is_asked_for_its_own_model() -> None:
    parts = Parts(upstream=embedder())
    with served(parts.gateway) as url:
        found = client(url).embeddings.create(model="m", input=["one", "two"])
    assert [item.embedding for item in found.data] == [[1.0, -2.0], [1.0, -2.0]]
    path, body = parts.upstream.asked[0]  # type: ignore[attr-defined]
    assert (path, body["model"], body["input"]) == ("/v1/embeddings", "upstream-m", ["one", "two"])
    written = record(parts)
    assert (written["dialect"], written["outcome"], written["tokens"]) == (
        "embeddings",
        "allowed",
        {"prompt_tokens": 2, "total_tokens": 2},
    )
    assert [piece[1] for piece in written["read"]] == ["input[0]", "input[1]"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("on_block", OnBlock)
def test_a_harmful_text_among_several_is_a_400_whatever_the_tenant_prefers_for_answers(on_block: OnBlock) -> None:
    """Numbers cannot say a refusal, and no embedding at all would be taken for an answer."""
    parts = Parts(upstream=embedder(), policy=blocking(on_block=on_block))
    with served(parts.gateway) as url, pytest.raises(openai.BadRequestError) as caught:
        client(url).embeddings.create(model="m", input=["fine", "something forbidden"])
    assert caught.value.code == "content_filter"
    assert parts.upstream.asked == []  # type: ignore[attr-defined]
    assert record(parts)["outcome"] == "blocked"


def test_what_the_policy_masks_is_embedded_masked() -> None:
    upstream = embedder()
    parts = Parts(guards=(PersonalData("rules"),), upstream=upstream, policy=blocking(Action.REWRITE, Rewrite.MASK))
    with served(parts.gateway) as url:
        client(url).embeddings.create(model="m", input=["fine", "mail me at ann@example.com"])
    assert upstream.asked[0][1]["input"] == ["fine", "mail me at [redacted:email]"]


def test_token_ids_are_judged_where_the_models_tokenizer_is_known_and_refused_elsewhere() -> None:
    dialect = Embeddings({"demo": decode})
    for given in ([1, 2], [[1], [1, 2]]):
        texts = [part.text for part in dialect.read_request({"model": "demo", "input": given}).judged]
        assert texts[-1] == "one forbidden"
    with pytest.raises(BadRequest, match="Send the text as a string"):
        dialect.read_request({"model": "other", "input": [1, 2]})


@pytest.mark.parametrize(
    "answer",
    [
        {"data": "none"},
        {"object": "list"},
        {**ANSWER, "data": ["x"]},
        {**ANSWER, "data": [{"index": 0, "embedding": "something to read"}]},
    ],
)
def test_an_answer_with_anything_but_numbers_is_the_providers_failure(answer: Any) -> None:
    parts = Parts(upstream=Scripted("s", lambda body: answer, lambda body: []))
    with served(parts.gateway) as url, pytest.raises(openai.InternalServerError) as caught:
        client(url).with_options(max_retries=0).embeddings.create(model="m", input="fine")
    assert caught.value.status_code == 502
    assert "something to read" not in caught.value.response.text
    assert record(parts)["outcome"] == "upstream_failed"


def test_a_field_nobody_knows_is_dropped() -> None:
    item = {"index": 0, "embedding": [0.1], "said": "something to read"}
    strange = {**ANSWER, "data": [item], "note": "something to read"}
    parts = Parts(upstream=Scripted("s", lambda body: strange, lambda body: []))
    with served(parts.gateway) as url:
        found = client(url).embeddings.create(model="m", input="fine", encoding_format="float")
    assert "something to read" not in found.model_dump_json()
    assert record(parts)["dropped_fields"] == ["note", "said"]


def test_a_policy_may_let_a_strange_field_of_an_answer_pass() -> None:
    strange = {**ANSWER, "note": "something to read"}
    parts = Parts(
        upstream=Scripted("s", lambda body: strange, lambda body: []),
        policy=blocking(passed_fields=frozenset({"note"})),
    )
    with served(parts.gateway) as url:
        found = client(url).embeddings.create(model="m", input="fine", encoding_format="float")
    assert found.model_extra is not None and found.model_extra["note"] == "something to read"


def test_an_embedding_is_never_a_stream() -> None:
    dialect = Embeddings()
    assert not dialect.streams({"stream": True})
    with pytest.raises(BadRequest):
        dialect.stream({})
    with pytest.raises(UpstreamError):
        dialect.read_answer({"data": None})
