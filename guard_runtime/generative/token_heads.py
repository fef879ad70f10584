"""Heads that judge every token: where they are read, and how their logits become scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guard_runtime.artefacts.manifest import Calibration
from guard_runtime.conversation import Direction
from guard_runtime.errors import ArtefactRefused, GuardFailed
from guard_runtime.generative.prompt import Segment, Slot, segment_from_json, segment_to_json
from guard_runtime.verdict import CATEGORIES, Category

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TokenHead:
    """One direction's head. `segments` end with the answer, every token of which is judged, or with our own words,
    whose last token is. From `first` on, a token's logits are one for each of `risks`, then one for each of `kinds`;
    `risky` names the risks that mean unsafe. A flag takes `run` risky tokens in a row."""

    segments: tuple[Segment, ...]
    first: int
    risks: tuple[str, ...]
    risky: frozenset[str]
    kinds: tuple[tuple[Category, ...], ...]
    run: int

    def __post_init__(self) -> None:
        if not self.risky or not self.risky < set(self.risks) or len(set(self.risks)) < len(self.risks):
            raise ArtefactRefused(f"a head's risky names {sorted(self.risky)} are not some of {list(self.risks)}")
        if self.first < 0 or self.run < 1 or not self.kinds or not all(self.kinds):
            raise ArtefactRefused("a head needs outputs, kinds that are categories of ours, and a run of 1 or more")
        slots = [segment.slot for segment in self.segments]
        if not any(slots) or Slot.ANSWER in slots[:-1]:
            raise ArtefactRefused("a head's prompt has no words to judge, or goes on after an answer")

    @property
    def every(self) -> bool:
        """Whether every token of the last slot is judged, rather than the prompt's last token."""
        return self.segments[-1].slot is not None

    @property
    def end(self) -> int:
        """Where the next head's logits begin."""
        return self.first + len(self.risks) + len(self.kinds)


Heads = Mapping[Direction, TokenHead]


def margins(head: TokenHead, logits: NDArray[np.floating]) -> Scores:
    """log P(risky) - log P(the others) of each token, [tokens]."""
    risk_logits = logits[:, head.first : head.first + len(head.risks)].astype(np.float64)
    risky = np.array([name in head.risky for name in head.risks])
    return np.asarray(np.logaddexp.reduce(risk_logits[:, risky], 1) - np.logaddexp.reduce(risk_logits[:, ~risky], 1))


def held(values: Scores, run: int) -> Scores:
    """What all of `run` tokens in a row reach, for each such row of tokens. Of fewer tokens, what all of them do: one
    word may be an answer."""
    if len(values) <= run:
        return np.array([values.min()])
    runs: Scores = np.lib.stride_tricks.sliding_window_view(values, run).min(1)
    return runs


def scores(head: TokenHead, logits: NDArray[np.floating], fit: Calibration) -> dict[Category, float]:
    """Every category's highest score in any run of tokens, from logits [tokens, outputs]. A run's whole risk goes to
    the likeliest category at its last token, where it is flagged; the others get their share of it. No tokens: 0.

    Raises `GuardFailed` on numbers that are not finite.
    """
    if not len(logits):
        return dict.fromkeys(CATEGORIES, 0.0)
    if logits.shape[1] < head.end or not np.isfinite(logits).all():
        raise GuardFailed("the heads' logits are not finite numbers, or not as many as the manifest says")
    held_margins = held(margins(head, logits), head.run)
    risks = 1 / (1 + np.exp(-np.clip((held_margins - fit.bias) / fit.temperature, -700, 700)))
    parts = _shares(head, logits[-len(held_margins) :])
    return {category: float((risks * parts[category]).max()) if category in parts else 0.0 for category in CATEGORIES}


def _shares(head: TokenHead, logits: NDArray[np.floating]) -> dict[Category, Scores]:
    """Each category's part of the kinds of harm at each token, the largest being 1."""
    kinds = logits[:, head.first + len(head.risks) : head.end].astype(np.float64)
    likely = np.exp(kinds - kinds.max(1, keepdims=True))
    return {
        category: np.asarray(likely[:, [category in about for about in head.kinds]].max(1))
        for category in dict.fromkeys(category for about in head.kinds for category in about)
    }


def heads_to_json(heads: Heads) -> dict[str, Any]:
    """As the manifest stores them."""
    return {
        direction.value: {
            "segments": [segment_to_json(segment) for segment in head.segments],
            "first": head.first,
            "risks": list(head.risks),
            "risky": sorted(head.risky),
            "kinds": [[category.value for category in about] for about in head.kinds],
            "run": head.run,
        }
        for direction, head in heads.items()
    }


def heads_from_json(stored: object) -> Heads:
    """Raises `ArtefactRefused` where the manifest's heads are not what `heads_to_json` writes, or overlap."""
    if not isinstance(stored, Mapping) or not stored:
        raise ArtefactRefused("the manifest has no heads")
    try:
        heads = {Direction(name): _head(head) for name, head in stored.items()}
    except (KeyError, ValueError, TypeError, AttributeError) as exc:
        raise ArtefactRefused(f"the manifest's heads cannot be read: {exc!r}") from exc
    outputs(tuple(heads.values()))
    return heads


def _head(stored: Mapping[str, Any]) -> TokenHead:
    return TokenHead(
        segments=tuple(segment_from_json(segment) for segment in stored["segments"]),
        first=int(stored["first"]),
        risks=tuple(map(str, stored["risks"])),
        risky=frozenset(stored["risky"]),
        kinds=tuple(tuple(Category(name) for name in about) for about in stored["kinds"]),
        run=int(stored["run"]),
    )


def outputs(heads: Sequence[TokenHead]) -> int:
    """How many logits the heads have together for each token. Raises `ArtefactRefused` where they do not follow one
    another."""
    end = 0
    for head in sorted(heads, key=lambda head: head.first):
        if head.first != end:
            raise ArtefactRefused(f"a head's outputs begin at {head.first}, those before it end at {end}")
        end = head.end
    return end
