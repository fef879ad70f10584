"""From a checkpoint with heads that judge every token to an artefact, checked against the checkpoint at every token."""

import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoModel

from export.checkpoint import Checkpoint, opened
from export.examples import EXAMPLES
from export.folder import Draft, Order, fresh, refuse_external
from export.parity import Labelled, Parity, compared, labelled
from export.quantize import Precision, quantize
from export.render import Renderer, template_of
from export.score_graph import OPSET, Shape, TokenHeads, write_token_graph
from export.token_heads import TokenReference, heads_of
from guard_runtime.artefacts.artefact import Artefact
from guard_runtime.generative.families.family import Family
from guard_runtime.generative.token_heads import Heads, heads_to_json
from guard_runtime.generative.tokenizer import SafeTokenizer
from guard_runtime.guards.tokenwise import TokenContract
from guard_runtime.loading.generative import generative_model, untested_tokenwise

MAX_TOKENS = 4_096
INT4_OPSET = 21


def export(order: Order, family: Family) -> Parity:
    """Writes the artefact whole or not at all: see `export.to_onnx.export`."""
    checkpoint = opened(order.checkpoint, AutoModel, known=True)
    tokenizer = SafeTokenizer(checkpoint.tokenizer)
    heads = Renderer(family, template_of(order.checkpoint), tokenizer).heads()
    modules = heads_of(checkpoint, family)
    checkpoint.covers(tokenizer.controls.values())
    with fresh(order.out) as folder:
        shape = _write_graph(order, checkpoint, modules, folder)
        (folder / "tokenizer.json").write_text(checkpoint.tokenizer, "utf-8")
        refuse_external(folder, order.precision)
        draft = Draft.of(order, folder, "generative", _facts(order, family, shape, heads))
        model = untested_tokenwise(Artefact.load(folder))
        rows = [*map(Labelled, EXAMPLES), *(labelled(order.rows) if order.rows is not None else ())]
        contract = TokenContract(family.name, heads, draft.calibration)
        reference = TokenReference(checkpoint, modules, contract, tokenizer)
        found = compared(
            [verdict.risk for row in rows for verdict in model.predict([row.passage])],
            [reference.risk(row.passage) for row in rows],
            [row.unsafe for row in rows],
        )
        draft.finish(found, model)
        generative_model(Artefact.load(folder), unverified=True)
    return found


def _write_graph(order: Order, checkpoint: Checkpoint, heads: TokenHeads, folder: Path) -> Shape:
    small = order.precision in (Precision.INT8, Precision.INT4)
    model = checkpoint.model.half() if order.precision is Precision.FP16 else checkpoint.model
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            plain = Path(scratch) / "model.onnx"
            shape = write_token_graph(model, heads, plain, bytewise=small)
            quantize(plain, folder / "model.onnx", order.precision)
    finally:
        checkpoint.model.float()
    return shape


def _facts(order: Order, family: Family, shape: Shape, heads: Heads) -> dict[str, Any]:
    dtype = "float16" if order.precision is Precision.FP16 else "float32"
    return {
        "family": family.name,
        "opset": INT4_OPSET if order.precision is Precision.INT4 else OPSET,
        "labels": list(dict.fromkeys(risk for head in heads.values() for risk in head.risks)),
        "max_tokens": min(order.max_tokens or MAX_TOKENS, shape.context),
        "generative": {
            "heads": heads_to_json(heads),
            "decoder": {"layers": shape.layers, "heads": shape.heads, "width": shape.width, "dtype": dtype},
            "target": order.target,
            "verified": False,
            "parity": None,
        },
    }
