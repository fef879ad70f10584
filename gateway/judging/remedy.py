"""What a judgement does to the text it is about: decided here for prompts, answers and streams alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.judging.judge import Judgement, is_outage
from gateway.policy.policy import Action, Decision, Rewrite, StreamMode
from guard_runtime.conversation import Part
from guard_runtime.verdict import Span


@dataclass(frozen=True, slots=True)
class Pass:
    """The text may go on as it is."""


@dataclass(frozen=True, slots=True)
class Mask:
    """The text may go on with these spans replaced; each lies inside one of the parts."""

    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Replace:
    """A refusal (the decision is BLOCK) or the safe message (REWRITE) stands in the text's place."""

    decision: Decision


@dataclass(frozen=True, slots=True)
class Regenerate:
    """The model is asked again; where that is impossible, as `Replace`."""

    decision: Decision


@dataclass(frozen=True, slots=True)
class Outage:
    """The safety check could not be completed, and the policy stops the text then. It says nothing of the text."""

    decision: Decision


Remedy = Pass | Mask | Replace | Regenerate | Outage


def remedy(judgement: Judgement, parts: Sequence[Part]) -> Remedy:
    """What is done with `parts`, which is what was judged. Pure. Of several rewrites the strongest is taken: a safe
    message over asking again, asking again over a mask. A mask that no guard gave a valid place for becomes a
    `Replace`, so nothing that should be masked goes on unmasked."""
    decision = judgement.decision
    match decision.action:
        case Action.ALLOW | Action.LOG:
            return Pass()
        case Action.BLOCK:
            return Outage(decision) if is_outage(decision) else Replace(decision)
        case Action.REWRITE:
            return _rewrite(judgement, parts)


def stream_remedy(judgement: Judgement, parts: Sequence[Part], mode: StreamMode) -> Remedy:
    """The same for one check of a stream. Text that has left cannot be masked."""
    action = remedy(judgement, parts)
    if isinstance(action, Mask) and mode is StreamMode.ASYNC:
        return Replace(judgement.decision)
    return action


def _rewrite(judgement: Judgement, parts: Sequence[Part]) -> Mask | Replace | Regenerate:
    rewrites = [decision for decision in judgement.decisions if decision.action is Action.REWRITE]
    kinds = {decision.rewrite for decision in rewrites}
    if kinds == {Rewrite.MASK}:
        spans = _valid_spans(judgement, rewrites, parts)
        return Mask(spans) if spans is not None else Replace(judgement.decision)
    if kinds <= {Rewrite.MASK, Rewrite.REGENERATE} and kinds:
        return Regenerate(judgement.decision)
    return Replace(judgement.decision)


def _valid_spans(judgement: Judgement, rewrites: Sequence[Decision], parts: Sequence[Part]) -> tuple[Span, ...] | None:
    """The spans to mask; None where a category has none, or one lies outside the text."""
    categories = {decision.category for decision in rewrites}
    spans = tuple(span for span in judgement.spans if span.category in categories)
    if categories - {span.category for span in spans}:
        return None
    lengths = {part.path: len(part.text) for part in parts if part.text is not None}
    if any(not 0 <= span.start < span.end <= lengths.get(span.path, 0) for span in spans):
        return None
    return spans
