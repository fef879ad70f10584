"""The heads of a guard that classifies tokens: read from its checkpoint, and read with, in torch."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from export.checkpoint import Checkpoint
from export.score_graph import TokenHeads
from guard_runtime.conversation import Direction
from guard_runtime.errors import ArtefactRefused
from guard_runtime.generative.families.family import Family, Head
from guard_runtime.generative.prompt import words
from guard_runtime.generative.token_heads import scores
from guard_runtime.generative.tokenizer import SafeTokenizer, common_prefix
from guard_runtime.guard import Passage
from guard_runtime.guards.tokenwise import TokenContract
from guard_runtime.text.language import language_of

_MAPS: Mapping[Direction, str] = {
    Direction.RESPONSE: "response_risk_level_map",
    Direction.PROMPT: "query_risk_level_map",
}
"""Where a checkpoint's config.json names its risks, in order."""


def heads_of(checkpoint: Checkpoint, family: Family) -> TokenHeads:
    """The family's heads, from the checkpoint's safetensors. Raises `ArtefactRefused` where one is missing, of another
    shape, not finite, or called otherwise than the family does."""
    _check_names(checkpoint.folder, family)
    hidden = checkpoint.model.config.hidden_size
    weights = _weights(checkpoint.folder, {name for head in family.heads.values() for name in _names(head)})
    found = [_head(checkpoint.folder, head, hidden, weights) for head in family.heads.values()]
    return TokenHeads(found, float(checkpoint.model.config.rms_norm_eps))


def _names(head: Head) -> tuple[str, ...]:
    """Qwen3Guard-Stream's: projection, norm, risks, kinds."""
    parts = ("risk_level_category_pre", "risk_level_category_layernorm", "risk_level_head", "category_head")
    return tuple(f"{head.prefix}{part}.weight" for part in parts)


def _weights(folder: Path, names: set[str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    try:
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                found |= {name: file.get_tensor(name) for name in names & set(file.keys())}
    except (OSError, SafetensorError) as exc:
        raise ArtefactRefused(f"{folder}: the heads cannot be read: {exc}") from exc
    if lost := sorted(names - set(found)):
        raise ArtefactRefused(f"{folder}: weights that are not there: {', '.join(lost[:3])} ({len(lost)} in all)")
    if wrong := sorted(name for name, weight in found.items() if not torch.isfinite(weight).all()):
        raise ArtefactRefused(f"{folder}: weights that are not finite numbers: {', '.join(wrong[:3])}")
    return found


def _head(folder: Path, head: Head, hidden: int, weights: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    names = _names(head)
    found = tuple(weights[name] for name in names)
    inner = found[0].shape[0]
    expected = ((inner, hidden), (inner,), (len(head.risks), inner), (len(head.kinds), inner))
    for name, weight, shape in zip(names, found, expected, strict=True):
        if tuple(weight.shape) != shape:
            raise ArtefactRefused(f"{folder}: {name} is {tuple(weight.shape)}, the family's contract says {shape}")
    return found


def _check_names(folder: Path, family: Family) -> None:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    for direction, head in family.heads.items():
        named = config.get(_MAPS[direction])
        ours = {str(place): name for place, name in enumerate(head.risks)}
        if named is not None and {str(place): name for place, name in dict(named).items()} != ours:
            raise ArtefactRefused(f"{folder}: {_MAPS[direction]} is {named}, the family's contract says {ours}")


class TokenReference:
    """The checkpoint itself: one whole forward in fp32, no cache, no batch, no padding, the heads at every token."""

    def __init__(
        self, checkpoint: Checkpoint, heads: TokenHeads, contract: TokenContract, tokenizer: SafeTokenizer
    ) -> None:
        self._model = checkpoint.model
        self._heads = heads
        self._contract = contract
        self._tokenizer = tokenizer

    def risk(self, passage: Passage) -> float:
        """The highest p(unsafe) that holds for a run of tokens."""
        head = self._contract.heads[passage.direction]
        tokens = self._tokenizer.tokens(head.segments, words(passage))
        first = len(tokens) - 1
        if head.every:
            first = common_prefix(self._tokenizer.tokens(head.segments[:-1], words(passage)), tokens)
        fit = self._contract.calibration[passage.direction][language_of(passage.text)]
        return max(scores(head, self.logits(tokens)[first:], fit).values())

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Every head's logits at every token, [tokens, outputs]."""
        with torch.no_grad():
            states = self._model.base_model(input_ids=torch.tensor([list(tokens)])).last_hidden_state
            found: NDArray[np.float32] = self._heads(states)[0].numpy()
        return found
