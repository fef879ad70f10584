"""A first stage: a linear model over a window's tokens that clears the plainly harmless before the encoder runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from guard_runtime.conversation import Source
from guard_runtime.errors import ArtefactRefused
from guard_runtime.text.language import LANGUAGES, Language

FILE = "first_stage.bin"

_TOKEN, _SECOND_TOKEN = np.uint32(2_654_435_761), np.uint32(1_000_003)
_TOKEN_OF_SOURCE, _SOURCE = np.uint32(2_246_822_519), 3_266_489_917
"""Odd multipliers that spread ids over the buckets. They are part of the format: weights belong to these numbers."""

Buckets = npt.NDArray[np.uint32]


def buckets(ids: Sequence[int], source: Source, bits: int) -> Buckets:
    """The buckets [features] of a window: of each token, of each pair of neighbours, of each token in a text of this
    source; each bucket once. A tool result and a document are the same source here."""
    tokens = np.fromiter(ids, np.uint32, len(ids))
    pairs = (tokens[:-1] * _SECOND_TOKEN) ^ (tokens[1:] * _TOKEN)
    of_source = tokens * _TOKEN_OF_SOURCE + np.uint32((_number(source) + 1) * _SOURCE & 0xFFFF_FFFF)
    features = np.concatenate([tokens * _TOKEN, pairs, of_source])
    return np.unique(features & np.uint32((1 << bits) - 1))


def _number(source: Source) -> int:
    return tuple(Source).index(Source.DOCUMENT if source is Source.TOOL_RESULT else source)


@dataclass(frozen=True, slots=True)
class FirstStage:
    """`weights` [2 ** bits]; a window whose score is below the threshold of its source and language is cleared. Where
    no threshold stands nothing is."""

    weights: npt.NDArray[np.float32]
    bits: int
    thresholds: Mapping[Source, Mapping[Language, float]]

    def score(self, ids: Sequence[int], source: Source) -> float:
        """The mean weight of the window's features, times the square root of their number; high is harmful."""
        places = buckets(ids, source, self.bits)
        return float(self.weights[places].sum() / np.sqrt(len(places))) if len(places) else 0.0

    def clears(self, ids: Sequence[int], source: Source, language: Language) -> bool:
        """Whether these tokens need no closer look."""
        threshold = self.thresholds.get(source, {}).get(language)
        return threshold is not None and self.score(ids, source) < threshold


def read(content: bytes, section: Mapping[str, Any]) -> FirstStage:
    """The first stage in an artefact: half-precision little-endian weights, and the manifest's `first_stage` section
    {bits, thresholds: {source: {language: score}}}. Raises `ArtefactRefused`."""
    bits = section["bits"]
    weights = np.frombuffer(content, "<f2").astype(np.float32)
    if len(weights) != 1 << bits or not np.isfinite(weights).all():
        raise ArtefactRefused(f"{FILE} must hold {1 << bits} finite half-precision numbers, as many as 2 ** bits")
    thresholds = {
        Source(source): {language: float(by_language[language]) for language in LANGUAGES if language in by_language}
        for source, by_language in section["thresholds"].items()
    }
    return FirstStage(weights, bits, thresholds)
