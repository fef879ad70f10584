"""How far an artefact is from its checkpoint: torch in fp32 against the artefact itself, served as it will be."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from export.checkpoint import Checkpoint
from export.score_graph import PostHead
from guard_runtime.conversation import Direction
from guard_runtime.errors import ArtefactRefused
from guard_runtime.generative.prompt import Probe, words
from guard_runtime.generative.scoring import margin, probability
from guard_runtime.generative.tokenizer import SafeTokenizer
from guard_runtime.guard import Passage
from guard_runtime.guards.generative import Contract, GenerativeModel
from guard_runtime.text.language import language_of

AGREEMENT = 0.99
"""Below this share of like verdicts an artefact is written as unverified, and the runtime refuses it."""


IN_FORM_ROWS = 64


@dataclass(frozen=True, slots=True)
class Labelled:
    passage: Passage
    unsafe: bool | None = None


@dataclass(frozen=True, slots=True)
class Parity:
    """`agreement`: the share of rows on which both say the same at p = 0.5. `p99`: of |difference in p|. AUROC of both
    on the labelled rows, None without labels of both kinds. `in_form`: the share of rows on which one of the labels
    comes next with P >= 0.95, None without a head."""

    rows: int
    agreement: float
    p99: float
    worst: float
    auroc_checkpoint: float | None
    auroc_artefact: float | None
    in_form: float | None

    @property
    def verified(self) -> bool:
        return self.agreement >= AGREEMENT

    def stored(self) -> dict[str, float | int | None]:
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}


class Reference:
    """The checkpoint itself: one whole prefill in fp32 for each question, no cache, no batch, no padding."""

    def __init__(self, checkpoint: Checkpoint, contract: Contract, tokenizer: SafeTokenizer) -> None:
        self._model = checkpoint.model
        self._contract = contract
        self._tokenizer = tokenizer
        self._post = PostHead(checkpoint.model)

    def risk(self, passage: Passage) -> float:
        """The highest p(unsafe) of the family's questions."""
        fit = self._contract.calibration[passage.direction][language_of(passage.text)]
        margins = [self._margin(probe, passage) for probe in self._contract.probes[passage.direction]]
        return max(probability(found, fit.temperature, fit.bias) for found in margins)

    def _margin(self, probe: Probe, passage: Passage) -> float:
        logits = self.logits(self._tokenizer.tokens(probe.segments, words(passage)))
        return margin(probe, {label.token: float(logits[label.token]) for label in probe.labels})

    def logits(self, tokens: Sequence[int]) -> torch.Tensor:
        """The whole vocabulary's logits after these tokens, as transformers computes them."""
        with torch.no_grad():
            logits: torch.Tensor = self._model(torch.tensor([list(tokens)])).logits[0, -1].float()
        return logits

    def written(self, probe: Probe, passage: Passage, limit: int) -> list[int]:
        """What the checkpoint writes, greedily, when nothing is forced: as its makers' own scripts do."""
        tokens = self._tokenizer.tokens(probe.unforced, words(passage))
        with torch.no_grad():
            found = self._model.generate(torch.tensor([tokens]), max_new_tokens=limit, do_sample=False, num_beams=1)
        return [int(token) for token in found[0, len(tokens) :]]


def parity(reference: Reference, model: GenerativeModel, rows: Sequence[Labelled]) -> Parity:
    """Both read the same rows, one by one."""
    ours = [verdict.risk for row in rows for verdict in model.forced.predict([row.passage])]
    theirs = [reference.risk(row.passage) for row in rows]
    masses = [min(found) for row in rows[:IN_FORM_ROWS] if (found := model.masses(row.passage))]
    in_form = float(np.mean(np.array(masses) >= model.limits.health)) if masses else None
    return compared(ours, theirs, [row.unsafe for row in rows], in_form)


def compared(
    ours: Sequence[float], theirs: Sequence[float], unsafe: Sequence[bool | None], in_form: float | None = None
) -> Parity:
    """p(unsafe) of the artefact and of its checkpoint, on the same rows in the same order."""
    served, meant = np.array(ours), np.array(theirs)
    off = np.abs(served - meant)
    return Parity(
        rows=len(served),
        agreement=float(np.mean((served >= 0.5) == (meant >= 0.5))),
        p99=float(np.quantile(off, 0.99)),
        worst=float(off.max()),
        auroc_checkpoint=auroc(theirs, unsafe),
        auroc_artefact=auroc(ours, unsafe),
        in_form=in_form,
    )


def auroc(scores: Iterable[float], unsafe: Iterable[bool | None]) -> float | None:
    """P(an unsafe row scores above a safe one), ties counting half; None without rows of both kinds."""
    pairs = [(score, label) for score, label in zip(scores, unsafe, strict=True) if label is not None]
    bad = np.array([score for score, label in pairs if label])
    good = np.sort([score for score, label in pairs if not label])
    if not len(bad) or not len(good):
        return None
    below = np.searchsorted(good, bad, side="left")
    ties = np.searchsorted(good, bad, side="right") - below
    found = float((below + 0.5 * ties).mean() / len(good))
    return found if math.isfinite(found) else None


def labelled(path: Path) -> list[Labelled]:
    """Rows of a JSON-lines file: {"prompt": str, "response": str | null, "unsafe": bool (optional)}."""
    rows = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            prompt, response, unsafe = row["prompt"], row.get("response"), row.get("unsafe")
        except (ValueError, KeyError, TypeError) as exc:
            raise ArtefactRefused(f"{path}:{number}: not a row with a prompt: {exc!r}") from exc
        if response is None:
            rows.append(Labelled(Passage(Direction.PROMPT, str(prompt)), unsafe))
        else:
            rows.append(Labelled(Passage.answer(str(response), str(prompt)), unsafe))
    return rows
