"""From a checkpoint folder to a generative guard's artefact, checked against the checkpoint before it is trusted."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from export.checkpoint import Checkpoint, opened
from export.examples import EXAMPLES
from export.parity import Labelled, Parity, Reference, labelled, parity
from export.quantize import Precision, quantize
from export.render import Renderer, template_of
from export.score_graph import OPSET, Shape, write_head_graph, write_score_graph
from guard_runtime.artefact import Artefact
from guard_runtime.conversation import Direction
from guard_runtime.errors import ArtefactRefused
from guard_runtime.families import FAMILIES, Family
from guard_runtime.generative_loading import generative_model, untested
from guard_runtime.guard import Passage
from guard_runtime.guards.generative import Contract, GenerativeModel
from guard_runtime.language import LANGUAGES
from guard_runtime.manifest import FORMAT, Calibration
from guard_runtime.prompt import Probes, label_tokens, probes_to_json
from guard_runtime.tokens import Vocabulary
from guard_runtime.verdict import CATEGORIES

INT4_OPSET = 21
TOLERANCE = {Precision.FP32: 0.01, Precision.FP16: 0.02, Precision.INT8: 0.1, Precision.INT4: 0.05}
"""How far a golden score may be off on another processor. int8 with and without VNNI differs most."""

_PLACEHOLDER = {"temperature": 1.0, "bias": 0.0}


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be exported. `rows`: a labelled file for parity and AUROC beside the examples that ship.
    `calibration`: a JSON file as the manifest has it; without it T = 1 and b = 0, the guard's own probabilities."""

    checkpoint: Path
    out: Path
    family: str
    precision: Precision = Precision.FP32
    name: str = ""
    version: str = "0.1.0"
    max_tokens: int = 4_096
    calibration: Path | None = None
    rows: Path | None = None
    target: str = "cpu"
    head: bool = True


def export(order: Order) -> Parity:
    """Writes the artefact whole or not at all. Raises `ArtefactRefused` where it cannot be made; an artefact that
    disagrees with its checkpoint is written as unverified, and the runtime refuses it."""
    family = _family(order)
    checkpoint = opened(order.checkpoint)
    vocabulary = Vocabulary(checkpoint.tokenizer)
    template = None if family.wrapper else template_of(order.checkpoint)
    probes = Renderer(family, template, vocabulary).probes()
    _check_tokens(checkpoint, vocabulary, probes)
    if order.out.exists():
        raise ArtefactRefused(f"{order.out}: exists already")
    order.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=order.out.parent, prefix=".export-") as scratch:
        folder = Path(scratch) / "artefact"
        folder.mkdir()
        shape = _write_graphs(order, checkpoint, label_tokens(probes), folder)
        (folder / "tokenizer.json").write_text(checkpoint.tokenizer, "utf-8")
        maker = _Maker(order, family, probes, shape, checkpoint)
        found = maker.finish(folder, vocabulary)
        folder.replace(order.out)
    return found


def _family(order: Order) -> Family:
    if order.family not in FAMILIES:
        raise ArtefactRefused(f"family {order.family!r} is not one of {', '.join(sorted(FAMILIES))}")
    family = FAMILIES[order.family]
    if family.heads:
        raise ArtefactRefused(f"{family.name} has two heads of its own, which are not exported: use qwen3guard_gen")
    if order.target == "tensorrt" and order.precision in (Precision.INT8, Precision.INT4):
        raise ArtefactRefused(f"TensorRT takes no {order.precision} graph of ours: use fp16")
    return family


def _check_tokens(checkpoint: Checkpoint, vocabulary: Vocabulary, probes: Probes) -> None:
    """Every label and control token must be a row of the model's embedding."""
    rows = checkpoint.model.get_input_embeddings().weight.shape[0]
    highest = max((*label_tokens(probes), *vocabulary.controls.values()), default=0)
    if highest >= rows:
        raise ArtefactRefused(f"the tokenizer has token {highest}, the model {rows} embeddings: not of one checkpoint")


def _write_graphs(order: Order, checkpoint: Checkpoint, labels: Sequence[int], folder: Path) -> Shape:
    small = order.precision in (Precision.INT8, Precision.INT4)
    model = checkpoint.model.half() if order.precision is Precision.FP16 else checkpoint.model
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            plain = Path(scratch) / "model.onnx"
            shape = write_score_graph(model, labels, plain, bytewise=small)
            quantize(plain, folder / "model.onnx", order.precision)
            if order.head:
                write_head_graph(model, Path(scratch) / "head.onnx")
                quantize(Path(scratch) / "head.onnx", folder / "head.onnx", order.precision)
    finally:
        checkpoint.model.float()
    outside = [path.name for path in folder.iterdir() if path.suffix == ".data"]
    if outside:
        raise ArtefactRefused(
            f"the {order.precision} graph is larger than one file may be (2 GiB): export it in fewer bits, or serve "
            "the checkpoint with vLLM, SGLang or llama.cpp and `kind: remote`"
        )
    return shape


@dataclass(frozen=True, slots=True)
class _Maker:
    """Writes the manifest twice: first so that the artefact can be served and measured, then with what was measured."""

    order: Order
    family: Family
    probes: Probes
    shape: Shape
    checkpoint: Checkpoint

    def finish(self, folder: Path, vocabulary: Vocabulary) -> Parity:
        draft = self._manifest(folder)
        _write(folder, draft)
        model = untested(Artefact.load(folder))
        rows = [Labelled(passage) for passage in EXAMPLES]
        if self.order.rows is not None:
            rows += labelled(self.order.rows)
        contract = Contract(self.family.name, self.probes, _calibration(draft["calibration"]))
        found = parity(Reference(self.checkpoint, contract, vocabulary), model, rows)
        golden = [_golden(passage, model) for passage in EXAMPLES]
        tolerance = TOLERANCE[self.order.precision]
        section = {**draft["generative"], "verified": found.verified, "parity": found.stored()}
        _card(folder, self.order, found)
        measured = {**draft, "golden": golden, "golden_tolerance": tolerance, "generative": section}
        _write(folder, {**measured, "files": _checksums(folder)})
        generative_model(Artefact.load(folder), unverified=True)
        return found

    def _manifest(self, folder: Path) -> dict[str, Any]:
        order = self.order
        nothing = dict.fromkeys((category.value for category in CATEGORIES), 0.0)
        points = {
            name: {direction.value: dict.fromkeys(nothing, threshold) for direction in Direction}
            for name, threshold in (("balanced", 0.5), ("strict", 0.3))
        }
        calibration = {direction.value: dict.fromkeys(LANGUAGES, _PLACEHOLDER) for direction in Direction}
        if order.calibration is not None:
            calibration = json.loads(order.calibration.read_text("utf-8"))
        return {
            "format": FORMAT,
            "name": order.name or order.checkpoint.name.lower(),
            "version": order.version,
            "family": self.family.name,
            "precision": order.precision.value,
            "opset": INT4_OPSET if order.precision is Precision.INT4 else OPSET,
            "files": _checksums(folder),
            "labels": [word.text for word in self.family.words],
            "max_tokens": min(order.max_tokens, self.shape.context),
            "calibration": calibration,
            "operating_points": points,
            "golden": [_unmeasured(passage) for passage in EXAMPLES],
            "golden_tolerance": 0.2,
            "made": date.today().isoformat(),
            "generative": self._section(),
        }

    def _section(self) -> dict[str, Any]:
        dtype = "float16" if self.order.precision is Precision.FP16 else "float32"
        shape = {"layers": self.shape.layers, "heads": self.shape.heads, "width": self.shape.width, "dtype": dtype}
        return {
            "prompts": probes_to_json(self.probes),
            "label_tokens": list(label_tokens(self.probes)),
            "decoder": shape,
            "stop": list(self.checkpoint.stop),
            "json_key": self.family.json_key,
            "rationale": self.family.rationale,
            "target": self.order.target,
            "verified": False,
            "parity": None,
        }


def _calibration(stored: dict[str, dict[str, dict[str, float]]]) -> dict[Direction, dict[Any, Calibration]]:
    return {Direction(d): {lang: Calibration(**cell) for lang, cell in cells.items()} for d, cells in stored.items()}


def _unmeasured(passage: Passage) -> dict[str, Any]:
    return {**_texts(passage), "scores": {category.value: 0.0 for category in CATEGORIES}}


def _texts(passage: Passage) -> dict[str, Any]:
    if passage.direction is Direction.PROMPT:
        return {"prompt": passage.text, "response": None}
    return {"prompt": passage.context or "", "response": passage.text}


def _golden(passage: Passage, model: GenerativeModel) -> dict[str, Any]:
    (verdict,) = model.forced.predict([passage])
    return {**_texts(passage), "scores": {c.value: round(verdict.scores[c], 6) for c in CATEGORIES}}


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.iterdir() if path.name != "manifest.json")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _write(folder: Path, manifest: dict[str, Any]) -> None:
    text = json.dumps(manifest, ensure_ascii=False, indent=1, allow_nan=False)
    (folder / "manifest.json").write_text(text, "utf-8")


def _card(folder: Path, order: Order, found: Parity) -> None:
    lines = [
        f"# {order.name or order.checkpoint.name}",
        "",
        f"Family {order.family}, {order.precision.value}, for {order.target}; made by `python -m export`.",
        "",
        f"Against the checkpoint in fp32, on {found.rows} rows: verdict agreement {found.agreement:.4f}, "
        f"p99 of the difference in probability {found.p99:.4f}, worst {found.worst:.4f}.",
        f"AUROC: checkpoint {found.auroc_checkpoint}, artefact {found.auroc_artefact}. In form: {found.in_form}.",
        "" if order.calibration else "Not calibrated: its probabilities are the model's own.",
    ]
    (folder / "CARD.md").write_text("\n".join(lines) + "\n", "utf-8")
