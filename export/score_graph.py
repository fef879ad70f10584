"""The graph a decoder guard is served by: tokens and earlier keys in, label logits and new keys out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from guard_runtime.errors import ArtefactRefused

ARCHITECTURES = frozenset({"qwen2", "qwen3", "llama", "gemma2", "granite"})
"""Decoders whose graphs are held to parity by our own tests. Any other is refused rather than guessed at."""

_UNSTORABLE_ROPE = frozenset({"dynamic", "longrope"})
OPSET = 18


@dataclass(frozen=True, slots=True)
class Shape:
    """What the runtime must know of a decoder: one pair of keys and values [1, heads, tokens, width] per layer."""

    layers: int
    heads: int
    width: int
    hidden: int
    context: int


def shape_of(model: PreTrainedModel) -> Shape:
    config = model.config
    if config.model_type not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ArtefactRefused(f"architecture {config.model_type} is not one of {known}: serve it with kind: remote")
    rope = getattr(config, "rope_scaling", None) or {}
    if rope.get("rope_type", rope.get("type")) in _UNSTORABLE_ROPE:
        raise ArtefactRefused(f"rope scaling {rope} changes with the length of the input: it cannot be cached")
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shape(
        config.num_hidden_layers, config.num_key_value_heads, width, config.hidden_size, config.max_position_embeddings
    )


class _Past:
    """Keys and values as the model's layers ask for them: the earlier ones, and the new ones remembered."""

    def __init__(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        self._keys = keys
        self._values = values
        self.new: list[Tensor] = []

    def update(self, key: Tensor, value: Tensor, layer: int, kwargs: object = None) -> tuple[Tensor, Tensor]:
        del kwargs
        self.new += [key, value]
        return torch.cat((self._keys[layer], key), 2), torch.cat((self._values[layer], value), 2)

    def get_seq_length(self, layer: int = 0) -> int:
        return int(self._keys[layer].shape[2])


class PostHead(nn.Module):
    """What a family of models does to its logits: Granite divides them, Gemma-2 caps them."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.scale = float(getattr(model.config, "logits_scaling", 1.0) or 1.0)
        self.cap = float(getattr(model.config, "final_logit_softcapping", 0.0) or 0.0)

    def forward(self, logits: Tensor) -> Tensor:
        logits = logits.float() / self.scale
        return torch.tanh(logits / self.cap) * self.cap if self.cap else logits


class _Prefill(nn.Module):
    """Rows of new tokens read after earlier ones: the part that all our graphs share."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.decoder = model.base_model
        self.windows = _windows(model)

    def states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past_row: Tensor,
        past: Sequence[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """The last hidden states [B, S, hidden], and the new keys and values."""
        chosen = [tensor.index_select(0, past_row) for tensor in past]
        cache = _Past(chosen[0::2], chosen[1::2])
        masks = self._masks(attention_mask, position_ids, chosen[0].shape[2], chosen[0].dtype)
        out = self.decoder(
            input_ids=input_ids,
            attention_mask=masks if len(masks) > 1 else masks["full_attention"],
            position_ids=position_ids,
            past_key_values=cache,
            cache_position=position_ids[0],
            use_cache=True,
        )
        return out.last_hidden_state, cache.new

    def _masks(self, real: Tensor, positions: Tensor, past: int | Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
        earlier = torch.arange(past, device=real.device)[None].expand(real.shape[0], -1)
        keys = torch.cat((earlier, positions), 1)
        distance = positions[:, :, None] - keys[:, None, :]
        seen = (distance >= 0) & (real[:, None, :] > 0)
        masks = {"full_attention": _additive(seen, dtype)}
        if self.windows:
            masks["sliding_attention"] = _additive(seen & (distance < self.windows), dtype)
        return masks


def _at(states: Tensor, last_index: Tensor) -> Tensor:
    """Each row's states [B, S, n] at its last real token, [B, n]."""
    return states.gather(1, last_index[:, None, None].expand(-1, 1, states.shape[-1]))[:, 0].float()


class ScoreGraph(_Prefill):
    """(input_ids, attention_mask, position_ids, last_index, past_row, past.*) -> (label_logits, hidden, present.*).

    B rows of S new tokens, right-padded, after P earlier ones. `attention_mask` [B, P + S] says which are real,
    `last_index` [B] where the verdict is read, `past_row` [B] which row of `past.*` [R, heads, P, width] each row goes
    on from: one shared instruction for all, or each its own. `present.*` [B, heads, S, width] are the new ones only.
    """

    def __init__(self, model: PreTrainedModel, labels: Sequence[int]) -> None:
        super().__init__(model)
        self.post = PostHead(model)
        rows = model.get_output_embeddings().weight[list(labels)].detach().float().clone()
        self.register_buffer("labels", rows[None])

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        last_index: Tensor,
        past_row: Tensor,
        *past: Tensor,
    ) -> tuple[Tensor, ...]:
        states, new = self.states(input_ids, attention_mask, position_ids, past_row, past)
        hidden = _at(states, last_index)
        logits = self.post((hidden[:, None, :] * self.labels).sum(-1))
        return logits, hidden, *new


class TokenHeads(nn.Module):
    """hidden states [B, S, hidden] -> logits [B, S, outputs]: every head's risks and kinds, the heads in turn.

    `weights` holds, for each head, its projection, the scale of its norm, its risks and its kinds: Linear without bias,
    then RMSNorm, then two Linear without bias (Qwen3Guard-Stream). Written as Einsum, which quantisation leaves alone:
    the heads are a thousandth of the model, and decide.
    """

    def __init__(self, weights: Sequence[tuple[Tensor, ...]], epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        for place, head in enumerate(weights):
            for name, weight in zip(("inner", "norm", "risks", "kinds"), head, strict=True):
                self.register_buffer(f"{name}{place}", weight.detach().float().clone())
        self.count = len(weights)

    def forward(self, states: Tensor) -> Tensor:
        found = []
        for place in range(self.count):
            inner = self._product(states.float(), f"inner{place}")
            scaled = inner * torch.rsqrt(inner.pow(2).mean(-1, keepdim=True) + self.epsilon)
            scaled = scaled * self.get_buffer(f"norm{place}")
            found += [self._product(scaled, f"{name}{place}") for name in ("risks", "kinds")]
        return torch.cat(found, -1)

    def _product(self, states: Tensor, name: str) -> Tensor:
        return torch.einsum("bsh,oh->bso", states, self.get_buffer(name))


class TokenGraph(_Prefill):
    """`ScoreGraph` for heads that judge every token: `token_logits` [B, S, outputs] beside the outputs it has, and as
    `label_logits` those of each row's last token."""

    def __init__(self, model: PreTrainedModel, heads: TokenHeads) -> None:
        super().__init__(model)
        self.heads = heads

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        last_index: Tensor,
        past_row: Tensor,
        *past: Tensor,
    ) -> tuple[Tensor, ...]:
        states, new = self.states(input_ids, attention_mask, position_ids, past_row, past)
        logits = self.heads(states)
        return _at(logits, last_index), _at(states, last_index), logits, *new


def _windows(model: PreTrainedModel) -> int:
    """The length of the sliding window where some layers have one, else 0."""
    kinds = getattr(model.config, "layer_types", None) or ()
    return int(model.config.sliding_window) if "sliding_attention" in kinds else 0


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    nothing = torch.zeros((), dtype=dtype)
    return torch.where(seen[:, None], nothing, torch.full((), torch.finfo(dtype).min, dtype=dtype))


class ByteEmbedding(nn.Module):
    """An embedding in 8 bits, each row with its own scale: a fourth of the memory of fp32, and off by at most half a
    step of its row's largest weight / 127."""

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        weight = embedding.weight.detach().float()
        scale = weight.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
        self.dtype = embedding.weight.dtype
        self.factor = float(getattr(embedding, "embed_scale", 1.0))
        self.register_buffer("rows", torch.round(weight / scale).to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, ids: Tensor) -> Tensor:
        return (self.rows[ids].float() * self.scale[ids] * self.factor).to(self.dtype)


class HeadGraph(nn.Module):
    """hidden [B, hidden] -> logits [B, vocabulary]: the whole head, for format health and for writing text out."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.post = PostHead(model)
        self.register_buffer("head", model.get_output_embeddings().weight.detach().T.contiguous())

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.post(hidden.to(self.head.dtype) @ self.head)
        return logits


def write_score_graph(model: PreTrainedModel, labels: Sequence[int], path: Path, *, bytewise: bool = False) -> Shape:
    """Exports the score graph in the model's own precision; `bytewise` stores the embedding in 8 bits."""
    shape = shape_of(model)
    _write(ScoreGraph(model, labels), model, shape, path, bytewise=bytewise)
    return shape


def write_token_graph(model: PreTrainedModel, heads: TokenHeads, path: Path, *, bytewise: bool = False) -> Shape:
    """The same with heads that judge every token."""
    shape = shape_of(model)
    _write(TokenGraph(model, heads), model, shape, path, bytewise=bytewise)
    return shape


def _write(graph: _Prefill, model: PreTrainedModel, shape: Shape, path: Path, *, bytewise: bool) -> None:
    embedding = model.get_input_embeddings()
    if bytewise:
        graph.decoder.set_input_embeddings(ByteEmbedding(embedding))
    past = [torch.zeros(1, shape.heads, 3, shape.width, dtype=model.dtype) for _ in range(2 * shape.layers)]
    ids = torch.ones(2, 4, dtype=torch.int64)
    mask = torch.ones(2, 7, dtype=torch.int64)
    positions = torch.arange(3, 7)[None].expand(2, -1).contiguous()
    last = torch.tensor([3, 2])
    rows = torch.zeros(2, dtype=torch.int64)
    pasts = [f"past.{layer}.{kind}" for layer in range(shape.layers) for kind in ("key", "value")]
    presents = [name.replace("past", "present", 1) for name in pasts]
    each = ["token_logits"] if isinstance(graph, TokenGraph) else []
    axes: dict[str, dict[int, str]] = {
        "input_ids": {0: "batch", 1: "tokens"},
        "attention_mask": {0: "batch", 1: "total"},
        "position_ids": {0: "batch", 1: "tokens"},
        "last_index": {0: "batch"},
        "past_row": {0: "batch"},
        "label_logits": {0: "batch"},
        "hidden": {0: "batch"},
        **{name: {0: "batch", 1: "tokens"} for name in each},
        **{name: {0: "rows", 2: "past"} for name in pasts},
        **{name: {0: "batch", 2: "tokens"} for name in presents},
    }
    inputs = ["input_ids", "attention_mask", "position_ids", "last_index", "past_row", *pasts]
    outputs = ["label_logits", "hidden", *each, *presents]
    try:
        _export(graph.eval(), (ids, mask, positions, last, rows, *past), path, (inputs, outputs), axes)
    finally:
        graph.decoder.set_input_embeddings(embedding)


def write_head_graph(model: PreTrainedModel, path: Path) -> None:
    hidden = torch.zeros(2, model.config.hidden_size)
    axes = {"hidden": {0: "batch"}, "logits": {0: "batch"}}
    _export(HeadGraph(model).eval(), (hidden,), path, (["hidden"], ["logits"]), axes)


def _export(
    graph: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    names: tuple[list[str], list[str]],
    axes: dict[str, dict[int, str]],
) -> None:
    with torch.no_grad():
        torch.onnx.export(
            graph,
            example,
            str(path),
            input_names=names[0],
            output_names=names[1],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
