"""POST /v1/embeddings: the texts that go in are judged; what comes out is numbers."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NoReturn

from gateway.dialects.dialect import Choice, Json, Refusal
from gateway.dialects.fields import items, strangers, usage_in
from gateway.dialects.json_schema import TEXT, TOKENS, Schema, one_of, some
from gateway.dialects.openai_errors import ERROR, blocked_body, error_body
from gateway.dialects.prompts import Decoder, read_prompts
from gateway.dialects.request_fields import Bookkeeping, Content, Identifier, Label, Number, RequestFields
from gateway.errors import BadRequest, GatewayError, UpstreamError
from guard_runtime.conversation import Conversation, Part, Role, Turn

MAX_INPUTS = 2048
"""OpenAI's own limit: https://platform.openai.com/docs/api-reference/embeddings/create"""
_INPUT: Schema = one_of(TEXT, some(one_of(TEXT, TOKENS), MAX_INPUTS), TOKENS)
FIELDS = RequestFields(
    {
        "input": Content(_INPUT, counted=True, free_keys=True),
        "dimensions": Number(1, whole=True),
        "encoding_format": Identifier(),
        "user": Label(),
        "metadata": Bookkeeping(),
    },
    required=("input",),
)
ANSWER_NAMES = frozenset({"object", "model", "usage", "id"})
ITEM_NAMES = frozenset({"object", "index"})


class Embeddings:
    """`decoders` gives a model's tokenizer, by the model's public name: only for such a model is input taken as token
    ids."""

    name = "embeddings"
    path = "/v1/embeddings"
    summary = "Embeddings of texts"
    fields = FIELDS
    error_schema = ERROR
    azure = True
    speaks = False
    annotates = False
    forwarded: frozenset[str] = frozenset()

    def __init__(self, decoders: Mapping[str, Decoder] = MappingProxyType({})) -> None:
        self._decoders = decoders

    def read_request(self, body: Json) -> Conversation:
        if body.get("stream"):
            raise BadRequest("embeddings are not streamed: leave stream out", param="stream")
        FIELDS.check(body)
        inputs = read_prompts(body.get("input"), "input", self._decoders.get(body["model"]), MAX_INPUTS)
        for i, parts in enumerate(inputs):
            if not parts:
                name = f"input[{i}]" if isinstance(body["input"], list) else "input"
                raise BadRequest(f"{name} is empty: there is nothing to embed", param=name)
        return Conversation(tuple(Turn(Role.USER, parts) for parts in inputs))

    def read_answer(self, answer: Json, request: Json | None = None) -> tuple[Choice, ...]:
        if not isinstance(answer, Mapping) or not isinstance(answer.get("data"), list):
            raise UpstreamError("The model's provider sent an answer without embeddings.")
        try:
            return (Choice(0, tuple(_unread(answer))),)
        except BadRequest as exc:
            raise UpstreamError(f"The model's provider sent an answer that cannot be read: {exc}") from exc

    def normalised(self, answer: Json) -> Json:
        return answer

    def choices(self, body: Json) -> int:
        return 1

    def usage(self, data: Json) -> Json:
        return usage_in(data)

    def blocked_prompt(self, refusal: Refusal) -> Json:
        return blocked_body(refusal)

    def completion(self, body: Json, refusal: Refusal) -> Json:
        """The 400 again: numbers cannot say a refusal."""
        return self.blocked_prompt(refusal)

    def refused(self, body: Json, answer: Json, position: int, refusal: Refusal) -> NoReturn:
        """What is no embedding and may not pass is the provider's failure: there is no text that could be harmful."""
        raise UpstreamError("The model's provider sent more than embeddings, which cannot be checked.")

    def instructed(self, body: Json, instruction: str) -> Json:
        """The same request: it has no place for an instruction."""
        return body

    def with_choice(self, answer: Json, position: int, other: Json) -> Json:
        return other

    def error(self, error: GatewayError) -> Json:
        return error_body(error)

    def streams(self, body: Json) -> bool:
        return False

    def stream(self, body: Json) -> NoReturn:
        raise BadRequest("embeddings are not streamed: leave stream out", param="stream")


def _unread(answer: Json) -> Iterator[Part]:
    """Whatever in the answer is not numbers, base64 of numbers, ids and counts."""
    yield from strangers(answer, (), frozenset({"data"}), ANSWER_NAMES)
    for item, path in items(answer["data"], ("data",)):
        if not _is_vector(item.get("embedding")):
            yield Part((*path, "embedding"), None)
        yield from strangers(item, path, frozenset({"embedding"}), ITEM_NAMES)


def _is_vector(value: object) -> bool:
    if isinstance(value, str):
        try:
            return len(base64.b64decode(value, validate=True)) % 4 == 0  # 32-bit floats
        except ValueError:
            return False
    return isinstance(value, Sequence) and all(isinstance(number, int | float) for number in value)
