"""Ship a trained guard: ONNX, int8, calibration, thresholds, golden scores, manifest and card, in one folder."""

import argparse
import datetime
import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer

from training import calibrate, card
from training import model as models
from training.batches import PAD, encode
from training.graph import ShippedGraph
from training.model import LABELS, GuardModel
from training.rows import BadInput, Row, read_rows
from training.scores import logits_of

OPSET = 17
AGREEMENT = 0.99
GOLDEN_TOLERANCE = 0.08
GOLDEN = Path(__file__).parent / "recipes" / "golden.jsonl"
Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Edition:
    """What the manifest calls the guard, and the longest input in tokens that it takes in one piece."""

    name: str
    version: str
    max_tokens: int


class OnnxGraph:
    """An exported graph on one CPU thread."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def logits(self, tokens: Sequence[Sequence[int]]) -> Logits:
        """Logits [rows, 9], each row run alone, as serving runs them: dynamic int8 scales depend on the whole batch."""
        return np.concatenate([self._run(row) for row in tokens])

    def _run(self, row: Sequence[int]) -> Logits:
        ids = np.array([row], np.int64)
        found: Logits = self._session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
        return found


def export(model: GuardModel, path: Path) -> None:
    """Write the float32 graph, batch and length free."""
    ids = torch.full((2, 16), PAD)
    free = {0: "batch", 1: "tokens"}
    torch.onnx.export(
        ShippedGraph(model).eval(),
        (ids, torch.ones_like(ids)),
        str(path),
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_axes={"input_ids": free, "attention_mask": free, "logits": {0: "batch"}},
        opset_version=OPSET,
        dynamo=False,
    )


def quantise(source: Path, target: Path) -> None:
    """Dynamic int8, per channel, seven bits of range so that CPUs with and without VNNI agree; embeddings too."""
    quantize_dynamic(
        str(source),
        str(target),
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT, "MatMulConstBOnly": True},
    )


@dataclass(frozen=True, slots=True)
class Measured:
    """Dev rows with the int8 model's logits, and how often int8 and float32 agree on them."""

    rows: Sequence[Row]
    logits: Logits
    agreement: float


def ship(source: Path, dev: Sequence[Row], edition: Edition, out: Path, notes: Mapping[str, str]) -> Measured:
    """Write the artefact folder. Raises BadInput when int8 changes more than one verdict in a hundred."""
    model, tokenizer = models.load(source).eval(), models.load_tokenizer(source)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        export(model, Path(scratch) / "fp32.onnx")
        quantise(Path(scratch) / "fp32.onnx", out / "model.onnx")
    tokenizer.save(str(out / "tokenizer.json"))
    graph = OnnxGraph(out / "model.onnx")
    logits = graph.logits(encode(tokenizer, dev, edition.max_tokens))
    full = logits_of(model, tokenizer, dev, edition.max_tokens)
    calibration = calibrate.calibrated(dev, logits)
    probability = calibrate.probabilities(dev, logits, calibration)
    agreement = float(((probability > 0.5) == (calibrate.probabilities(dev, full, calibration) > 0.5)).mean())
    if agreement < AGREEMENT:
        raise BadInput(
            f"int8 agrees with float32 on {agreement:.2%} of dev verdicts; at least {AGREEMENT:.0%} is needed"
        )
    scores = calibrate.category_scores(probability, logits)
    benign = calibrate.benign_rows(dev)
    points = calibrate.operating_points(dev, scores, benign)
    measured = Measured(dev, logits, agreement)
    lines = [
        *card.dev_lines(dev, probability, scores, points["balanced"]),
        f"int8 against float32, same verdicts: {agreement:.4f}",
    ]
    (out / "CARD.md").write_text(card.written(edition.name, edition.version, lines, notes), encoding="utf-8")
    manifest = {
        "format": 1,
        "name": edition.name,
        "version": edition.version,
        "family": "classifier",
        "precision": "int8",
        "opset": OPSET,
        "made": datetime.date.today().isoformat(),
        "files": {name: _sha256(out / name) for name in ("model.onnx", "tokenizer.json", "CARD.md")},
        "labels": list(LABELS),
        "max_tokens": edition.max_tokens,
        "calibration": calibration,
        "operating_points": points,
        "golden": golden(graph, tokenizer, calibration, edition.max_tokens),
        "golden_tolerance": GOLDEN_TOLERANCE,
    }
    text = json.dumps(manifest, ensure_ascii=False, indent=1)
    (out / "manifest.json").write_text(text + "\n", encoding="utf-8")
    return measured


def golden(
    graph: OnnxGraph, tokenizer: Tokenizer, calibration: calibrate.Calibration, max_tokens: int
) -> list[dict[str, object]]:
    """The golden texts with the scores this model gives them."""
    rows = read_rows(GOLDEN)
    logits = graph.logits(encode(tokenizer, rows, max_tokens))
    scores = calibrate.category_scores(calibrate.probabilities(rows, logits, calibration), logits)
    return [
        {
            "prompt": row.prompt,
            "response": row.response or None,
            "scores": {c: round(float(s), 5) for c, s in zip(calibrate.CATEGORIES, line, strict=True)},
        }
        for row, line in zip(rows, scores, strict=True)
    ]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> int:
    """`python -m training.ship --model DIR --dev D.jsonl --out DIR --version X.Y.Z`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a folder that training wrote")
    parser.add_argument("--dev", type=Path, required=True, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="libra-mini")
    parser.add_argument("--version", required=True)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--notes", type=Path, help="Markdown for the card: how it was trained, what it fails at")
    given = parser.parse_args()
    try:
        dev = [row for path in given.dev for row in read_rows(path)]
        notes = {"": given.notes.read_text(encoding="utf-8")} if given.notes else {}
        edition = Edition(given.name, given.version, given.max_tokens)
        measured = ship(given.model, dev, edition, given.out, notes)
    except (BadInput, OSError) as exc:
        print(exc, file=sys.stderr)
        return 2
    size = (given.out / "model.onnx").stat().st_size / 1e6
    print(f"{given.out}: {size:.1f} MB, int8 agrees with float32 on {measured.agreement:.2%} of {len(dev)} dev rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
