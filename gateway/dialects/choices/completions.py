"""POST /v1/completions, the older API that continues a text."""

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from gateway.dialects.choices.choice_stream import ChoiceStream, texts
from gateway.dialects.choices.choices import CHOICE_NAMES, NO_USAGE, read_choices, with_choice, with_refused
from gateway.dialects.choices.vendor_fields import OF_CHOICE, vendor_deltas, vendor_parts, with_vendor_texts
from gateway.dialects.dialect import Channel, Choice, Delta, Json, Refusal
from gateway.dialects.fields import joined, strangers, strings, text, unread_in_answer, usage_in
from gateway.dialects.json_schema import TEXT, TEXT_OR_NULL, TEXTS, TOKENS, Schema, one_of, some
from gateway.dialects.openai_errors import ERROR, blocked_body, error_body
from gateway.dialects.prompts import Decoder, decoded, is_token_ids, read_prompts
from gateway.dialects.request_fields import Bookkeeping, Content, Flag, Identifier, Label, Number, RequestFields, Shape
from gateway.errors import GatewayError
from gateway.policy.policy import Action
from guard_runtime.conversation import Conversation, Kind, Part, Path, Role, Turn

MAX_PROMPTS = 64
_PROMPT: Schema = one_of(TEXT, some(one_of(TEXT, TOKENS), MAX_PROMPTS), TOKENS)
FIELDS = RequestFields(
    {
        "prompt": Content(_PROMPT, free_keys=True),
        "suffix": Content(TEXT_OR_NULL, free_keys=True),
        "stop": Content(one_of(TEXT, TEXTS)),
        "temperature": Number(0, 2),
        "top_p": Number(0, 1),
        "presence_penalty": Number(-2, 2),
        "frequency_penalty": Number(-2, 2),
        "n": Number(1, 128, whole=True),
        "best_of": Number(1, 128, whole=True),
        "max_tokens": Number(0, whole=True),
        "logprobs": Number(0, 20, whole=True),
        "seed": Number(whole=True),
        "stream": Flag(),
        "echo": Flag(),
        "stream_options": Identifier(Shape.OBJECT),
        "logit_bias": Identifier(Shape.OBJECT),
        "user": Label(),
        "metadata": Bookkeeping(),
    },
    required=("prompt",),
)
CHOICE_KNOWN = frozenset({"text", "logprobs", *OF_CHOICE})


class Completions:
    """`decoders` gives a model's tokenizer, by the model's public name: only for such a model are prompts taken as
    token ids, for only then can a guard read them."""

    name = "completions"
    path = "/v1/completions"
    summary = "Completions of a text"
    fields = FIELDS
    error_schema = ERROR
    azure = True
    speaks = True
    annotates = True
    forwarded: frozenset[str] = frozenset()

    def __init__(self, decoders: Mapping[str, Decoder] = MappingProxyType({})) -> None:
        self._decoders = decoders

    def read_request(self, body: Json) -> Conversation:
        FIELDS.check(body)
        options = tuple(_stop(body.get("stop")))
        prompts = read_prompts(body.get("prompt"), "prompt", self._decoders.get(body["model"]), MAX_PROMPTS)
        turns = [Turn(Role.USER, parts) for parts in prompts]
        turns.append(Turn(Role.USER, tuple(text(body.get("suffix"), ("suffix",)))))
        return Conversation(tuple(turn for turn in (Turn(Role.SYSTEM, options), *turns) if turn.parts))

    def read_answer(self, answer: Json, request: Json | None = None) -> tuple[Choice, ...]:
        return read_choices(answer, _answer_parts)

    def normalised(self, answer: Json) -> Json:
        return answer

    def choices(self, body: Json) -> int:
        """`n` for each of the prompts."""
        prompt = body["prompt"]
        prompts = len(prompt) if isinstance(prompt, list) and not is_token_ids(prompt) else 1
        return int(body.get("n") or 1) * prompts

    def usage(self, data: Json) -> Json:
        return usage_in(data)

    def blocked_prompt(self, refusal: Refusal) -> Json:
        return blocked_body(refusal)

    def completion(self, body: Json, refusal: Refusal) -> Json:
        return {
            "id": f"cmpl-{refusal.id}",
            "object": "text_completion",
            "created": refusal.created,
            "model": body["model"],
            "choices": [{"index": 0, "text": refusal.text, "logprobs": None, "finish_reason": "stop"}],
            "usage": NO_USAGE,
        }

    def refused(self, body: Json, answer: Json, position: int, refusal: Refusal) -> Json:
        finish = "content_filter" if refusal.decision.action is Action.BLOCK else "stop"
        return with_refused(answer, position, {"text": refusal.text, "logprobs": None, "finish_reason": finish})

    def instructed(self, body: Json, instruction: str) -> Json:
        """Puts the instruction before the text to be continued; of several prompts only the first is sent again."""
        prompt = body["prompt"]
        first = prompt[0] if isinstance(prompt, list) and not is_token_ids(prompt) else prompt
        if isinstance(first, list):
            first = decoded(first, "prompt", self._decoders.get(body["model"]))
        return {**body, "n": 1, "best_of": 1, "prompt": f"{instruction}\n\n{first}"}

    def with_choice(self, answer: Json, position: int, other: Json) -> Json:
        return with_choice(answer, position, other)

    def error(self, error: GatewayError) -> Json:
        return error_body(error)

    def streams(self, body: Json) -> bool:
        return body.get("stream") is True

    def stream(self, body: Json) -> ChoiceStream:
        return ChoiceStream(
            TextChoice(),
            {"id": "cmpl-", "object": "text_completion", "created": 0, "model": body["model"]},
            expected=self.choices(body),
            usage=(body.get("stream_options") or {}).get("include_usage") is True,
        )


class TextChoice:
    """One choice of a streamed completion."""

    def normalised(self, choice: Any) -> Any:
        return choice

    def without(self, choice: Json, index: int, unknown: Collection[Channel]) -> Json:
        return {key: value for key, value in choice.items() if (index, "choice", key) not in unknown}

    def read(self, choice: Json, index: int) -> Iterator[Delta]:
        yield from texts(choice, {"text": Kind.TEXT}, (index,))
        logprobs = _logprobs_text(choice.get("logprobs"))
        if logprobs and logprobs != choice.get("text"):
            yield Delta((index, "logprobs"), logprobs)
        yield from vendor_deltas(choice, OF_CHOICE, (index, "choice"))
        for key in unread_in_answer(choice, CHOICE_KNOWN, CHOICE_NAMES):
            yield Delta((index, "choice", key), None)

    def edited(self, choice: Json, index: int, texts: Mapping[Channel, str]) -> Json:
        """Logprobs repeat the text token by token, so they are removed."""
        edits: dict[str, str | None] = {"text": texts[index, "text"]} if (index, "text") in texts else {}
        choice = with_vendor_texts(choice, OF_CHOICE, (index, "choice"), texts)
        return {**choice, **edits, **({"logprobs": None} if "logprobs" in choice else {})}

    def refusal_fields(self, refusal: Refusal, *, begun: bool) -> Json:
        return {"text": refusal.text, "logprobs": None}

    def closing_fields(self) -> Json:
        return {"text": "", "logprobs": None}


def _stop(stop: object) -> Iterator[Part]:
    if not isinstance(stop, list):
        yield from text(stop, ("stop",))
        return
    for i, word in enumerate(stop):
        yield from text(word, ("stop", i))


def _answer_parts(choice: Json, path: Path) -> Iterator[Part]:
    yield from text(choice.get("text"), (*path, "text"))
    yield from joined(_logprobs_text(choice.get("logprobs")), (*path, "logprobs"), Kind.TEXT)
    yield from vendor_parts(choice, OF_CHOICE, path)
    yield from strangers(choice, path, CHOICE_KNOWN, CHOICE_NAMES)


def _logprobs_text(logprobs: object) -> str:
    """All text in {tokens, token_logprobs, top_logprobs, text_offset}: the chosen tokens, then all others."""
    if not isinstance(logprobs, Mapping):
        return "\n".join(strings(logprobs))
    tokens = logprobs.get("tokens")
    chosen = "".join(strings(tokens))
    rest = {key: value for key, value in logprobs.items() if key != "tokens"}
    known = frozenset({"token_logprobs", "top_logprobs", "text_offset", *strings(tokens)})
    others = " ".join(word for word in strings(rest) if word not in known)
    return "\n".join(filter(None, (chosen, others)))
