"""Outcomes counted by domain, language and label, as text and JSON, and held against the release's thresholds."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation.metrics import Figure, wilson
from evaluation.requests.outcome import Cost, Effect, Outcome, Target

THRESHOLDS = Path(__file__).with_name("thresholds.json")


@dataclass(frozen=True, slots=True)
class Group:
    """The outcomes of one target, domain, language and label."""

    target: str
    domain: str
    lang: str
    label: str
    outcomes: Sequence[Outcome]

    @property
    def counts(self) -> Mapping[Effect, int]:
        return Counter(outcome.effect for outcome in self.outcomes)

    @property
    def blocked(self) -> Figure:
        return wilson(self.counts.get(Effect.BLOCKED, 0), len(self.outcomes))

    @property
    def caught(self) -> Figure:
        return wilson(sum(outcome.effect.stops for outcome in self.outcomes), len(self.outcomes))

    @property
    def cost(self) -> Cost:
        return sum((outcome.cost for outcome in self.outcomes), Cost())


def groups(outcomes: Iterable[Outcome]) -> list[Group]:
    """Every group there is, in order."""
    cells: dict[tuple[str, str, str, str], list[Outcome]] = {}
    for one in outcomes:
        key = (one.target.value, one.row.domain, one.row.lang, one.row.label)
        cells.setdefault(key, []).append(one)
    return [Group(*key, found) for key, found in sorted(cells.items())]


def reasons(outcomes: Iterable[Outcome]) -> list[tuple[tuple[str, ...], int]]:
    """What stopped requests: domain, label, category, source and place of the window, the most frequent first."""
    stopped = (one for one in outcomes if one.effect.stops)
    keys = (
        (one.row.domain, one.row.label, one.category or "-", one.source or "-", one.window.third) for one in stopped
    )
    return [(tuple(map(str, key)), number) for key, number in Counter(keys).most_common()]


def disagreements(outcomes: Iterable[Outcome]) -> tuple[int, int, int]:
    """Replies that only the stream stops, that only the whole reading stops, and all that were read both ways."""
    stopped: dict[str, dict[Target, bool]] = {}
    for one in outcomes:
        stopped.setdefault(one.row.id, {})[one.target] = one.effect.stops
    both = [found for found in stopped.values() if Target.STREAM in found and Target.REPLY in found]
    stream_only = sum(found[Target.STREAM] and not found[Target.REPLY] for found in both)
    whole_only = sum(found[Target.REPLY] and not found[Target.STREAM] for found in both)
    return stream_only, whole_only, len(both)


def text(outcomes: Sequence[Outcome], described: Mapping[str, str]) -> str:
    """The tables for a terminal."""
    lines = [", ".join(f"{name}: {value}" for name, value in described.items())]
    names = "".join(f"{effect.value:>15}" for effect in Effect)
    lines.append(f"{'':8}{'domain':30}{'label':7}{'n':>5}  {'blocked':22}{names}{'windows':>9}{'tokens':>9}")
    for group in groups(outcomes):
        counts = "".join(f"{group.counts.get(effect, 0):>15}" for effect in Effect)
        number, cost = len(group.outcomes), group.cost
        lines.append(
            f"{group.target:8}{group.domain:26}{group.lang:4}{group.label:7}{number:>5}  {group.blocked!s:22}{counts}"
            f"{cost.windows / number:>9.1f}{cost.tokens / number:>9.0f}"
        )
    lines.append("stopped by (domain, label, category, source, place in the part)")
    lines += [f"{number:>6}  {', '.join(key)}" for key, number in reasons(outcomes)]
    stream_only, whole_only, both = disagreements(outcomes)
    if both:
        lines.append(f"streams: {both} replies, {stream_only} stopped as a stream only, {whole_only} whole only")
    total = sum((one.cost for one in outcomes), Cost())
    ms = total.ms_per_1000_tokens
    lines.append(f"cost: {total.windows} windows, {total.tokens} tokens, {ms or 0:.0f} ms per 1,000 tokens")
    return "\n".join(lines)


def plain(outcomes: Sequence[Outcome], described: Mapping[str, str]) -> Mapping[str, Any]:
    """The same for JSON; without content."""
    return {
        **described,
        "groups": [
            {"target": one.target, "domain": one.domain, "lang": one.lang, "label": one.label}
            | {"number": len(one.outcomes), "counts": {str(effect): n for effect, n in one.counts.items()}}
            | {"blocked": asdict(one.blocked), "caught": asdict(one.caught), "cost": asdict(one.cost)}
            for one in groups(outcomes)
        ],
        "reasons": [[*key, number] for key, number in reasons(outcomes)],
        "stream only, whole only, replies": disagreements(outcomes),
    }


def misses(outcomes: Sequence[Outcome]) -> list[str]:
    """Every threshold of the release that is missed, in words."""
    limits = json.loads(THRESHOLDS.read_text(encoding="utf-8"))
    missed = []
    for group in groups(outcomes):
        name = f"{group.target} {group.domain} {group.lang} {group.label}"
        limit = limits["caught" if group.label == "unsafe" else "blocked"]
        limit = limit.get(group.domain, limit["default"])
        if group.label == "safe" and (group.blocked.value or 0) > limit:
            missed.append(f"{name}: blocked {group.blocked}, at most {limit}")
        if group.label == "unsafe" and (group.caught.value or 0) < limit:
            missed.append(f"{name}: caught {group.caught}, at least {limit}")
        unread = group.counts.get(Effect.COULD_NOT_LOOK, 0) / len(group.outcomes)
        if unread > limits["could not look"]:
            missed.append(f"{name}: {unread:.1%} could not be looked at")
    stream_only, whole_only, both = disagreements(outcomes)
    if both and (stream_only + whole_only) / both > limits["stream disagreements"]:
        missed.append(f"streams: {stream_only + whole_only} of {both} replies judged otherwise than whole")
    return missed
