"""An artefact's folder in the making: what was ordered, and the manifest, written before it is measured and after."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from export.examples import EXAMPLES
from export.parity import Parity
from export.quantize import Precision
from guard_runtime.artefacts.manifest import MAX_TOLERANCE, Calibration
from guard_runtime.artefacts.writing import ManifestDraft, golden_row, level_points, uncalibrated, write_manifest
from guard_runtime.conversation import Direction
from guard_runtime.errors import ArtefactRefused
from guard_runtime.guard import BALANCED, STRICT, Model
from guard_runtime.text.language import LANGUAGES, Language
from guard_runtime.verdict import CATEGORIES

TOLERANCE = {Precision.FP32: 0.01, Precision.FP16: 0.02, Precision.INT8: 0.1, Precision.INT4: 0.05}
"""How far a golden score may be off on another processor. int8 with and without VNNI differs most."""

THRESHOLDS = {BALANCED: 0.5, STRICT: 0.3}


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
    manifest: ManifestDraft

    @classmethod
    def of(cls, order: Order, folder: Path, section: str, facts: Mapping[str, Any]) -> "Draft":
        """Writes it. `facts`: family, opset, labels, max_tokens, and the section."""
        calibration = uncalibrated()
        if order.calibration is not None:
            calibration = json.loads(order.calibration.read_text("utf-8"))
        manifest = ManifestDraft(
            name=order.name or order.checkpoint.name.lower(),
            version=order.version,
            family=facts["family"],
            precision=order.precision.value,
            opset=facts["opset"],
            labels=facts["labels"],
            max_tokens=facts["max_tokens"],
            calibration=calibration,
            operating_points=level_points(THRESHOLDS.items()),
            golden=[golden_row(passage, dict.fromkeys(CATEGORIES, 0.0)) for passage in EXAMPLES],
            golden_tolerance=MAX_TOLERANCE,
            made=date.today(),
            sections={section: facts[section]},
        )
        write_manifest(manifest, folder)
        return cls(order, folder, section, manifest)

    @property
    def calibration(self) -> Mapping[Direction, Mapping[Language, Calibration]]:
        return {
            Direction(direction): {language: Calibration(**cells[language]) for language in LANGUAGES}
            for direction, cells in self.manifest.calibration.items()
        }

    def finish(self, measured: Parity, model: Model) -> None:
        """Writes the card, and the manifest with what was measured: golden scores by `model`, and the parity. `model`
        has read nothing yet, as when it tests itself: in int8 what it has cached moves its scores."""
        verdicts = model.predict(EXAMPLES)
        stored = {**self.facts, "verified": measured.verified, "parity": measured.stored()}
        (self.folder / "CARD.md").write_text(_card(self.order, self.manifest.family, measured), "utf-8")
        manifest = replace(
            self.manifest,
            golden=[golden_row(passage, v.scores) for passage, v in zip(EXAMPLES, verdicts, strict=True)],
            golden_tolerance=TOLERANCE[self.order.precision],
            sections={self.section: stored},
        )
        write_manifest(manifest, self.folder)

    @property
    def facts(self) -> Mapping[str, Any]:
        """The section, as it stands before parity is measured."""
        stored = self.manifest.sections[self.section]
        return stored if isinstance(stored, dict) else {}


def _card(order: Order, family: str, measured: Parity) -> str:
    lines = [
        f"# {order.name or order.checkpoint.name}",
        "",
        f"Family {family}, {order.precision.value}, for {order.target}; made by `python -m export`.",
        "",
        f"Against the checkpoint in fp32, on {measured.rows} rows: verdict agreement {measured.agreement:.4f}, "
        f"p99 of the difference in probability {measured.p99:.4f}, worst {measured.worst:.4f}.",
        f"AUROC: checkpoint {measured.auroc_checkpoint}, artefact {measured.auroc_artefact}. "
        f"In form: {measured.in_form}.",
        "" if order.calibration else "Not calibrated: its probabilities are the model's own.",
    ]
    return "\n".join(lines) + "\n"
