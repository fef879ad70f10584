"""The manifest as it is written: the counterpart of `manifest.py`, which reads it. Pure, except for the last two."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from guard_runtime.artefacts.artefact import MANIFEST
from guard_runtime.artefacts.manifest import FORMAT
from guard_runtime.conversation import Direction, Source
from guard_runtime.guard import Passage
from guard_runtime.text.language import LANGUAGES
from guard_runtime.verdict import CATEGORIES, Category

DIGITS = 6

Cells = Mapping[str, Mapping[str, Mapping[str, float]]]
"""As JSON has it: calibration[direction][language][term], or points[name][direction][category]."""


@dataclass(frozen=True, slots=True)
class ManifestDraft:
    """Everything a manifest says but the checksums of its files. `sections`: `generative`, `encoder`, `frame` and the
    other optional ones."""

    name: str
    version: str
    family: str
    precision: str
    opset: int
    labels: Sequence[str]
    max_tokens: int
    calibration: Cells
    operating_points: Cells
    golden: Sequence[Mapping[str, object]]
    golden_tolerance: float
    made: date
    sections: Mapping[str, object] = field(default_factory=dict)


def manifest_json(draft: ManifestDraft, files: Mapping[str, str]) -> str:
    """`files`: name to sha256. Raises `ValueError` for a number that JSON does not have."""
    content = {
        "format": FORMAT,
        "name": draft.name,
        "version": draft.version,
        "family": draft.family,
        "precision": draft.precision,
        "opset": draft.opset,
        "made": draft.made.isoformat(),
        "files": dict(files),
        "labels": list(draft.labels),
        "max_tokens": draft.max_tokens,
        "calibration": draft.calibration,
        "operating_points": draft.operating_points,
        "golden": list(draft.golden),
        "golden_tolerance": draft.golden_tolerance,
        **draft.sections,
    }
    return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def golden_row(passage: Passage, scores: Mapping[Category, float]) -> dict[str, object]:
    """A text and what it scored. Its source stands there where it is not the usual one of its direction."""
    if passage.direction is Direction.PROMPT:
        texts: dict[str, object] = {"prompt": passage.text, "response": None}
        usual = Source.USER
    else:
        texts = {"prompt": passage.context or "", "response": passage.text}
        usual = Source.ASSISTANT
    source = {} if passage.source is usual else {"source": passage.source.value}
    return {**texts, **source, "scores": {c.value: round(float(scores[c]), DIGITS) for c in CATEGORIES}}


def uncalibrated() -> Cells:
    """A calibration that leaves the guard's own probabilities as they are."""
    plain = {"temperature": 1.0, "bias": 0.0}
    return {direction.value: dict.fromkeys(LANGUAGES, plain) for direction in Direction}


def level_points(thresholds: Iterable[tuple[str, float]]) -> Cells:
    """Operating points with one threshold for every category and direction."""
    return {
        name: {direction.value: {c.value: threshold for c in CATEGORIES} for direction in Direction}
        for name, threshold in thresholds
    }


def checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write_manifest(draft: ManifestDraft, folder: Path) -> None:
    """Writes the manifest of the files that lie in the folder now."""
    (folder / MANIFEST).write_text(manifest_json(draft, checksums(folder)), encoding="utf-8")
