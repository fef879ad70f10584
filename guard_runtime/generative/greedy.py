"""Greedy decoding: answers that did not keep their form, and explanations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from guard_runtime.errors import GuardFailed
from guard_runtime.generative.decoder import Array, Decoder, Graph, KVCache, Reading, Row


@dataclass(frozen=True, slots=True)
class GreedyDecoder:
    """Takes the likeliest token each time. `head` gives the logits [rows, vocabulary] of hidden states; `stop` are the
    tokens that end an answer."""

    decoder: Decoder
    head: Graph
    stop: frozenset[int]

    def logits(self, readings: Sequence[Reading]) -> Array:
        """The whole vocabulary's logits after each reading, [readings, vocabulary]."""
        outputs = self.head.run({"hidden": np.stack([reading.hidden for reading in readings]).astype(np.float32)})
        if "logits" not in outputs:
            raise GuardFailed("the head graph gives no logits")
        return outputs["logits"]

    def write(self, tokens: Sequence[int], cache: KVCache, limit: int) -> list[int]:
        """What comes after `cache` and `tokens`, without the token that ended it; at most `limit` tokens."""
        return list(self.steps(tokens, cache, limit))

    def steps(self, tokens: Sequence[int], cache: KVCache, limit: int) -> Iterator[int]:
        """The same, one token at a time, each when it is asked for."""
        feed = list(tokens)
        for _ in range(limit):
            (reading,) = self.decoder.read([Row(feed, cache)])
            cache = cache.then(reading.cache)
            (logits,) = self.logits([reading])
            if not np.isfinite(logits).all():
                raise GuardFailed("the head's logits are not finite numbers")
            token = int(logits.argmax())
            if token in self.stop:
                return
            yield token
            feed = [token]
