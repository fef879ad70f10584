"""What a judgement does, by table and for any judgement at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.judging.judge import Judgement
from gateway.judging.remedy import Mask, Outage, Pass, Regenerate, Remedy, Replace, remedy
from gateway.policy.policy import Action, Decision, Reason, Rewrite, worst_of
from guard_runtime.conversation import Direction, Part, Path
from guard_runtime.verdict import CATEGORIES, Category, Span, Verdict

PRIVACY, CRIME = Category.PRIVACY_AND_PROPERTY, Category.ILLEGAL_ACTIVITIES_AND_CRIME
PARTS = (Part(("t",), "mail a@b.cn"), Part(("media",), None))


def rule(action: Action, rewrite: Rewrite | None = None, category: Category = PRIVACY) -> Decision:
    return Decision(action, Reason.RULE, Direction.PROMPT, category, 1.0, 0.5, rewrite)


def rewritten(rewrite: Rewrite, category: Category = PRIVACY) -> Decision:
    return rule(Action.REWRITE, rewrite, category)


def failed(action: Action) -> Decision:
    return Decision(action, Reason.GUARD_FAILURE, Direction.PROMPT, guard="g")


def span(start: int = 5, end: int = 11, path: Path = ("t",), category: Category = PRIVACY) -> Span:
    return Span(path, start, end, category, "email")


def judgement(*decisions: Decision, spans: tuple[Span, ...] = ()) -> Judgement:
    verdict = Verdict("g", dict.fromkeys(CATEGORIES, 0.0), spans)
    return Judgement(worst_of(decisions, Direction.PROMPT), decisions, (verdict,))


MASK, SAFE, AGAIN = Rewrite.MASK, Rewrite.SAFE_MESSAGE, Rewrite.REGENERATE
BLOCK = rule(Action.BLOCK)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (judgement(), Pass()),
        (judgement(rule(Action.ALLOW)), Pass()),
        (judgement(rule(Action.LOG)), Pass()),
        (judgement(failed(Action.LOG)), Pass()),
        (judgement(BLOCK), Replace(BLOCK)),
        (judgement(failed(Action.BLOCK)), Outage(failed(Action.BLOCK))),
        # what a guard that did answer says is told, whatever became of the other one
        (judgement(failed(Action.BLOCK), BLOCK), Replace(BLOCK)),
        (judgement(BLOCK, rewritten(MASK), spans=(span(),)), Replace(BLOCK)),
        (judgement(rewritten(SAFE)), Replace(rewritten(SAFE))),
        (judgement(rewritten(AGAIN)), Regenerate(rewritten(AGAIN))),
        (judgement(rewritten(MASK), spans=(span(),)), Mask((span(),))),
        # the strongest rewrite wins
        (judgement(rewritten(MASK), rewritten(AGAIN), spans=(span(),)), Regenerate(rewritten(MASK))),
        (judgement(rewritten(AGAIN), rewritten(SAFE)), Replace(rewritten(AGAIN))),
        (judgement(rewritten(MASK), rewritten(SAFE, CRIME), spans=(span(),)), Replace(rewritten(MASK))),
        # only what a rule asks to mask is masked
        (judgement(rewritten(MASK), spans=(span(), span(0, 4, category=CRIME))), Mask((span(),))),
        (judgement(rewritten(MASK), rule(Action.LOG, None, CRIME), spans=(span(),)), Mask((span(),))),
        # a mask without a valid place for every category is none
        (judgement(rewritten(MASK)), Replace(rewritten(MASK))),
        (judgement(rewritten(MASK), rewritten(MASK, CRIME), spans=(span(),)), Replace(rewritten(MASK))),
        (judgement(rewritten(MASK), spans=(span(5, 99),)), Replace(rewritten(MASK))),
        (judgement(rewritten(MASK), spans=(span(-1, 4),)), Replace(rewritten(MASK))),
        (judgement(rewritten(MASK), spans=(span(4, 4),)), Replace(rewritten(MASK))),
        (judgement(rewritten(MASK), spans=(span(), span(path=("elsewhere",)))), Replace(rewritten(MASK))),
        (judgement(rewritten(MASK), spans=(span(path=("media",)),)), Replace(rewritten(MASK))),
    ],
)
def test_what_a_judgement_does(given: Judgement, expected: Remedy) -> None:
    assert remedy(given, PARTS) == expected


decisions = st.builds(
    Decision,
    st.sampled_from(Action),
    st.sampled_from(Reason),
    st.just(Direction.RESPONSE),
    st.sampled_from([PRIVACY, CRIME, None]),
    st.none() | st.floats(0, 1),
    rewrite=st.sampled_from([*Rewrite, None]),
)
spans = st.builds(
    Span,
    st.sampled_from([("t",), ("media",), ("elsewhere",)]),
    st.integers(-2, 14),
    st.integers(-2, 14),
    st.sampled_from([PRIVACY, CRIME]),
    st.just("label"),
)
judgements = st.builds(
    lambda decided, marked: judgement(*decided, spans=tuple(marked)), st.lists(decisions), st.lists(spans, max_size=4)
)


@given(judgements)
def test_nothing_passes_that_a_rule_or_a_failure_stops(given: Judgement) -> None:
    found, worst = remedy(given, PARTS), given.decision.action
    assert isinstance(found, Pass) == (worst <= Action.LOG)
    assert isinstance(found, Mask | Regenerate) <= (worst is Action.REWRITE)
    assert isinstance(found, Outage) <= (worst is Action.BLOCK and given.decision.reason is Reason.GUARD_FAILURE)


@given(judgements)
def test_a_mask_is_whole_and_covers_every_category_that_is_to_be_masked(given: Judgement) -> None:
    found = remedy(given, PARTS)
    if isinstance(found, Mask):
        rewrites = [decision for decision in given.decisions if decision.action is Action.REWRITE]
        assert {decision.rewrite for decision in rewrites} == {MASK}
        assert {span.category for span in found.spans} == {decision.category for decision in rewrites}
        texts = {part.path: part.text or "" for part in PARTS}
        assert all(texts[span.path][span.start : span.end] for span in found.spans)
