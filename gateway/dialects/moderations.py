"""POST /v1/moderations, answered by our own guard in OpenAI's shape. Pure: no upstream is asked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.dialects.dialect import Json
from gateway.dialects.fields import dotted, items, mapping, refuse_unknown, require_names, text
from gateway.dialects.json_schema import TEXT, NamedSchema, Schema, named, one_of, record, some
from gateway.dialects.media import media_part, of_url
from gateway.dialects.openai_errors import ERROR, error_body
from gateway.errors import BadRequest, GatewayError
from gateway.policy.policy import Action, Decision, worst_of
from guard_runtime.conversation import Conversation, Direction, MediaKind, Part, Path, Role, Turn
from guard_runtime.verdict import CATEGORIES, Category, Verdict

MAX_INPUTS = 100

OPENAI: Mapping[str, tuple[Category, ...]] = {
    "harassment": (Category.HATE_SPEECH_AND_ABUSE,),
    "harassment/threatening": (),
    "hate": (Category.BIAS_AND_DISCRIMINATION, Category.HATE_SPEECH_AND_ABUSE),
    "hate/threatening": (),
    "illicit": (Category.ILLEGAL_ACTIVITIES_AND_CRIME,),
    "illicit/violent": (),
    "self-harm": (Category.PHYSICAL_AND_MENTAL_HEALTH,),
    "self-harm/intent": (),
    "self-harm/instructions": (),
    "sexual": (),
    "sexual/minors": (),
    "violence": (),
    "violence/graphic": (),
}
"""OpenAI's categories (https://platform.openai.com/docs/guides/moderation) by ours. Our guards do not tell apart what
the empty ones name: they are never set, and what belongs there is flagged under a category of ours."""


_DIRECTION: Schema = named("prompt", "response")
_FLAGS: Schema = {"type": "object", "additionalProperties": {"type": "boolean"}}
_PART: Schema = one_of(
    record(("type", "text"), type=named("text"), text=TEXT),
    record(("type", "image_url"), type=named("image_url"), image_url=record(("url",), url=TEXT)),
)
REQUEST: Schema = record(
    ("input",),
    model=TEXT,
    input=one_of(TEXT, some(TEXT, MAX_INPUTS), some(_PART)),
    libragate=one_of(
        {**record(("direction",), direction=named("prompt")), "additionalProperties": False},
        {**record(("direction",), direction=named("response"), prompt=TEXT), "additionalProperties": False},
    ),
)
_RESULT: Schema = record(
    ("flagged", "categories", "category_scores", "libragate"),
    flagged={"type": "boolean"},
    categories=_FLAGS,
    category_scores={"type": "object", "additionalProperties": {"type": "number"}},
    libragate=record(
        ("direction", "action", "reason", "categories"), direction=_DIRECTION, action=TEXT, categories=_FLAGS
    ),
)
ANSWER = NamedSchema("Moderation", record(("id", "model", "results"), id=TEXT, model=TEXT, results=some(_RESULT)))


@dataclass(frozen=True, slots=True)
class Finding:
    """The guards' verdicts on one input, and the tenant's policy's decisions."""

    verdicts: tuple[Verdict, ...]
    decisions: tuple[Decision, ...]
    direction: Direction = Direction.PROMPT

    def score(self, category: Category) -> float:
        """The highest of the guards' scores."""
        return max((verdict.scores[category] for verdict in self.verdicts), default=0.0)

    @property
    def decision(self) -> Decision:
        return worst_of(self.decisions, self.direction)

    def flags(self, category: Category) -> bool:
        """Whether the policy would stop or rewrite the text for this category. What it only logs is not flagged."""
        return any(decision.category is category and decision.action >= Action.REWRITE for decision in self.decisions)


class Moderations:
    """Any name will do for `model`, for SDKs send OpenAI's: what answers is the guard, and the answer says which."""

    name = "moderations"
    path = "/v1/moderations"
    summary = "Texts judged by the guards that serve here"
    request_schema = REQUEST
    answer_schema = ANSWER
    error_schema = ERROR

    def read_request(self, body: Json) -> tuple[Conversation, ...]:
        """One conversation for each input. A string is one input, a list of strings as many; a list of parts is one.
        `libragate` says which way the texts travel, OpenAI's fields do not: answers are judged as answers to its
        `prompt`, which is read with each of them and is not judged itself."""
        if not isinstance(body.get("model"), str | None):
            raise BadRequest("model must be a name, or left out", param="model")
        refuse_unknown(body, frozenset({"model", "input", "libragate"}), ())
        options = _options(body.get("libragate"))
        return tuple(options.conversation(tuple(parts)) for parts in _inputs(body.get("input")))

    def answer(self, id: str, model: str, findings: Sequence[Finding], *, scores: bool) -> Json:
        """OpenAI's answer, with our own categories under `libragate`. Without `scores` a score says no more than its
        flag: a caller who sees scores can climb along them."""
        results = [_result(finding, scores=scores) for finding in findings]
        return {"id": f"modr-{id}", "model": model, "results": results}

    def error(self, error: GatewayError) -> Json:
        return error_body(error)


@dataclass(frozen=True, slots=True)
class _Options:
    """Which way the texts travel, and the question they answer."""

    direction: Direction = Direction.PROMPT
    prompt: str = ""

    def conversation(self, parts: tuple[Part, ...]) -> Conversation:
        if self.direction is Direction.PROMPT:
            return Conversation((Turn(Role.USER, parts),))
        question = Turn(Role.USER, tuple(text(self.prompt, ("libragate", "prompt"))))
        return Conversation((question,)).reply(*parts)


def _options(value: object) -> _Options:
    if value is None:
        return _Options()
    options = mapping(value, ("libragate",))
    for key in options.keys() - {"direction", "prompt"}:
        name = dotted(("libragate", key))
        raise BadRequest(f"{name} is an unknown field: there are direction and prompt", param=name)
    direction, prompt = options.get("direction"), options.get("prompt")
    if direction not in tuple(Direction):
        raise BadRequest("libragate.direction must be prompt or response", param="libragate.direction")
    if not isinstance(prompt, str | None) or (prompt is not None and direction == Direction.PROMPT):
        problem = "libragate.prompt must be the text that was answered, with the direction response"
        raise BadRequest(problem, param="libragate.prompt")
    return _Options(Direction(direction), prompt or "")


def _inputs(given: object) -> Iterator[Iterator[Part]]:
    if isinstance(given, str):
        yield text(given, ("input",))
        return
    if not isinstance(given, list) or not given:
        raise BadRequest("input must be a string or a list with at least one", param="input")
    if len(given) > MAX_INPUTS:
        raise BadRequest(f"input holds {len(given)} texts; the limit here is {MAX_INPUTS}", param="input")
    if isinstance(given[0], Mapping):
        yield (part for piece, path in items(given, ("input",)) for part in _parts(piece, path))
        return
    for i, item in enumerate(given):
        if not isinstance(item, str):
            raise BadRequest(f"input[{i}] must be a string", param=f"input[{i}]")
        yield text(item, ("input", i))


def _parts(piece: Json, path: Path) -> Iterator[Part]:
    part_type = piece.get("type")
    if part_type not in ("text", "image_url"):
        name = dotted((*path, "type"))
        raise BadRequest(f"{name} must be one of text, image_url", param=name)
    require_names(piece, frozenset({"type"}), path)
    refuse_unknown(piece, frozenset({"type", str(part_type)}), path)
    if part_type == "image_url":
        holder = piece.get("image_url")
        url = holder.get("url") if isinstance(holder, Mapping) and len(holder) == 1 else holder
        yield from media_part((*path, "image_url"), of_url(MediaKind.IMAGE, url))
    elif isinstance(piece.get("text"), str):
        yield from text(piece["text"], (*path, "text"))
    else:
        name = dotted((*path, "text"))
        raise BadRequest(f"{name} must be a string", param=name)


def _result(finding: Finding, *, scores: bool) -> dict[str, Any]:
    ours = {category: finding.flags(category) for category in CATEGORIES}
    shown = {category: finding.score(category) if scores else float(ours[category]) for category in CATEGORIES}
    return {
        "flagged": finding.decision.action >= Action.REWRITE,
        "categories": {name: any(ours[category] for category in mapped) for name, mapped in OPENAI.items()},
        "category_scores": {
            name: max((shown[category] for category in mapped), default=0.0) for name, mapped in OPENAI.items()
        },
        "category_applied_input_types": {name: ["text"] if mapped else [] for name, mapped in OPENAI.items()},
        "libragate": {
            "direction": str(finding.direction),
            "action": finding.decision.action.name.lower(),
            "reason": str(finding.decision.reason),
            "categories": {str(category): flag for category, flag in ours.items()},
            **({"category_scores": {str(category): score for category, score in shown.items()}} if scores else {}),
        },
    }
