"""decide(): every branch by table, and what must hold for any score."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.policy import Action, Decision, DirectionPolicy, Reason, Rewrite, Rule, decide, point, worst_of
from gateway.policy.sources import Sources, Treatment
from guard_runtime.conversation import Direction, Source
from guard_runtime.errors import InvalidVerdict
from guard_runtime.verdict import CATEGORIES, Category, Place, SourceScores, Verdict

CRIME = Category.ILLEGAL_ACTIVITIES_AND_CRIME
HATE = Category.HATE_SPEECH_AND_ABUSE
LADDER = (Rule(0.8, Action.BLOCK, place="shop.yaml:3"), Rule(0.5, Action.REWRITE, Rewrite.MASK), Rule(0.2, Action.LOG))


def verdict(**scores: float) -> Verdict:
    return Verdict("g", dict.fromkeys(CATEGORIES, 0.0) | {Category(name): score for name, score in scores.items()})


def decided(score: float) -> Decision:
    rules = DirectionPolicy({CRIME: LADDER})
    found = decide(rules, verdict(illegal_activities_and_crime=score), {}, Direction.PROMPT)
    return worst_of(found, Direction.PROMPT)


@pytest.mark.parametrize(
    ("score", "action"),
    [
        (0.0, Action.ALLOW),
        (0.199, Action.ALLOW),
        (0.2, Action.LOG),
        (0.5, Action.REWRITE),
        (0.79, Action.REWRITE),
        (0.8, Action.BLOCK),
        (1.0, Action.BLOCK),
    ],
)
def test_the_most_severe_rule_that_fires_wins(score: float, action: Action) -> None:
    assert decided(score).action is action


def test_a_decision_says_which_rule_fired_and_by_how_much() -> None:
    decision = decided(0.9)
    assert (decision.reason, decision.category, decision.place) == (Reason.RULE, CRIME, "shop.yaml:3")
    assert decision.margin == pytest.approx(0.1)
    assert decision.rewrite is None
    assert decided(0.6).rewrite is Rewrite.MASK


def test_a_named_operating_point_is_the_guards_own_number_for_that_direction() -> None:
    rules = DirectionPolicy({CRIME: (Rule("balanced", Action.BLOCK),)})
    points = {"balanced": {Direction.PROMPT: {CRIME: 0.7}, Direction.RESPONSE: {CRIME: 0.3}}}
    seen = verdict(illegal_activities_and_crime=0.6)
    assert decide(rules, seen, points, Direction.PROMPT) == ()
    assert decide(rules, seen, points, Direction.RESPONSE)[0].action is Action.BLOCK
    assert decide(rules, seen, {}, Direction.PROMPT)[0].threshold == 0.5


def test_the_worse_category_wins_and_the_higher_score_breaks_a_tie() -> None:
    rules = DirectionPolicy({CRIME: (Rule(0.5, Action.LOG),), HATE: (Rule(0.5, Action.BLOCK),)})
    both = verdict(illegal_activities_and_crime=0.99, hate_speech_and_abuse=0.6)
    assert worst_of(decide(rules, both, {}, Direction.PROMPT), Direction.PROMPT).category is HATE
    rules = DirectionPolicy({CRIME: (Rule(0.5, Action.BLOCK),), HATE: (Rule(0.5, Action.BLOCK),)})
    assert worst_of(decide(rules, both, {}, Direction.PROMPT), Direction.PROMPT).category is CRIME


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_score_never_means_a_milder_action(low: float, high: float) -> None:
    low, high = sorted((low, high))
    assert decided(low).action <= decided(high).action


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, -0.01, 1.01, "0.9", True, None])
def test_a_verdict_with_a_score_that_is_no_probability_cannot_be_made(score: float) -> None:
    with pytest.raises(InvalidVerdict):
        Verdict("g", dict.fromkeys(CATEGORIES, 0.0) | {CRIME: score})


@pytest.mark.parametrize("missing", CATEGORIES)
def test_a_verdict_without_every_category_cannot_be_made(missing: Category) -> None:
    with pytest.raises(InvalidVerdict, match=missing):
        Verdict("g", {category: 0.0 for category in CATEGORIES if category is not missing})


ATTACK = Category.PROMPT_ATTACK
NAMED = DirectionPolicy(
    {CRIME: (Rule("balanced", Action.BLOCK),), ATTACK: (Rule("balanced", Action.BLOCK),)},
)
POINTS = {
    "balanced": {Direction.PROMPT: {CRIME: 0.5, ATTACK: 0.5}},
    "permissive": {Direction.PROMPT: {CRIME: 0.9, ATTACK: 0.9}},
}


def heard(source: Source, **scores: float) -> Verdict:
    plain = verdict(**scores)
    places = {category: Place(("messages", 0), 10, 20, plain.scores[category], 1.5) for category in CATEGORIES}
    return replace(plain, sources=(SourceScores(source, plain.scores, places, 3),))


@pytest.mark.parametrize(
    ("treatment", "attack", "crime", "worse_crime"),
    [
        (Treatment.ALL, True, True, True),
        (Treatment.ATTACKS, True, False, True),
        (Treatment.GRAVE, False, False, True),
        (Treatment.TRUST, False, False, False),
    ],
)
@pytest.mark.parametrize("source", [Source.SYSTEM, Source.TOOL_DEFINITION, Source.TOOL_RESULT, Source.DOCUMENT])
def test_what_a_source_is_judged_for_is_what_its_treatment_says(
    source: Source, treatment: Treatment, attack: bool, crime: bool, worse_crime: bool
) -> None:
    sources = Sources(system=treatment, tools=treatment, results=treatment)
    for scores, fires in (
        ({"prompt_attack": 0.6}, attack),
        ({"illegal_activities_and_crime": 0.6}, crime),
        ({"illegal_activities_and_crime": 0.95}, worse_crime),
    ):
        fired = decide(NAMED, heard(source, **scores), POINTS, Direction.PROMPT, sources)
        assert bool(fired) is fires, scores


@pytest.mark.parametrize("source", [Source.USER, Source.ASSISTANT, Source.TOOL_CALL])
def test_what_people_and_the_model_say_is_judged_for_everything_whatever_the_policy_says(source: Source) -> None:
    nothing = Sources(system=Treatment.TRUST, tools=Treatment.TRUST, results=Treatment.TRUST)
    assert decide(NAMED, heard(source, prompt_attack=0.6), POINTS, Direction.PROMPT, nothing)


def test_an_answer_is_judged_for_everything_and_so_is_a_verdict_that_names_no_source() -> None:
    nothing = Sources(results=Treatment.TRUST)
    assert decide(NAMED, heard(Source.TOOL_RESULT, prompt_attack=0.6), {}, Direction.RESPONSE, nothing)
    assert decide(NAMED, verdict(prompt_attack=0.6), POINTS, Direction.PROMPT, nothing)


def test_a_decision_names_the_source_and_the_window_that_decided() -> None:
    (decision,) = decide(NAMED, heard(Source.USER, prompt_attack=0.6), POINTS, Direction.PROMPT)
    assert decision.source is Source.USER
    assert decision.window == Place(("messages", 0), 10, 20, 0.6, 1.5)


def test_a_score_that_a_rule_writes_as_a_number_is_the_threshold_for_every_source() -> None:
    rules = DirectionPolicy({CRIME: (Rule(0.6, Action.BLOCK),)})
    assert decide(rules, heard(Source.SYSTEM, illegal_activities_and_crime=0.6), POINTS, Direction.PROMPT)


def test_a_guard_without_a_permissive_point_has_it_halfway_from_balanced_to_1() -> None:
    points = {"balanced": {Direction.PROMPT: {CRIME: 0.6}}}
    assert point(points, "permissive", Direction.PROMPT, CRIME) == pytest.approx(0.8)
    assert point({}, "permissive", Direction.PROMPT, CRIME) == pytest.approx(0.75)
