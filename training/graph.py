"""The graph that ships: the same function as GuardModel, laid out so that a CPU runs it fast."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertLayer

from training.batches import Batch
from training.model import GuardModel, pooled

MASKED = -1e4
SHIFTED = 0.8
"""SmoothQuant's alpha, how much of a channel's size its weights take over. Against float32 the margins of 500 dev rows
were off by 0.161 (root mean square) unsmoothed, and by 0.254, 0.115 and 0.091 at 0.5, 0.65 and 0.8."""


class Smoothed(nn.Module):
    """A linear layer whose input is scaled channel by channel first, and its weights the other way: the same function,
    but no channel is so large that int8, with one scale for all of them, rounds the others away."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.scale = nn.Parameter(torch.ones(linear.in_features), requires_grad=False)

    def forward(self, state: Tensor) -> Tensor:
        """What the linear layer alone would say."""
        found: Tensor = self.linear(state * self.scale)
        return found

    def smooth(self, peaks: Tensor) -> None:
        """Share each input channel's size, its greatest absolute value in `peaks` [channels], with its weights."""
        weights = self.linear.weight.data.abs().amax(0).clamp(min=1e-5)
        size = peaks.clamp(min=1e-5) ** SHIFTED / weights ** (1 - SHIFTED)
        self.scale.data = self.scale.data / size
        self.linear.weight.data = self.linear.weight.data * size


class Layer(nn.Module):
    """One BERT layer with query, key and value in a single product, the query scaled beforehand."""

    def __init__(self, layer: BertLayer, heads: int) -> None:
        super().__init__()
        attention = layer.attention.self
        hidden = attention.query.in_features
        self.heads, self.size = heads, hidden // heads
        scale = 1 / math.sqrt(self.size)
        qkv = nn.Linear(hidden, 3 * hidden)
        parts = (attention.query, attention.key, attention.value)
        qkv.weight.data = torch.cat([p.weight.data * f for p, f in zip(parts, (scale, 1, 1), strict=True)])
        qkv.bias.data = torch.cat([p.bias.data * f for p, f in zip(parts, (scale, 1, 1), strict=True)])
        self.qkv, self.out = Smoothed(qkv), Smoothed(layer.attention.output.dense)
        self.up, self.down = Smoothed(layer.intermediate.dense), Smoothed(layer.output.dense)
        self.out_norm, self.norm = layer.attention.output.LayerNorm, layer.output.LayerNorm

    def forward(self, state: Tensor, bias: Tensor) -> Tensor:
        """State [rows, tokens, hidden], additive bias [rows, 1, 1, tokens] -> state."""
        rows, tokens, hidden = state.shape
        parts = self.qkv(state).view(rows, tokens, 3, self.heads, self.size)
        query = parts[:, :, 0].transpose(1, 2)
        key = parts[:, :, 1].permute(0, 2, 3, 1)
        value = parts[:, :, 2].transpose(1, 2)
        weights = torch.softmax(query @ key + bias, dim=-1)
        context = (weights @ value).transpose(1, 2).reshape(rows, tokens, hidden)
        state = self.out_norm(state + self.out(context))
        up = nn.functional.gelu(self.up(state))
        result: Tensor = self.norm(state + self.down(up))
        return result


class ShippedGraph(nn.Module):
    """int64 input_ids and attention_mask [rows, tokens] -> float32 logits [rows, 9]."""

    def __init__(self, model: GuardModel) -> None:
        super().__init__()
        embeddings, config = model.encoder.embeddings, model.encoder.config
        self.words = embeddings.word_embeddings
        places = embeddings.position_embeddings.weight.data + embeddings.token_type_embeddings.weight.data[0]
        self.places = nn.Parameter(places.clone())
        self.norm = embeddings.LayerNorm
        self.layers = nn.ModuleList(Layer(layer, config.num_attention_heads) for layer in model.encoder.encoder.layer)
        self.head = model.head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The logits, not yet calibrated."""
        state = self.norm(self.words(input_ids) + self.places[: input_ids.shape[1]])
        bias = (1 - attention_mask.to(state.dtype))[:, None, None, :] * MASKED
        for layer in self.layers:
            state = layer(state, bias)
        logits: Tensor = self.head(pooled(state, attention_mask))
        return logits


def smoothed(graph: ShippedGraph, batches: Iterable[Batch]) -> ShippedGraph:
    """The same function, smoothed by the activations that these batches bring about."""
    layers = [module for module in graph.modules() if isinstance(module, Smoothed)]
    peaks = [torch.zeros(layer.linear.in_features) for layer in layers]
    hooks = [layer.register_forward_pre_hook(_peaking(peak)) for layer, peak in zip(layers, peaks, strict=True)]
    with torch.inference_mode():
        for batch in batches:
            graph(batch.input_ids, batch.attention_mask)
    for layer, peak, hook in zip(layers, peaks, hooks, strict=True):
        hook.remove()
        layer.smooth(peak)
    return graph


def _peaking(peak: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def note(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        peak.copy_(torch.maximum(peak, given[0].abs().flatten(0, 1).amax(0)))

    return note
