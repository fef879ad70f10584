"""A plan of the guard as an ONNX graph: float32, or int8 as it ships."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from training.shipping.rounding import Floats, rounded, rounded_rows
from training.shipping.smoothing import Layer, Linear, Norm, Plan

OPSET = 23
"""The first with Attention as one node: ONNX Runtime runs it without a copy of query, key and value by heads."""

CONTRIB = "com.microsoft"
MASKED = -1e4


class Precision(StrEnum):
    FLOAT32 = "fp32"
    INT8 = "int8"


def written(plan: Plan, precision: Precision) -> onnx.ModelProto:
    """int64 input_ids and attention_mask [rows, tokens] -> float32 logits [rows, 9], rows and tokens free."""
    graph = _Graph(precision)
    shown = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    tokens = graph.add("Shape", "input_ids", start=1, end=2)
    state = graph.normed(
        graph.add("Sum", graph.words(plan.words), _places(graph, plan, tokens)), plan.norm, plan.epsilon
    )
    attention = _Attention(_bias(graph, shown, tokens), plan.heads)
    for layer in plan.layers:
        attended = _attended(graph, state, layer, attention)
        state = _transformed(graph, graph.residual(state, attended, layer.out_norm, plan.epsilon), layer, plan.epsilon)
    pooled = _pooled(graph, state, shown)
    graph.add("Gemm", pooled, *map(graph.constant, plan.head), output="logits")
    return graph.model(len(plan.head[1]))


def _places(graph: "_Graph", plan: Plan, tokens: str) -> str:
    zero = graph.constant(np.array([0]))
    return graph.add("Slice", graph.constant(plan.places), zero, tokens, zero)


def _bias(graph: "_Graph", shown: str, tokens: str) -> str:
    """What is added to the attention's logits, [rows, 1, tokens, tokens]: made once, for all layers."""
    hidden = graph.add("Sub", graph.constant(np.float32(1)), shown)
    row = graph.add("Unsqueeze", graph.add("Mul", hidden, graph.constant(np.float32(MASKED))), graph.axes(1, 2))
    return graph.add("Expand", row, graph.add("Concat", graph.axes(1, 1), tokens, tokens, axis=0))


@dataclass(frozen=True, slots=True)
class _Attention:
    """What all layers share: the bias that hides padding (a value's name), and the number of heads."""

    bias: str
    heads: int


def _attended(graph: "_Graph", state: str, layer: Layer, attention: _Attention) -> str:
    parts = graph.linears(state, (layer.query, layer.key, layer.value))
    context = graph.add("Attention", *parts, attention.bias, q_num_heads=attention.heads, kv_num_heads=attention.heads)
    return graph.linear(context, layer.out)


def _transformed(graph: "_Graph", state: str, layer: Layer, epsilon: float) -> str:
    up = graph.linear(graph.add("Mul", state, graph.constant(layer.up_scale)), layer.up)
    inner = graph.add("Mul", graph.add("Gelu", up), graph.constant(layer.down_scale))
    return graph.residual(state, graph.linear(inner, layer.down), layer.norm, epsilon)


def _pooled(graph: "_Graph", state: str, shown: str) -> str:
    """The mean over the tokens that are not padding."""
    share = graph.add("Div", shown, graph.add("ReduceSum", shown, graph.axes(1), keepdims=1))
    return graph.add("Squeeze", graph.add("MatMul", graph.add("Unsqueeze", share, graph.axes(1)), state), graph.axes(1))


class _Graph:
    """Nodes and constants, as they come."""

    def __init__(self, precision: Precision) -> None:
        self.int8 = precision is Precision.INT8
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[np.generic]] = {}

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: object) -> str:
        """A node with one output; its name."""
        (name,) = self.several(kind, inputs, (output or f"{kind}_{len(self.nodes)}",), **attributes)
        return name

    def several(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: object) -> Sequence[str]:
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=f"{kind}.{len(self.nodes)}", **attributes))
        return outputs

    def constant(self, value: NDArray[np.generic] | np.generic) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
        return name

    def axes(self, *numbers: int) -> str:
        return self.constant(np.array(numbers, np.int64))

    def words(self, table: Floats) -> str:
        """Each token's row. In int8 every row has a scale of its own."""
        if not self.int8:
            return self.add("Gather", self.constant(table), "input_ids")
        rows = rounded_rows(table)
        values = self.add("Cast", self.add("Gather", self.constant(rows.values), "input_ids"), to=TensorProto.FLOAT)
        return self.add("Mul", values, self.add("Gather", self.constant(rows.scales), "input_ids"))

    def residual(self, state: str, change: str, norm: Norm, epsilon: float) -> str:
        """Sum, not Add: ONNX Runtime fuses Add and LayerNormalization to a node five times as slow as the two."""
        return self.normed(self.add("Sum", state, change), norm, epsilon)

    def normed(self, state: str, norm: Norm, epsilon: float) -> str:
        wanted = self.constant(norm.weight), self.constant(norm.bias)
        return self.add("LayerNormalization", state, *wanted, epsilon=epsilon)

    def linears(self, state: str, parts: Sequence[Linear]) -> list[str]:
        """Several layers of one input, which int8 rounds once."""
        if not self.int8:
            return [self.linear(state, part) for part in parts]
        count = len(self.nodes)
        outputs = [f"{name}_{count}" for name in ("values", "scale", "zero")]
        values, scale, zero = self.several("DynamicQuantizeLinear", (state,), outputs)
        found = []
        for part in parts:
            weight = rounded(part.weight, part.seen.moments)
            inputs = [values, self.constant(weight.values), scale, self.constant(weight.scales), zero, ""]
            inputs += [self.constant(part.bias)] if part.bias.any() else []
            found.append(self.add("MatMulIntegerToFloat", *inputs, domain=CONTRIB))
        return found

    def linear(self, state: str, part: Linear) -> str:
        if not self.int8:
            return self.add("Add", self.add("MatMul", state, self.constant(part.weight)), self.constant(part.bias))
        weight = rounded(part.weight, part.seen.moments)
        inputs = (state, self.constant(weight.values), self.constant(weight.scales), "", self.constant(part.bias))
        return self.add("DynamicQuantizeMatMul", *inputs, domain=CONTRIB)

    def model(self, labels: int) -> onnx.ModelProto:
        free = ["rows", "tokens"]
        inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, free) for n in ("input_ids", "attention_mask")]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", labels])]
        constants = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, "guard", inputs, outputs, constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=11)
        onnx.checker.check_model(made)
        return made
