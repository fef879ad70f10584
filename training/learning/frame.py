"""The tokens that say what a text is: added to a tokenizer and to the words of a guard that has none yet."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from guard_runtime.artefacts.manifest import FRAME
from guard_runtime.conversation import Source
from training.data.rows import BadInput
from training.learning.model import GuardModel

TOKENS: Mapping[Source, str] = MappingProxyType(
    {
        Source.USER: "<|user|>",
        Source.ASSISTANT: "<|assistant|>",
        Source.SYSTEM: "<|system|>",
        Source.TOOL_DEFINITION: "<|tool_definition|>",
        Source.TOOL_CALL: "<|tool_call|>",
        Source.TOOL_RESULT: "<|document|>",
        Source.DOCUMENT: "<|document|>",
    }
)
NOISE = 0.3
"""Of the words' standard deviation, on top of their mean: what a new token's row begins as."""

SEED = 3
Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands before a text of each source: () for a tokenizer without tokens of its own for them."""

    sources: Mapping[Source, Ids]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Frame":
        """Raises BadInput where the tokenizer has some of the tokens only."""
        ids = {source: tokenizer.token_to_id(token) for source, token in TOKENS.items()}
        if all(number is None for number in ids.values()):
            return cls(dict.fromkeys(Source, ()))
        lacking = [TOKENS[source] for source, number in ids.items() if number is None]
        if lacking:
            raise BadInput(f"the tokenizer has no {', '.join(lacking)}")
        return cls({source: (number,) for source, number in ids.items() if number is not None})

    @property
    def manifest(self) -> dict[str, Any]:
        """What an artefact's manifest says of it."""
        return {"frame": {"version": FRAME, "sources": dict(TOKENS)}} if self.told else {}

    @property
    def told(self) -> bool:
        """Whether sources are told apart."""
        return any(self.sources.values())

    def without(self, tokens: Ids) -> Ids:
        """The tokens as a guard without this frame reads them."""
        own = {number for ids in self.sources.values() for number in ids}
        return tuple(token for token in tokens if token not in own)


def add_sources(guard: GuardModel, tokenizer: Tokenizer) -> None:
    """Give tokenizer and guard the tokens of all sources, where they have none."""
    if Frame.of(tokenizer).told:
        return
    added = list(dict.fromkeys(TOKENS.values()))
    tokenizer.add_special_tokens(added)
    words = guard.encoder.embeddings.word_embeddings.weight.data
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randn(len(added), words.shape[1], generator=generator)
    rows = words.mean(0, keepdim=True) + NOISE * words.std(0, keepdim=True) * noise
    grown = nn.Embedding.from_pretrained(torch.cat([words, rows]), freeze=False)
    grown.padding_idx = guard.encoder.embeddings.word_embeddings.padding_idx
    guard.encoder.embeddings.word_embeddings = grown
    guard.encoder.config.vocab_size = len(grown.weight)
