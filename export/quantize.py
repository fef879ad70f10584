"""A graph in fewer bits: the weights of its matrix products.

The label head is no matrix product and stays as it is; the embedding is stored in 8 bits by `export.score_graph`.
"""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

BLOCK = 32
LEVEL = 0
"""MatMulNBits multiplies in fp32: level 4 (int8 activations) is faster and turns verdicts over on some models
(onnxruntime #29849, Qwen3-0.6B)."""

_LARGEST_FILE = 2_100_000_000
"""A protobuf holds 2 GiB: larger weights go into a file beside the graph."""


class Precision(StrEnum):
    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"


def quantize(source: Path, target: Path, precision: Precision, operators: Sequence[str] = ("MatMul",)) -> None:
    """Writes `target` from the fp32 or fp16 graph `source`. int8: dynamic, per channel, with reduced range (the same on
    processors without VNNI); products of two activations stay as they are, which optimum's own quantiser has no switch
    for. int4: blocks of 32, activations in fp32. `operators`: whose weights are stored so."""
    match precision:
        case Precision.FP32 | Precision.FP16:
            save(onnx.load(str(source)), target)
        case Precision.INT8:
            _without_shapes(source)
            quantize_dynamic(
                str(source),
                str(target),
                op_types_to_quantize=list(operators),
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
                use_external_data_format=source.stat().st_size > _LARGEST_FILE,
                extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT, "MatMulConstBOnly": True},
            )
        case Precision.INT4:
            quantizer = MatMulNBitsQuantizer(
                onnx.load(str(source)),
                bits=4,
                block_size=BLOCK,
                is_symmetric=True,
                accuracy_level=LEVEL,
                op_types_to_quantize=tuple(operators),
            )
            with np.errstate(divide="ignore", invalid="ignore"):  # it divides rows of noughts, and then sets them to 0
                quantizer.process()
            save(quantizer.model.model, target)


def save(model: onnx.ModelProto, target: Path) -> None:
    """One file, or a graph and one file of weights beside it where a protobuf cannot hold both."""
    if model.ByteSize() < _LARGEST_FILE:
        onnx.save_model(model, str(target))
        return
    onnx.save_model(
        model, str(target), save_as_external_data=True, all_tensors_to_one_file=True, location=f"{target.name}.data"
    )


def _without_shapes(path: Path) -> None:
    """Drops inferred shapes: dynamic quantisation stops where they disagree with its own."""
    model = onnx.load(str(path))
    del model.graph.value_info[:]
    save(model, path)
