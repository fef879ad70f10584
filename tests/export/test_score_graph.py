"""The score graph says what transformers says: ragged rows, shared keys, branches, and the whole head."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from export.quantize import Precision, quantize
from export.score_graph import write_head_graph, write_score_graph
from guard_runtime.generative.decoder import Decoder, DecoderShape, Row
from guard_runtime.onnx.session import Graph
from tests.export.tiny import config

LABELS = (5, 9, 20)
ARCHITECTURES = ("qwen2", "qwen3", "llama", "gemma2", "granite")


def model(architecture: str) -> PreTrainedModel:
    torch.manual_seed(3)
    settings = config(architecture)
    settings.vocab_size = 300
    settings.eos_token_id = None
    return AutoModelForCausalLM.from_config(settings, attn_implementation="eager").eval()


def decoder(checkpoint: PreTrainedModel, path: Path) -> Decoder:
    shape = write_score_graph(checkpoint, LABELS, path)
    return Decoder(Graph(path.read_bytes()), DecoderShape(shape.layers, shape.heads, shape.width))


def logits(checkpoint: PreTrainedModel, tokens: list[int]) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = checkpoint(torch.tensor([tokens])).logits[0, -1].numpy()
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_scores_as_transformers_does(architecture: str, tmp_path: Path) -> None:
    checkpoint = model(architecture)
    reader = decoder(checkpoint, tmp_path / "model.onnx")
    random = np.random.default_rng(0)
    head = [int(n) for n in random.integers(0, 300, 50)]
    rows = [[int(n) for n in random.integers(0, 300, length)] for length in (7, 1, 40, 12)]
    (instruction,) = reader.read([Row(head, reader.empty)])
    readings = reader.read([Row(row, instruction.cache) for row in rows])
    for row, reading in zip(rows, readings, strict=True):
        assert reading.labels == pytest.approx(logits(checkpoint, head + row)[list(LABELS)], abs=2e-5)
    branches = reader.read([Row([1, 2], instruction.cache.then(reading.cache)) for reading in readings])
    for row, branch in zip(rows, branches, strict=True):
        assert branch.labels == pytest.approx(logits(checkpoint, [*head, *row, 1, 2])[list(LABELS)], abs=2e-5)
    short = instruction.cache.first(20)
    (rolled,) = reader.read([Row(rows[0], short)])
    assert rolled.labels == pytest.approx(logits(checkpoint, head[:20] + rows[0])[list(LABELS)], abs=2e-5)


@pytest.mark.parametrize("architecture", ["gemma2", "granite"])
def test_the_whole_head_does_what_the_family_does_to_its_logits(architecture: str, tmp_path: Path) -> None:
    checkpoint = model(architecture)
    reader = decoder(checkpoint, tmp_path / "model.onnx")
    write_head_graph(checkpoint, tmp_path / "head.onnx")
    (reading,) = reader.read([Row([1, 2, 3], reader.empty)])
    head = Graph((tmp_path / "head.onnx").read_bytes())
    found = head.run({"hidden": reading.hidden[None]})["logits"][0]
    assert found == pytest.approx(logits(checkpoint, [1, 2, 3]), abs=2e-5)


@pytest.mark.parametrize(("precision", "off"), [(Precision.INT8, 0.3), (Precision.INT4, 1.5)])
def test_fewer_bits_stay_near(precision: Precision, off: float, tmp_path: Path) -> None:
    checkpoint = model("qwen2")
    plain, small = tmp_path / "plain.onnx", tmp_path / "small.onnx"
    shape = write_score_graph(checkpoint, LABELS, plain, bytewise=True)
    quantize(plain, small, precision)
    reader = Decoder(Graph(small.read_bytes()), DecoderShape(shape.layers, shape.heads, shape.width))
    (reading,) = reader.read([Row([1, 2, 3, 4], reader.empty)])
    assert small.stat().st_size < (tmp_path / "plain.onnx").stat().st_size * 1.2
    assert np.abs(reading.labels - logits(checkpoint, [1, 2, 3, 4])[list(LABELS)]).max() < off
