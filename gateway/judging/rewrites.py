"""How text is changed: spans masked in a body, and the refusal that stands in a text's place."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from gateway.dialects.dialect import Json, Refusal
from gateway.dialects.fields import JSON_MARK
from gateway.judging.masks import masked
from gateway.policy.policy import Action, Decision, Policy, Reason
from gateway.strict.strict_json import NotStrict, decode
from guard_runtime.conversation import Part, Path
from guard_runtime.verdict import Span

_UNREADABLE = {
    "zh": "内容中有安全检查无法读取的部分，因此未予放行。",
    "en": "Part of the content cannot be read by the safety check, so the content was stopped.",
}
_OUTAGE = {
    "zh": "安全检查未能完成，因此内容未予放行。请稍后再试。",
    "en": "The safety check could not be completed, so the content was stopped. Please try again later.",
}
_REFUSAL = {
    "zh": "抱歉，这个内容不符合使用规范，无法提供。",
    "en": "Sorry, this content goes against the usage policy and cannot be provided.",
}
_CASE = {"zh": "（编号 {id}）", "en": " (case {id})"}


class CannotMask(ValueError):
    """A span lies where no text can be put in its place: a key, a definition."""


def with_masks(body: Json, spans: Iterable[Span], parts: Iterable[Part], language: str) -> Json | None:
    """`body` with the spans masked in the parts that were judged; None where one lies in something that no text can
    replace (a key, a definition, a picture put into words)."""
    by_path: dict[Path, list[Span]] = {}
    for span in spans:
        by_path.setdefault(span.path, []).append(span)
    texts = {part.path: part.text for part in parts if part.path in by_path and part.text is not None}
    edits = {path: masked(texts[path], marked, language) for path, marked in by_path.items()}
    try:
        changed: Json = edited(body, edits, texts)
    except CannotMask:
        return None
    return changed


def edited(body: Any, edits: Mapping[Path, str], originals: Mapping[Path, str]) -> Any:
    """A copy of `body` with each path's text replaced; what no edit touches is shared, not copied.

    A path goes on inside a string that holds JSON behind "$json"; that string is written anew. Raises `CannotMask`
    where the value at a path is not the text that was judged."""
    if () in edits:
        if str(body) != originals[()] or isinstance(body, Mapping | list):
            raise CannotMask("a span lies in a definition or a key")
        return edits[()]
    copy: Any = body.copy() if isinstance(body, dict | list) else body
    for key, inner in _by_head(edits).items():
        kept = {path[1:]: text for path, text in originals.items() if path and path[0] == key}
        if key == JSON_MARK:
            return orjson.dumps(edited(_decoded(body), inner, kept)).decode()
        try:
            copy[key] = edited(body[key], inner, kept)
        except (KeyError, IndexError, TypeError) as exc:
            raise CannotMask("a span lies in a definition or a key") from exc
    return copy


def _by_head(edits: Mapping[Path, str]) -> dict[str | int, dict[Path, str]]:
    heads: dict[str | int, dict[Path, str]] = {}
    for (head, *rest), text in edits.items():
        heads.setdefault(head, {})[tuple(rest)] = text
    return heads


def _decoded(text: object) -> Any:
    try:
        return decode(str(text))
    except NotStrict as exc:
        raise CannotMask("a span lies in arguments that are not JSON") from exc


def refusal(policy: Policy, decision: Decision, language: str, *, id: str, created: int = 0) -> Refusal:
    """What the caller reads: the policy's own words in the conversation's language, and the case's number. Never a
    score, a threshold, a rule or a word of the content."""
    match decision.reason:
        case Reason.GUARD_FAILURE:
            texts, code = _OUTAGE, "guard_unavailable"
        case Reason.UNREADABLE | Reason.SEALED:
            texts, code = _UNREADABLE, "content_filter"
        case _:
            texts, code = {**_REFUSAL, **policy.refusal}, "content_filter"
    text = texts.get(language, texts["en"])
    if decision.action is Action.BLOCK:
        text += _CASE.get(language, _CASE["en"]).format(id=id)
    return Refusal(decision, text, id=id, created=created, code=code)
