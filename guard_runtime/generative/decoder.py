"""A decoder graph, run over rows of different lengths that continue from cached keys and values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from guard_runtime.errors import GuardFailed
from guard_runtime.serving.bounded_lru import BoundedLRU

Array = NDArray[Any]


SLACK = 4
"""Tokens at the end of an answer that may be read otherwise once more text follows (3 was the most seen, testing every
character of Chinese and English text with Qwen2.5's tokenizer)."""


class Graph(Protocol):
    """An ONNX graph, however it is run: named arrays in, named arrays out."""

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Array]: ...


Hold = Callable[[Mapping[str, Array]], Mapping[str, Any]]
"""Leaves arrays where the graph runs: `session.Graph.held`."""


@dataclass(frozen=True, slots=True)
class KVCache:
    """The keys and values of `tokens`: `states` [2 x layers, heads, tokens, width], keys and values in turn. `logits`
    [tokens, outputs]: the logits of a guard's own heads for each token; no outputs where it has no such heads.
    `on_device`: the same states as the graph takes them, for a cache that was pinned; they live as long as it does."""

    tokens: tuple[int, ...]
    states: Array
    logits: Array
    on_device: Mapping[str, Any] | None = None

    def first(self, count: int) -> "KVCache":
        """The cache of the first `count` tokens: what a causal model had after reading only those. Not pinned, unless
        those are all of them."""
        if count >= len(self.tokens):
            return self
        return KVCache(self.tokens[:count], np.ascontiguousarray(self.states[:, :, :count]), self.logits[:count])

    def then(self, other: "KVCache") -> "KVCache":
        """This cache followed by the tokens that were read after it."""
        states = np.concatenate((self.states, other.states), axis=2)
        return KVCache((*self.tokens, *other.tokens), states, np.concatenate((self.logits, other.logits)))

    @property
    def nbytes(self) -> int:
        return int(self.states.nbytes + self.logits.nbytes)


@dataclass(frozen=True, slots=True)
class Row:
    """New tokens (at least one), and the cache of the tokens before them."""

    tokens: Sequence[int]
    cache: KVCache


@dataclass(frozen=True, slots=True)
class Reading:
    """The decoder's outputs for a row's last token: `labels` [labels] and `hidden` [width], and the `cache` of the
    row's new tokens alone."""

    labels: Array
    hidden: Array
    cache: KVCache


@dataclass(frozen=True, slots=True)
class DecoderShape:
    layers: int
    heads: int
    width: int
    dtype: str = "float32"

    @property
    def bytes_per_token(self) -> int:
        return 2 * self.layers * self.heads * self.width * np.dtype(self.dtype).itemsize


class Decoder:
    """Blocking; one call at a time. `least_past`: the fewest earlier tokens the graph takes; missing ones are masked.
    `outputs`: logits the graph gives for every token, 0 for a graph that gives none. `hold`: copies arrays to the
    device, so that a `pinned` cache crosses once and not with every text."""

    def __init__(
        self,
        graph: Graph,
        shape: DecoderShape,
        *,
        least_past: int = 0,
        outputs: int = 0,
        hold: Hold = lambda arrays: arrays,
    ) -> None:
        self._graph = graph
        self._hold = hold
        self._outputs = outputs
        self._least_past = least_past
        self.shape = shape
        states = np.zeros((2 * shape.layers, shape.heads, 0, shape.width), shape.dtype)
        self.empty = KVCache((), states, np.zeros((0, outputs), np.float32))

    def read(self, rows: Sequence[Row]) -> tuple[Reading, ...]:
        """Reads all rows in one batch, right-padded. Raises `GuardFailed` on numbers that are not finite."""
        caches, which = _distinct(rows)
        past = max(self._least_past, *(len(cache.tokens) for cache in caches))
        longest = max(len(row.tokens) for row in rows)
        ids = np.zeros((len(rows), longest), np.int64)
        mask = np.zeros((len(rows), past + longest), np.int64)
        positions = np.zeros((len(rows), longest), np.int64)
        for place, row in enumerate(rows):
            before, new = len(row.cache.tokens), len(row.tokens)
            ids[place, :new] = row.tokens
            mask[place, :before] = 1
            mask[place, past : past + new] = 1
            positions[place] = before + np.arange(longest)
        inputs: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions,
            "last_index": np.array([len(row.tokens) - 1 for row in rows], np.int64),
            "past_row": np.array(which, np.int64),
            **self._past(caches, past),
        }
        return self._readings(rows, self._graph.run(inputs))

    def pinned(self, cache: KVCache) -> KVCache:
        """The same cache with its states on the device, for an instruction that many rows continue from."""
        return replace(cache, on_device=self._hold(self._arrays(cache.states[:, None])))

    def warm_up(self, lengths: Sequence[int], rows: int) -> None:
        """One row, and a whole batch, at each length (tokens), so that no caller waits for the first of its shape."""
        for length in lengths:
            for count in sorted({1, rows}):
                self.read([Row([0] * length, self.empty)] * count)

    def _past(self, caches: Sequence[KVCache], length: int) -> Mapping[str, Any]:
        if len(caches) == 1 and len(caches[0].tokens) == length:
            if caches[0].on_device is not None:
                return caches[0].on_device
            states = caches[0].states[:, None]
        else:
            shape = (2 * self.shape.layers, len(caches), self.shape.heads, length, self.shape.width)
            states = np.zeros(shape, self.shape.dtype)
            for place, cache in enumerate(caches):
                states[:, place, :, : len(cache.tokens)] = cache.states
        return self._arrays(states)

    def _arrays(self, states: Array) -> Mapping[str, Array]:
        return dict(zip(self._names("past"), states, strict=True))

    def _names(self, kind: str) -> list[str]:
        return [f"{kind}.{layer}.{part}" for layer in range(self.shape.layers) for part in ("key", "value")]

    def _readings(self, rows: Sequence[Row], outputs: Mapping[str, Array]) -> tuple[Reading, ...]:
        try:
            labels, hidden = outputs["label_logits"], outputs["hidden"]
            states = np.stack([outputs[name] for name in self._names("present")])
            logits = outputs["token_logits"] if self._outputs else np.zeros((*states.shape[1:4:2], 0), np.float32)
        except (KeyError, ValueError) as exc:
            raise GuardFailed(f"the graph's outputs are not those of a decoder guard: {exc}") from exc
        if len(labels) != len(rows) or not all(np.isfinite(values).all() for values in (labels, hidden, logits)):
            raise GuardFailed("the decoder's logits are not finite numbers, one row for each text")
        if logits.shape != (len(rows), states.shape[3], self._outputs):
            raise GuardFailed(f"the graph gives logits of shape {logits.shape}, not {self._outputs} for every token")
        return tuple(
            Reading(labels[place], hidden[place], self._cache_of(row, states[:, place], logits[place]))
            for place, row in enumerate(rows)
        )

    def _cache_of(self, row: Row, states: Array, logits: Array) -> KVCache:
        new = len(row.tokens)
        return KVCache(tuple(row.tokens), np.ascontiguousarray(states[:, :, :new]), logits[:new].copy())


def _distinct(rows: Sequence[Row]) -> tuple[list[KVCache], list[int]]:
    """Each cache once, and for every row which of them it continues: a shared instruction is sent once. Two equal
    caches that are different objects are sent twice, which costs time and changes nothing."""
    caches: list[KVCache] = []
    places: dict[int, int] = {}
    which = []
    for row in rows:
        place = places.setdefault(id(row.cache), len(caches))
        if place == len(caches):
            caches.append(row.cache)
        which.append(place)
    return caches, which


class KVCacheStore:
    """The caches of streams under a budget of bytes: the one used longest ago is dropped first.

    `recall` finds the cache that shares the longest beginning with a row; `keep` replaces those that a cache grew from.
    Not for more than one thread at a time.
    """

    def __init__(self, budget: int) -> None:
        self._caches: BoundedLRU[tuple[int, ...], KVCache] = BoundedLRU(budget, lambda cache: cache.nbytes)

    def __len__(self) -> int:
        return len(self._caches)

    @property
    def nbytes(self) -> int:
        return self._caches.size

    @property
    def evicted(self) -> int:
        return self._caches.evicted

    def recall(self, tokens: Sequence[int]) -> KVCache | None:
        """The cache that begins most like `tokens`, rolled back to what both have in common."""
        longest, key = 0, None
        wanted = np.asarray(tokens, np.int64)
        for stored in self._caches:
            if (length := _shared(np.asarray(stored, np.int64), wanted)) > longest:
                longest, key = length, stored
        cache = None if key is None else self._caches.get(key)
        return None if cache is None else cache.first(longest)

    def keep(self, cache: KVCache) -> None:
        wanted = np.asarray(cache.tokens, np.int64)
        for stored in tuple(self._caches):
            if len(stored) - SLACK <= _shared(np.asarray(stored, np.int64), wanted) > 0:
                self._caches.drop(stored)
        self._caches.put(cache.tokens, cache)


def _shared(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    shorter = min(len(one), len(other))
    unlike = np.flatnonzero(one[:shorter] != other[:shorter])
    return int(unlike[0]) if len(unlike) else shorter
