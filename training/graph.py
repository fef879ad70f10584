"""The graph that ships: the same function as GuardModel, laid out so that a CPU runs it fast."""

import math

import torch
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertLayer

from training.model import GuardModel, pooled

MASKED = -1e4


class Layer(nn.Module):
    """One BERT layer with query, key and value in a single product, the query scaled beforehand."""

    def __init__(self, layer: BertLayer, heads: int) -> None:
        super().__init__()
        attention = layer.attention.self
        hidden = attention.query.in_features
        self.heads, self.size = heads, hidden // heads
        scale = 1 / math.sqrt(self.size)
        self.qkv = nn.Linear(hidden, 3 * hidden)
        parts = (attention.query, attention.key, attention.value)
        self.qkv.weight.data = torch.cat([p.weight.data * f for p, f in zip(parts, (scale, 1, 1), strict=True)])
        self.qkv.bias.data = torch.cat([p.bias.data * f for p, f in zip(parts, (scale, 1, 1), strict=True)])
        self.out, self.out_norm = layer.attention.output.dense, layer.attention.output.LayerNorm
        self.up, self.down, self.norm = layer.intermediate.dense, layer.output.dense, layer.output.LayerNorm

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
