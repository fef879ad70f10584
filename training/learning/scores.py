"""How a model does on labelled rows: logits in batches, and the few figures that training decides by."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from tokenizers import Tokenizer

from training.data.rows import Row
from training.learning.batches import collate, examples, passes
from training.learning.model import LABELS, GuardModel
from training.recipe import Mix

Logits = npt.NDArray[np.float32]
TOKENS_PER_PASS = 4096


def logits_of(model: GuardModel, tokenizer: Tokenizer, rows: Sequence[Row], max_tokens: int) -> Logits:
    """Logits [rows, 9] in the order of the rows."""
    found = examples(tokenizer, rows, max_tokens, Mix())
    out = np.zeros((len(rows), len(LABELS)), np.float32)
    with torch.inference_mode():
        for group in passes(found, TOKENS_PER_PASS):
            batch = collate(group)
            out[batch.indices.numpy()] = model(batch.input_ids, batch.attention_mask).numpy()
    return out


@dataclass(frozen=True, slots=True)
class Figures:
    """Accuracy at p = 0.5, AUROC (0.5 where one class is absent), false alarms and recall, all as shares."""

    rows: int
    accuracy: float
    auroc: float
    false_alarms: float
    recall: float

    def __str__(self) -> str:
        return (
            f"n={self.rows:5d} acc={self.accuracy:.3f} auroc={self.auroc:.3f} "
            f"fpr={self.false_alarms:.3f} recall={self.recall:.3f}"
        )


def figures(unsafe: Sequence[bool], margins: npt.NDArray[np.float32]) -> Figures:
    """Figures of `unsafe` margins (flagged where above zero)."""
    truth, flagged = np.array(unsafe, bool), margins > 0
    both = truth.any() and not truth.all()
    return Figures(
        rows=len(truth),
        accuracy=float((truth == flagged).mean()),
        auroc=float(roc_auc_score(truth, margins)) if both else 0.5,
        false_alarms=float(flagged[~truth].mean()) if (~truth).any() else 0.0,
        recall=float(flagged[truth].mean()) if truth.any() else 0.0,
    )


def by_group(rows: Sequence[Row], margins: npt.NDArray[np.float32]) -> Mapping[str, Figures]:
    """Figures of all rows, of each direction and language, and of each source."""
    groups: dict[str, list[int]] = {"all": list(range(len(rows)))}
    for place, row in enumerate(rows):
        groups.setdefault(f"{row.direction} {row.lang}", []).append(place)
        groups.setdefault(f"source {row.source} {row.lang} {row.direction}", []).append(place)
    return {name: figures([rows[i].unsafe for i in places], margins[places]) for name, places in sorted(groups.items())}


def table(found: Mapping[str, Figures]) -> str:
    """The figures as aligned lines."""
    return "\n".join(f"{name:42s} {line}" for name, line in _ordered(found.items()))


def _ordered(items: Iterable[tuple[str, Figures]]) -> list[tuple[str, Figures]]:
    return sorted(items, key=lambda item: (item[0].startswith("source"), item[0]))
