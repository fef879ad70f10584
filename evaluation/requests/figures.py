"""What became of many requests: shares with Wilson intervals, where and why they were stopped, what looking cost."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.requests.outcome import Cost, Effect, Outcome, Target

Z = 1.959964
"""Of a 95 % interval."""


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many, with the 95 % Wilson interval of the share."""

    number: int
    of: int

    @property
    def value(self) -> float:
        return self.number / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        if not self.of:
            return 0.0, 1.0
        middle = self.value + Z**2 / (2 * self.of)
        spread = Z * math.sqrt(self.value * (1 - self.value) / self.of + (Z / (2 * self.of)) ** 2)
        scale = 1 + Z**2 / self.of
        return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


@dataclass(frozen=True, slots=True)
class Group:
    """The outcomes of one kind of row under one domain, language and label; "all" where they are taken together."""

    target: Target
    domain: str
    lang: str
    label: str
    effects: Mapping[Effect, int]

    @property
    def rows(self) -> int:
        return sum(self.effects.values())

    @property
    def stopped(self) -> Share:
        return Share(sum(number for effect, number in self.effects.items() if effect.stops), self.rows)


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of a run. `reasons`: of what was stopped, how many by category, source and place of the window.
    `disagreements`: rows stopped as a whole reply alone, and as a stream alone."""

    groups: tuple[Group, ...]
    reasons: Mapping[str, Mapping[str, int]]
    disagreements: Mapping[str, Sequence[str]]
    cost: Cost


def figures_of(outcomes: Sequence[Outcome]) -> Figures:
    stopped = [outcome for outcome in outcomes if outcome.effect.stops]
    cost = sum((outcome.cost for outcome in outcomes), Cost())
    return Figures(
        groups=(
            *_groups(outcomes, lambda row: ("all", "all")),
            *_groups(outcomes, lambda o: (o.row.domain, o.row.lang)),
        ),
        reasons={
            "category": Counter(str(outcome.category or "none") for outcome in stopped),
            "source": Counter(str(outcome.source or "not told") for outcome in stopped),
            "window": Counter(outcome.window.third.value for outcome in stopped),
        },
        disagreements=_disagreements(outcomes),
        cost=cost,
    )


def _groups(outcomes: Iterable[Outcome], key: Callable[[Outcome], tuple[str, str]]) -> Sequence[Group]:
    effects: dict[tuple[Target, str, str, str], Counter[Effect]] = {}
    for outcome in outcomes:
        domain, lang = key(outcome)
        effects.setdefault((outcome.target, domain, lang, outcome.row.label), Counter())[outcome.effect] += 1
    return [Group(*named, effects[named]) for named in sorted(effects)]


def _disagreements(outcomes: Iterable[Outcome]) -> Mapping[str, Sequence[str]]:
    stops: dict[Target, set[str]] = {target: set() for target in Target}
    streamed: set[str] = set()
    for outcome in outcomes:
        if outcome.target is Target.STREAM:
            streamed.add(outcome.row.id)
        if outcome.effect.stops:
            stops[outcome.target].add(outcome.row.id)
    whole, stream = stops[Target.REPLY] & streamed, stops[Target.STREAM]
    return {"whole_only": sorted(whole - stream), "stream_only": sorted(stream - whole)}


def figures_json(figures: Figures) -> Mapping[str, Any]:
    cost = figures.cost
    return {
        "groups": [
            {
                "target": group.target,
                "domain": group.domain,
                "lang": group.lang,
                "label": group.label,
                "rows": group.rows,
                "effects": {effect.value: group.effects.get(effect, 0) for effect in Effect},
                "stopped": {"share": group.stopped.value, "interval": group.stopped.interval},
            }
            for group in figures.groups
        ],
        "stopped_by": figures.reasons,
        "stream_against_whole": figures.disagreements,
        "cost": {
            "windows": cost.windows,
            "cleared": cost.cleared,
            "cached": cost.cached,
            "tokens": cost.tokens,
            "seconds": cost.seconds,
            "ms_per_1000_tokens": cost.ms_per_1000_tokens,
        },
    }


def figures_text(figures: Figures) -> str:
    names = [effect.value for effect in Effect]
    lines = [f"{'target':8} {'domain':28} {'lang':4} {'label':6} {'rows':>5} " + " ".join(names) + "  stopped %"]
    for group in figures.groups:
        counts = " ".join(f"{group.effects.get(effect, 0):>{len(effect.value)}}" for effect in Effect)
        low, high = group.stopped.interval
        share = f"{100 * group.stopped.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        head = f"{group.target:8} {group.domain:28} {group.lang:4} {group.label:6} {group.rows:>5}"
        lines.append(f"{head} {counts}  {share}")
    for name, counted in figures.reasons.items():
        told = ", ".join(f"{value} {number}" for value, number in sorted(counted.items())) or "nothing"
        lines.append(f"stopped by {name}: {told}")
    for name, ids in figures.disagreements.items():
        lines.append(f"stream against whole, {name}: {len(ids)}")
    cost = figures.cost
    pace = "-" if cost.ms_per_1000_tokens is None else f"{cost.ms_per_1000_tokens:.0f}"
    lines.append(
        f"cost: {cost.windows} windows read, {cost.cleared} cleared by a first stage, {cost.cached} from the cache,"
    )
    lines.append(f"      {cost.tokens} tokens, {pace} ms per 1,000 tokens")
    return "\n".join(lines)
