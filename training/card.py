"""The model card: figures with the command that makes them, licences of the data, known failures."""

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.metrics import roc_auc_score

from guard_runtime.language import LANGUAGES
from training import calibrate
from training.calibrate import Flags, Floats, OperatingPoint
from training.rows import Row

HEAD = """# {name} {version}

A harm classifier for prompts and for answers in their context, Chinese and English: nine logits (`unsafe`, eight
categories) from a cut-down multilingual-e5-small (MIT), int8 ONNX. Made by `make guard`; the figures below are those of
the int8 file. Calibration and thresholds were chosen on the dev rows, so dev figures at a threshold flatter a little.
"""


def dev_lines(rows: Sequence[Row], scores: Floats, calm: Sequence[bool], point: OperatingPoint) -> list[str]:
    """Accuracy, AUROC, false alarms, recall and calibration error on dev, whole and by direction and language."""
    flagged, probability = calibrate.flagged(rows, scores, point), scores.max(axis=1)
    truth = np.array([row.unsafe for row in rows])
    benign = np.array(calm, bool)
    lines = ["| dev rows | n | accuracy | AUROC | false alarms | recall | ECE |", "|---|---|---|---|---|---|---|"]
    parts = {"all": np.ones(len(rows), bool)}
    for direction in calibrate.DIRECTIONS:
        for lang in LANGUAGES:
            parts[f"{direction} {lang}"] = np.array([(r.direction, r.lang) == (direction, lang) for r in rows])
    for source in sorted({row.source for row in rows}):
        parts[source] = np.array([row.source == source for row in rows])
    for name, part in parts.items():
        if part.any():
            lines.append(f"| {name} | {part.sum()} | {_line(truth[part], flagged[part], probability[part])} |")
    return [*lines, "", f"False alarms on benign sources, balanced: {flagged[benign].sum()} of {benign.sum()}"]


def _line(truth: Flags, flagged: Flags, probability: Floats) -> str:
    both = truth.any() and not truth.all()
    cells = [
        f"{(truth == flagged).mean():.3f}",
        f"{roc_auc_score(truth, probability):.3f}" if both else "-",
        f"{flagged[~truth].mean():.3f}" if (~truth).any() else "-",
        f"{flagged[truth].mean():.3f}" if truth.any() else "-",
        f"{calibrate.calibration_error(probability, list(truth)):.3f}",
    ]
    return " | ".join(cells)


def written(name: str, version: str, lines: Sequence[str], notes: Mapping[str, str]) -> str:
    """The card's text."""
    body = "\n\n".join(f"## {title}\n\n{text}" if title else text for title, text in notes.items())
    return HEAD.format(name=name, version=version) + "\n## Dev figures\n\n" + "\n".join(lines) + "\n\n" + body + "\n"
