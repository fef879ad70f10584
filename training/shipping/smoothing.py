"""The guard's weights as they ship: the same function as GuardModel, moved to where int8 changes it little.

Nothing here changes a float32 logit by more than rounding; reference/artefact.md says what each step is worth.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertLayer

from training.learning.batches import Batch
from training.learning.model import GuardModel
from training.shipping.rounding import Floats

SHIFTED = 0.8
"""SmoothQuant's alpha (arXiv:2211.10438), how much of a channel's size its weights take over. Against float32 the
margins of 518 dev rows were off by 0.071 and 0.073 (root mean square) at 0.8 and 0.9; with query, key and value
smoothed as well, by 0.102, 0.070 and 0.068 at 0.65, 0.8 and 0.9."""

SMALL = 1e-5


@dataclass(frozen=True, slots=True)
class Seen:
    """What a layer's input was seen to be, channel by channel: its range, its mean, and the mean of x x'."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean: NDArray[np.float64]
    moments: NDArray[np.float64]

    @property
    def middle(self) -> Floats:
        return ((self.low + self.high) / 2).astype(np.float32)

    @property
    def peaks(self) -> Floats:
        return np.maximum(np.abs(self.low), np.abs(self.high)).clip(SMALL).astype(np.float32)

    def moved(self, shift: NDArray[np.floating], scale: NDArray[np.floating]) -> "Seen":
        """Of (x - shift) / scale. In float64: a channel that lies far from zero leaves small differences of squares."""
        shift, scale = shift.astype(np.float64), scale.astype(np.float64)
        cross = np.outer(self.mean, shift)
        moments = (self.moments - cross - cross.T + np.outer(shift, shift)) / np.outer(scale, scale)
        low, high, mean = ((part - shift) / scale for part in (self.low, self.high, self.mean))
        return Seen(low, high, mean, moments)


@dataclass(frozen=True, slots=True)
class Linear:
    """Weight [inputs, outputs], bias [outputs], and the input it was seen to get."""

    weight: Floats
    bias: Floats
    seen: Seen

    def moved(self, shift: Floats | float = 0.0, scale: Floats | float = 1.0) -> "Linear":
        """The same function of (x - shift) / scale as this is of x."""
        inputs = len(self.weight)
        shift, scale = (np.broadcast_to(np.asarray(part, np.float32), inputs) for part in (shift, scale))
        return Linear(self.weight * scale[:, None], self.bias + shift @ self.weight, self.seen.moved(shift, scale))

    def smoothing(self) -> Floats:
        """By what to divide each input channel, so that none is so large that int8, with one scale for all of them,
        rounds the others away."""
        weights = np.abs(self.weight).max(axis=1).clip(SMALL)
        scale: Floats = self.seen.peaks**SHIFTED / weights ** (1 - SHIFTED)
        return scale


@dataclass(frozen=True, slots=True)
class Norm:
    """LayerNorm: weight and bias [hidden]."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True, slots=True)
class Layer:
    """One BERT layer. `up_scale` and `down_scale` multiply the inputs of `up` and `down`."""

    query: Linear
    key: Linear
    value: Linear
    out: Linear
    out_norm: Norm
    up_scale: Floats
    up: Linear
    down_scale: Floats
    down: Linear
    norm: Norm


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the graph is written from. Words [vocabulary, hidden], places [positions, hidden], head [hidden, 9]."""

    words: Floats
    places: Floats
    norm: Norm
    layers: tuple[Layer, ...]
    head: tuple[Floats, Floats]
    heads: int
    epsilon: float


def planned(model: GuardModel, batches: Iterable[Batch]) -> Plan:
    """The model's function, its weights and biases moved to where int8 holds them best, by these batches."""
    embeddings, config = model.encoder.embeddings, model.encoder.config
    layers = [
        _layer(layer, *seen) for layer, seen in zip(model.encoder.encoder.layer, _seen(model, batches), strict=True)
    ]
    shifts = [*(layer.query.seen.middle for layer in layers), np.zeros(config.hidden_size, np.float32)]
    norm = _norm(embeddings.LayerNorm)
    return Plan(
        _array(embeddings.word_embeddings.weight),
        _array(embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0]),
        Norm(norm.weight, norm.bias - shifts[0]),
        tuple(_smoothed(_centred(layer, *shifts[i : i + 2])) for i, layer in enumerate(layers)),
        (_array(model.head.weight).T, _array(model.head.bias)),
        config.num_attention_heads,
        config.layer_norm_eps,
    )


def _centred(layer: Layer, before: Floats, after: Floats) -> Layer:
    """Each channel that a LayerNorm gives in the middle of its range: what reads it, and what is added to it, take the
    rest over. `before` is missing from this layer's input, `after` from the next one's."""
    between, hidden = layer.up.seen.middle, len(before)
    query, key, value = (part.moved(shift=before) for part in (layer.query, layer.key, layer.value))
    out = layer.out.moved(shift=value.bias)
    return replace(
        layer,
        query=query,
        key=replace(key, bias=np.zeros(hidden, np.float32)),  # softmax takes no notice of it
        value=replace(value, bias=np.zeros(hidden, np.float32)),  # `out` has it: softmax's weights sum to one
        out=replace(out, bias=out.bias + before),
        out_norm=Norm(layer.out_norm.weight, layer.out_norm.bias - between),
        up=layer.up.moved(shift=between),
        down=replace(layer.down, bias=layer.down.bias + between),
        norm=Norm(layer.norm.weight, layer.norm.bias - after),
    )


def _smoothed(layer: Layer) -> Layer:
    """No channel far larger than the others. The context's scale costs nothing, it goes into `value`; before `up` and
    `down` it is a product. Before query, key and value it is left out: centred, they gain nothing by it."""
    context, up, down = layer.out.smoothing(), layer.up.smoothing(), layer.down.smoothing()
    return replace(
        layer,
        value=replace(layer.value, weight=layer.value.weight / context),
        out=layer.out.moved(scale=context),
        up_scale=layer.up_scale / up,
        up=layer.up.moved(scale=up),
        down_scale=layer.down_scale / down,
        down=layer.down.moved(scale=down),
    )


def _layer(layer: BertLayer, state: Seen, context: Seen, between: Seen, inner: Seen) -> Layer:
    attention = layer.attention.self
    return Layer(
        _linear(attention.query, state),
        _linear(attention.key, state),
        _linear(attention.value, state),
        _linear(layer.attention.output.dense, context),
        _norm(layer.attention.output.LayerNorm),
        np.ones(len(between.mean), np.float32),
        _linear(layer.intermediate.dense, between),
        np.ones(len(inner.mean), np.float32),
        _linear(layer.output.dense, inner),
        _norm(layer.output.LayerNorm),
    )


def _linear(linear: nn.Linear, seen: Seen) -> Linear:
    return Linear(_array(linear.weight).T, _array(linear.bias), seen)


def _norm(norm: nn.LayerNorm) -> Norm:
    return Norm(_array(norm.weight), _array(norm.bias))


def _array(tensor: Tensor) -> Floats:
    array: Floats = tensor.detach().numpy().astype(np.float32)
    return array


class _Watched:
    """Notes what a layer is given, padding left out."""

    def __init__(self, width: int) -> None:
        self.low, self.high = np.full(width, np.inf), np.full(width, -np.inf)
        self.total, self.moments, self.tokens = np.zeros(width), np.zeros((width, width)), 0

    def note(self, given: Tensor, mask: Tensor) -> None:
        """Given [rows, tokens, channels], mask [rows, tokens]."""
        found = given[mask.bool()].numpy().astype(np.float64)
        self.low, self.high = np.minimum(self.low, found.min(axis=0)), np.maximum(self.high, found.max(axis=0))
        self.total += found.sum(axis=0)
        self.moments += found.T @ found
        self.tokens += len(found)

    @property
    def seen(self) -> Seen:
        return Seen(self.low, self.high, self.total / self.tokens, self.moments / self.tokens)


def _seen(model: GuardModel, batches: Iterable[Batch]) -> list[list[Seen]]:
    """Of each layer: what query, key and value are given, `out`, `up` and `down`."""
    watched = [
        [(_Watched(part.in_features), part) for part in _watchable(layer)] for layer in model.encoder.encoder.layer
    ]
    with torch.inference_mode():
        for batch in batches:
            hooks = [
                part.register_forward_pre_hook(_noting(note, batch.attention_mask))
                for layer in watched
                for note, part in layer
            ]
            model(batch.input_ids, batch.attention_mask)
            for hook in hooks:
                hook.remove()
    return [[note.seen for note, _ in layer] for layer in watched]


def _watchable(layer: BertLayer) -> tuple[nn.Linear, ...]:
    return layer.attention.self.query, layer.attention.output.dense, layer.intermediate.dense, layer.output.dense


def _noting(watched: _Watched, mask: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    return lambda _, given: watched.note(given[0], mask)
