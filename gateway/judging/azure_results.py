"""What Azure's clients read beside an answer: which filter took hold, and how severe what it saw was. Never a score."""

from collections.abc import Mapping
from typing import Any

from gateway.judging.judge import Judgement
from gateway.policy.policy import Action, Reason
from guard_runtime.conversation import Direction
from guard_runtime.verdict import CATEGORIES, Category

HEADER = "x-libragate-annotations"

AZURE: Mapping[str, tuple[Category, ...]] = {
    "hate": (Category.BIAS_AND_DISCRIMINATION, Category.HATE_SPEECH_AND_ABUSE),
    "self_harm": (Category.PHYSICAL_AND_MENTAL_HEALTH,),
}
"""Azure's categories (https://learn.microsoft.com/azure/ai-services/openai/concepts/content-filter) by ours. Our guards
do not tell `sexual` and `violence` apart from the rest, so these two are not claimed to be safe: they are absent."""

SEVERITIES = ("safe", "low", "medium", "high")
BANDS = (0.25, 0.5, 0.75)
"""Risk at which the next severity begins. Few steps, so that a caller cannot search for a threshold with them."""

NOT_FILTERED: Mapping[str, Any] = {
    "error": {"code": "content_filter_error", "message": "The contents are not filtered"}
}
"""Azure's own words for a filter that was down and a deployment that lets content pass then."""


def content_filter_results(judgement: Judgement, direction: Direction) -> Mapping[str, Any]:
    """Azure's names, then our own eight. `filtered`: the policy blocked or rewrote for this category."""
    if judgement.failures:
        return NOT_FILTERED
    results: dict[str, Any] = {name: _graded(judgement, categories) for name, categories in AZURE.items()}
    if direction is Direction.PROMPT:
        attack = _graded(judgement, (Category.PROMPT_ATTACK,))
        results["jailbreak"] = {"filtered": attack["filtered"], "detected": attack["severity"] not in ("safe", "low")}
    results |= {str(category): _graded(judgement, (category,)) for category in CATEGORIES}
    if any(d.reason is Reason.UNREADABLE and d.action >= Action.REWRITE for d in judgement.decisions):
        results["unreadable"] = {"filtered": True, "detected": True}
    return results


def _graded(judgement: Judgement, categories: tuple[Category, ...]) -> dict[str, Any]:
    filtered = any(d.category in categories and d.action >= Action.REWRITE for d in judgement.decisions)
    score = max((verdict.scores[category] for verdict in judgement.verdicts for category in categories), default=0.0)
    level = max(sum(score >= band for band in BANDS), int(filtered))
    return {"filtered": filtered, "severity": SEVERITIES[level]}
