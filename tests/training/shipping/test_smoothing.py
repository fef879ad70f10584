"""The graph that ships says what the torch guard says, in float32 and nearly in int8; its nodes are the fast ones."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from tests.training import tiny
from training.data.rows import read_rows
from training.learning import model as models
from training.learning.batches import Batch, collate, examples, passes
from training.learning.model import GuardModel
from training.recipe import Mix
from training.shipping.onnx_graph import OPSET, Precision, written
from training.shipping.rounding import HIGHEST, LOWEST, rounded, rounded_rows
from training.shipping.smoothing import planned

FAR, WIDE = 40.0, 12.0
"""What makes one channel lie far from zero, and another range wide, as they do in trained encoders."""


def batches(folder: Path, base: Path) -> list[Batch]:
    rows = read_rows(tiny.write(folder / "seen.jsonl", tiny.rows(60)))
    return [collate(part) for part in passes(examples(models.load_tokenizer(base), rows, 16, Mix()), 64)]


@pytest.fixture
def guard(base: Path) -> GuardModel:
    """Random weights, biases that are not zero, and channels that are out of line."""
    torch.manual_seed(3)
    model = models.load(base).eval()
    for layer in model.encoder.encoder.layer:
        for part in layer.modules():
            if isinstance(part, torch.nn.Linear | torch.nn.LayerNorm):
                part.bias.data.normal_(0, 0.5)
        layer.output.LayerNorm.bias.data[3] = FAR
        layer.attention.output.LayerNorm.weight.data[5] = WIDE
    return model


def logits(made: onnx.ModelProto, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    [found] = session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
    return np.asarray(found)


def torch_logits(model: GuardModel, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()


def ragged(*lengths: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Random tokens, padded to the longest."""
    draw = np.random.default_rng(sum(lengths))
    ids = np.ones((len(lengths), max(lengths)), np.int64)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = draw.integers(4, len(tiny.PIECES), length)
    return ids, (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)


def test_in_float32_it_computes_the_torch_guards_logits_at_every_length_and_padding(
    guard: GuardModel, base: Path, tmp_path: Path
) -> None:
    made = written(planned(guard, batches(tmp_path, base)), Precision.FLOAT32)
    for lengths in ((1,), (2,), (tiny.POSITIONS,), (6, 4, 1), (9, tiny.POSITIONS, 3)):
        ids, mask = ragged(*lengths)
        assert np.abs(logits(made, ids, mask) - torch_logits(guard, ids, mask)).max() < 1e-4


def test_padding_changes_no_logit(guard: GuardModel, base: Path, tmp_path: Path) -> None:
    made = written(planned(guard, batches(tmp_path, base)), Precision.FLOAT32)
    ids, mask = ragged(7, 12)
    assert np.abs(logits(made, ids, mask)[:1] - logits(made, ids[:1, :7], mask[:1, :7])).max() < 1e-4


def test_in_int8_it_stays_close_though_channels_are_out_of_line(guard: GuardModel, base: Path, tmp_path: Path) -> None:
    seen = batches(tmp_path, base)
    made = written(planned(guard, seen), Precision.INT8)
    inputs = [(batch.input_ids.numpy(), batch.attention_mask.numpy()) for batch in seen]
    exact = np.concatenate([torch_logits(guard, *given) for given in inputs])
    error = np.concatenate([logits(made, *given) for given in inputs]) - exact
    assert np.sqrt(np.square(error).mean()) < 2e-4 * exact.std()


def test_each_layer_is_made_of_fused_nodes_and_every_product_of_weights_is_int8(
    guard: GuardModel, base: Path, tmp_path: Path
) -> None:
    made = written(planned(guard, batches(tmp_path, base)), Precision.INT8)
    kinds = Counter(node.op_type for node in made.graph.node)
    layers = tiny.LAYERS
    assert kinds["Attention"] == kinds["Gelu"] == kinds["DynamicQuantizeLinear"] == layers
    assert kinds["MatMulIntegerToFloat"] == kinds["DynamicQuantizeMatMul"] == 3 * layers
    assert kinds["LayerNormalization"] == kinds["Sum"] == 2 * layers + 1
    assert kinds["MatMul"] == kinds["Gemm"] == 1
    assert not {"Transpose", "Reshape", "Softmax", "Add", "MatMulInteger"} & set(kinds)
    assert max(opset.version for opset in made.opset_import) == OPSET
    int8 = [onnx.numpy_helper.to_array(c) for c in made.graph.initializer if c.data_type == onnx.TensorProto.INT8]
    assert len(int8) == 6 * layers + 1
    assert all(weight.min() >= LOWEST and weight.max() <= HIGHEST for weight in int8[1:])


def test_serving_runs_the_nodes_as_they_were_written(guard: GuardModel, base: Path, tmp_path: Path) -> None:
    """ONNX Runtime would fuse Add and LayerNormalization into a slower node."""
    made = written(planned(guard, batches(tmp_path, base)), Precision.INT8)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "run.onnx")
    ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    run = Counter(node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node)
    written_kinds = Counter(node.op_type for node in made.graph.node)
    heavy = ("Attention", "Gelu", "LayerNormalization", "Sum", "DynamicQuantizeMatMul", "MatMulIntegerToFloat")
    assert {kind: run[kind] for kind in heavy} == {kind: written_kinds[kind] for kind in heavy}


def test_weights_are_rounded_for_the_inputs_they_get() -> None:
    draw = np.random.default_rng(0)
    hidden = draw.standard_normal((4000, 8)) @ draw.standard_normal((8, 32)) + 0.05 * draw.standard_normal((4000, 32))
    weight = draw.standard_normal((32, 24)).astype(np.float32)
    found = rounded(weight, hidden.T @ hidden / len(hidden))
    nearest = np.clip(np.round(weight / found.scales), LOWEST, HIGHEST)

    def error(values: NDArray[np.floating]) -> float:
        return float(np.square(hidden @ (values * found.scales - weight)).mean())

    assert np.abs(found.values * found.scales - weight).max() < 0.2
    assert error(found.values.astype(np.float64)) < 0.5 * error(nearest)


def test_a_channel_never_seen_is_rounded_to_the_nearest() -> None:
    weight = np.random.default_rng(1).standard_normal((16, 4)).astype(np.float32)
    found = rounded(weight, np.zeros((16, 16)))
    assert np.array_equal(found.values, np.clip(np.round(weight / found.scales), LOWEST, HIGHEST))


def test_every_row_of_an_embedding_has_its_own_scale() -> None:
    table = np.array([[1.0, -0.5], [1e-3, 1e-4], [0.0, 0.0]], np.float32)
    found = rounded_rows(table)
    assert np.allclose(found.values * found.scales, table, rtol=0.01, atol=1e-5)
