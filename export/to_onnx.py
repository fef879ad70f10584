"""From a checkpoint folder to a guard's artefact, checked against the checkpoint before it is trusted."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM

from export import encoder, tokenwise
from export.checkpoint import Checkpoint, encodes, opened
from export.examples import EXAMPLES
from export.folder import Draft, Order, fresh, refuse_external
from export.parity import Labelled, Parity, Reference, labelled, parity
from export.quantize import Precision, quantize
from export.render import Renderer, template_of
from export.score_graph import OPSET, Shape, write_head_graph, write_score_graph
from guard_runtime.artefacts.artefact import Artefact
from guard_runtime.errors import ArtefactRefused
from guard_runtime.generative.families.family import Family
from guard_runtime.generative.families.published import FAMILIES
from guard_runtime.generative.prompt import Probes, label_tokens, probes_to_json
from guard_runtime.generative.tokenizer import SafeTokenizer
from guard_runtime.guards.classifier import FAMILY as CLASSIFIER
from guard_runtime.guards.generative import Contract
from guard_runtime.loading.generative import generative_model, untested

MAX_TOKENS = 4_096
INT4_OPSET = 21


def export(order: Order) -> Parity:
    """Writes the artefact whole or not at all. Raises `ArtefactRefused` where it cannot be made; an artefact that
    disagrees with its checkpoint is written as unverified, and the runtime refuses it."""
    if order.family == CLASSIFIER or (not order.family and encodes(order.checkpoint)):
        return encoder.export(order)
    family = _family(order)
    return tokenwise.export(order, family) if family.heads else _export_decoder(order, family)


def _export_decoder(order: Order, family: Family) -> Parity:
    checkpoint = opened(order.checkpoint, AutoModelForCausalLM)
    tokenizer = SafeTokenizer(checkpoint.tokenizer)
    template = None if family.wrapper else template_of(order.checkpoint)
    probes = Renderer(family, template, tokenizer).probes()
    checkpoint.covers((*label_tokens(probes), *tokenizer.controls.values()))
    with fresh(order.out) as folder:
        shape = _write_graphs(order, checkpoint, label_tokens(probes), folder)
        (folder / "tokenizer.json").write_text(checkpoint.tokenizer, "utf-8")
        return _Maker(order, family, probes, shape, checkpoint).finish(folder, tokenizer)


def _family(order: Order) -> Family:
    if not order.family:
        raise ArtefactRefused(
            f"{order.checkpoint}: no classifier, so say how it is asked: --family, reference/guards.md"
        )
    if order.family not in FAMILIES:
        raise ArtefactRefused(f"family {order.family!r} is not one of {', '.join(sorted(FAMILIES))}")
    family = FAMILIES[order.family]
    if order.target == "tensorrt" and order.precision in (Precision.INT8, Precision.INT4):
        raise ArtefactRefused(f"TensorRT takes no {order.precision} graph of ours: use fp16")
    return family


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
    refuse_external(folder, order.precision)
    return shape


@dataclass(frozen=True, slots=True)
class _Maker:
    """Writes the manifest twice: first so that the artefact can be served and measured, then with what was measured."""

    order: Order
    family: Family
    probes: Probes
    shape: Shape
    checkpoint: Checkpoint

    def finish(self, folder: Path, tokenizer: SafeTokenizer) -> Parity:
        draft = Draft.of(self.order, folder, "generative", self._facts())
        model = untested(Artefact.load(folder))
        rows = [Labelled(passage) for passage in EXAMPLES]
        if self.order.rows is not None:
            rows += labelled(self.order.rows)
        contract = Contract(self.family.name, self.probes, draft.calibration)
        found = parity(Reference(self.checkpoint, contract, tokenizer), model, rows)
        draft.finish(found, untested(Artefact.load(folder)).forced)
        generative_model(Artefact.load(folder), unverified=True)
        return found

    def _facts(self) -> dict[str, Any]:
        return {
            "family": self.family.name,
            "opset": INT4_OPSET if self.order.precision is Precision.INT4 else OPSET,
            "labels": [word.text for word in self.family.words],
            "max_tokens": min(self.order.max_tokens or MAX_TOKENS, self.shape.context),
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
