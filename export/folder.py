"""An artefact's folder in the making: what was ordered, and the manifest, written before it is measured and after."""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from export.examples import EXAMPLES
from export.parity import Parity
from export.quantize import Precision
from guard_runtime.artefacts.manifest import FORMAT, Calibration
from guard_runtime.conversation import Direction
from guard_runtime.errors import ArtefactRefused
from guard_runtime.guard import Model, Passage
from guard_runtime.text.language import LANGUAGES, Language
from guard_runtime.verdict import CATEGORIES, Verdict

TOLERANCE = {Precision.FP32: 0.01, Precision.FP16: 0.02, Precision.INT8: 0.1, Precision.INT4: 0.05}
"""How far a golden score may be off on another processor. int8 with and without VNNI differs most."""

_PLACEHOLDER = {"temperature": 1.0, "bias": 0.0}


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be exported. `family`: "" where the checkpoint says it. `max_tokens`: 0 for the family's own default.
    `rows`: a labelled file for parity and AUROC beside the examples that ship. `calibration`: a JSON file as the
    manifest has it; without it T = 1 and b = 0, the guard's own probabilities. `labels`: of an encoder."""

    checkpoint: Path
    out: Path
    family: str = ""
    precision: Precision = Precision.FP32
    name: str = ""
    version: str = "0.1.0"
    max_tokens: int = 0
    calibration: Path | None = None
    rows: Path | None = None
    target: str = "cpu"
    head: bool = True
    labels: Path | None = None


@contextmanager
def fresh(out: Path) -> Iterator[Path]:
    """Takes the place of `out` at the end, and is gone where the export fails. Raises `ArtefactRefused`."""
    if out.exists():
        raise ArtefactRefused(f"{out}: exists already")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as scratch:
        folder = Path(scratch) / "artefact"
        folder.mkdir()
        yield folder
        folder.replace(out)


def refuse_external(folder: Path, precision: Precision) -> None:
    """Raises `ArtefactRefused` where a graph keeps its weights in a second file."""
    if any(path.suffix == ".data" for path in folder.iterdir()):
        raise ArtefactRefused(
            f"the {precision} graph is larger than one file may be (2 GiB): export it in fewer bits, or serve "
            "the checkpoint with vLLM, SGLang or llama.cpp and `kind: remote`"
        )


@dataclass(frozen=True, slots=True)
class Draft:
    """A manifest without what is measured. `section`: the key under which the family says how it is read."""

    order: Order
    folder: Path
    section: str
    content: Mapping[str, Any]

    @classmethod
    def of(cls, order: Order, folder: Path, section: str, facts: Mapping[str, Any]) -> "Draft":
        """Writes it. `facts`: family, opset, labels, max_tokens, and the section."""
        points = {
            name: {d.value: dict.fromkeys(_names(), threshold) for d in Direction}
            for name, threshold in (("balanced", 0.5), ("strict", 0.3))
        }
        calibration = {direction.value: dict.fromkeys(LANGUAGES, _PLACEHOLDER) for direction in Direction}
        if order.calibration is not None:
            calibration = json.loads(order.calibration.read_text("utf-8"))
        content = {
            "format": FORMAT,
            "name": order.name or order.checkpoint.name.lower(),
            "version": order.version,
            "precision": order.precision.value,
            "files": checksums(folder),
            "calibration": calibration,
            "operating_points": points,
            "golden": [{**_texts(passage), "scores": dict.fromkeys(_names(), 0.0)} for passage in EXAMPLES],
            "golden_tolerance": 0.2,
            "made": date.today().isoformat(),
            **facts,
        }
        draft = cls(order, folder, section, content)
        draft.write({})
        return draft

    @property
    def calibration(self) -> Mapping[Direction, Mapping[Language, Calibration]]:
        stored = self.content["calibration"]
        return {
            Direction(d): {lang: Calibration(**cell) for lang, cell in cells.items()} for d, cells in stored.items()
        }

    def finish(self, found: Parity, model: Model) -> None:
        """Writes the card, and the manifest with what was measured: golden scores by `model`, and the parity found.
        `model` has read nothing yet, for so it is when it tests itself: in int8 what it remembers moves its scores."""
        golden = [_golden(*row) for row in zip(EXAMPLES, model.predict(EXAMPLES), strict=True)]
        section = {**self.content[self.section], "verified": found.verified, "parity": found.stored()}
        (self.folder / "CARD.md").write_text(_card(self.order, self.content["family"], found), "utf-8")
        self.write(
            {
                "golden": golden,
                "golden_tolerance": TOLERANCE[self.order.precision],
                "files": checksums(self.folder),
                self.section: section,
            }
        )

    def write(self, changes: Mapping[str, Any]) -> None:
        text = json.dumps({**self.content, **changes}, ensure_ascii=False, indent=1, allow_nan=False)
        (self.folder / "manifest.json").write_text(text, "utf-8")


def checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.iterdir() if path.name != "manifest.json")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _names() -> list[str]:
    return [category.value for category in CATEGORIES]


def _texts(passage: Passage) -> dict[str, Any]:
    if passage.direction is Direction.PROMPT:
        return {"prompt": passage.text, "response": None}
    return {"prompt": passage.context or "", "response": passage.text}


def _golden(passage: Passage, verdict: Verdict) -> dict[str, Any]:
    return {**_texts(passage), "scores": {c.value: round(verdict.scores[c], 6) for c in CATEGORIES}}


def _card(order: Order, family: str, found: Parity) -> str:
    lines = [
        f"# {order.name or order.checkpoint.name}",
        "",
        f"Family {family}, {order.precision.value}, for {order.target}; made by `python -m export`.",
        "",
        f"Against the checkpoint in fp32, on {found.rows} rows: verdict agreement {found.agreement:.4f}, "
        f"p99 of the difference in probability {found.p99:.4f}, worst {found.worst:.4f}.",
        f"AUROC: checkpoint {found.auroc_checkpoint}, artefact {found.auroc_artefact}. In form: {found.in_form}.",
        "" if order.calibration else "Not calibrated: its probabilities are the model's own.",
    ]
    return "\n".join(lines) + "\n"
