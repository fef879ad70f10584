"""A decoder graph run over ragged rows that go on from remembered keys and values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from guard_runtime.errors import GuardFailed

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
class Memory:
    """The keys and values of `tokens`: `states` [2 x layers, heads, tokens, width], keys and values in turn. `logits`
    [tokens, outputs]: what a guard with heads of its own said of each of them; no outputs where it has none."""

    tokens: tuple[int, ...]
    states: Array
    logits: Array

    def first(self, count: int) -> "Memory":
        """The memory of the first `count` tokens: what a causal model had after reading only those."""
        if count >= len(self.tokens):
            return self
        return Memory(self.tokens[:count], np.ascontiguousarray(self.states[:, :, :count]), self.logits[:count])

    def then(self, other: "Memory") -> "Memory":
        """With what was read after it."""
        states = np.concatenate((self.states, other.states), axis=2)
        return Memory((*self.tokens, *other.tokens), states, np.concatenate((self.logits, other.logits)))

    @property
    def nbytes(self) -> int:
        return int(self.states.nbytes + self.logits.nbytes)


@dataclass(frozen=True, slots=True)
class Row:
    """New tokens (at least one), and what was read before them."""

    tokens: Sequence[int]
    memory: Memory


@dataclass(frozen=True, slots=True)
class Reading:
    """What the decoder made of a row's last token: `labels` [labels] and `hidden` [width], and the `memory` of the
    row's new tokens alone."""

    labels: Array
    hidden: Array
    memory: Memory


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
    """Blocking; one call at a time. `least_past`: earlier tokens there always are, masked ones where there are none.
    `outputs`: logits the graph gives for every token, 0 for a graph that gives none. `hold`: where there is one, what
    is `kept` crosses to the device once and not with every text."""

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
        self._kept: dict[int, tuple[Memory, Mapping[str, Any]]] = {}
        self._outputs = outputs
        self._least_past = least_past
        self.shape = shape
        states = np.zeros((2 * shape.layers, shape.heads, 0, shape.width), shape.dtype)
        self.nothing = Memory((), states, np.zeros((0, outputs), np.float32))

    def read(self, rows: Sequence[Row]) -> tuple[Reading, ...]:
        """Reads all rows in one batch, right-padded. Raises `GuardFailed` on numbers that are not finite."""
        memories, which = _distinct(rows)
        past = max(self._least_past, *(len(memory.tokens) for memory in memories))
        longest = max(len(row.tokens) for row in rows)
        ids = np.zeros((len(rows), longest), np.int64)
        mask = np.zeros((len(rows), past + longest), np.int64)
        positions = np.zeros((len(rows), longest), np.int64)
        for place, row in enumerate(rows):
            before, new = len(row.memory.tokens), len(row.tokens)
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
            **self._past(memories, past),
        }
        return self._readings(rows, self._graph.run(inputs))

    def kept(self, memory: Memory) -> Memory:
        """The same memory, for rows to go on from as long as the guard lives: an instruction's."""
        self._kept[id(memory)] = (memory, self._hold(self._arrays(memory.states[:, None])))
        return memory

    def warm_up(self, lengths: Sequence[int], rows: int) -> None:
        """One row, and a whole batch, at each length (tokens), so that no caller waits for the first of its shape."""
        for length in lengths:
            for count in sorted({1, rows}):
                self.read([Row([0] * length, self.nothing)] * count)

    def _past(self, memories: Sequence[Memory], length: int) -> Mapping[str, Any]:
        if len(memories) == 1 and len(memories[0].tokens) == length:
            if id(memories[0]) in self._kept:
                return self._kept[id(memories[0])][1]
            states = memories[0].states[:, None]
        else:
            shape = (2 * self.shape.layers, len(memories), self.shape.heads, length, self.shape.width)
            states = np.zeros(shape, self.shape.dtype)
            for place, memory in enumerate(memories):
                states[:, place, :, : len(memory.tokens)] = memory.states
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
        if len(labels) != len(rows) or not all(np.isfinite(found).all() for found in (labels, hidden, logits)):
            raise GuardFailed("the decoder's logits are not finite numbers, one row for each text")
        if logits.shape != (len(rows), states.shape[3], self._outputs):
            raise GuardFailed(f"the graph gives logits of shape {logits.shape}, not {self._outputs} for every token")
        return tuple(
            Reading(labels[place], hidden[place], self._memory(row, states[:, place], logits[place]))
            for place, row in enumerate(rows)
        )

    def _memory(self, row: Row, states: Array, logits: Array) -> Memory:
        new = len(row.tokens)
        return Memory(tuple(row.tokens), np.ascontiguousarray(states[:, :, :new]), logits[:new].copy())


def _distinct(rows: Sequence[Row]) -> tuple[list[Memory], list[int]]:
    """Each memory once, and which one every row goes on from: a shared instruction travels once."""
    memories: list[Memory] = []
    places: dict[int, int] = {}
    which = []
    for row in rows:
        place = places.setdefault(id(row.memory), len(memories))
        if place == len(memories):
            memories.append(row.memory)
        which.append(place)
    return memories, which


class Remembered:
    """Memories of streams under a byte budget: the one used longest ago goes first.

    `recall` finds the memory that shares the longest beginning with a row; `keep` puts a row's memory in place of
    those it grew from. Not for more than one thread at a time.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.evicted = 0
        self._kept: dict[tuple[int, ...], Memory] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        return self._size

    def recall(self, tokens: Sequence[int]) -> Memory | None:
        """The kept memory that begins most like `tokens`, rolled back to what both have in common."""
        best, key = 0, None
        wanted = np.asarray(tokens, np.int64)
        for kept in self._kept:
            if (length := _shared(np.asarray(kept, np.int64), wanted)) > best:
                best, key = length, kept
        if key is None:
            return None
        memory = self._kept.pop(key)
        self._kept[key] = memory
        return memory.first(best)

    def keep(self, memory: Memory) -> None:
        wanted = np.asarray(memory.tokens, np.int64)
        for kept in tuple(self._kept):
            if len(kept) - SLACK <= _shared(np.asarray(kept, np.int64), wanted) > 0:
                self._drop(kept)
        if memory.nbytes > self.budget:
            return
        self._kept[memory.tokens] = memory
        self._size += memory.nbytes
        while self._size > self.budget:
            self._drop(next(iter(self._kept)))
            self.evicted += 1

    def _drop(self, tokens: tuple[int, ...]) -> None:
        if (memory := self._kept.pop(tokens, None)) is not None:
            self._size -= memory.nbytes


def _shared(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    shorter = min(len(one), len(other))
    unlike = np.flatnonzero(one[:shorter] != other[:shorter])
    return int(unlike[0]) if len(unlike) else shorter
