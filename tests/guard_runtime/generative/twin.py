"""A small causal transformer in numpy, with the score graph's inputs and outputs: what the decoder runs in tests."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guard_runtime.generative.decoder import DecoderShape

LAYERS, HEADS, WIDTH = 2, 2, 8
HIDDEN = HEADS * WIDTH
SHAPE = DecoderShape(LAYERS, HEADS, WIDTH)
Array = NDArray[Any]


class Twin:
    """Random weights, float64 inside. `fed` counts the real tokens it was given. `outputs`: logits for every token."""

    def __init__(self, labels: Sequence[int], vocabulary: int, seed: int = 0, outputs: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.embedding = random.normal(size=(vocabulary, HIDDEN))
        self.weights = random.normal(size=(LAYERS, 4, HIDDEN, HIDDEN)) * 0.5
        self.head = random.normal(size=(vocabulary, HIDDEN)) * 0.7
        self.each = random.normal(size=(outputs, HIDDEN))
        self.labels = list(labels)
        self.fed = 0
        self.runs: list[tuple[int, ...]] = []

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        ids, mask, positions = inputs["input_ids"], inputs["attention_mask"], inputs["position_ids"]
        rows, tokens = ids.shape
        past = mask.shape[1] - tokens
        self.fed += int(mask[:, past:].sum())
        self.runs.append(ids.shape)
        state = self.embedding[ids] + np.sin(positions[:, :, None] * np.linspace(0.05, 1.5, HIDDEN))
        keys = np.concatenate((np.tile(np.arange(past), (rows, 1)), positions), 1)
        seen = (positions[:, :, None] >= keys[:, None, :]) & (mask[:, None, :] > 0)
        outputs: dict[str, Array] = {}
        for layer, (q, k, v, o) in enumerate(self.weights):
            new = {kind: _heads(state @ weight) for kind, weight in (("key", k), ("value", v))}
            whole = {}
            for kind, states in new.items():
                earlier = inputs[f"past.{layer}.{kind}"][inputs["past_row"]]
                whole[kind] = np.concatenate((earlier, states), 2)
                outputs[f"present.{layer}.{kind}"] = states.astype(np.float32)
            scores = _heads(state @ q) @ whole["key"].swapaxes(2, 3) / np.sqrt(WIDTH)
            scores = np.where(seen[:, None], scores, -1e30)
            parts = np.exp(scores - scores.max(-1, keepdims=True))
            mixed = parts / parts.sum(-1, keepdims=True) @ whole["value"]
            state = np.tanh(state + mixed.swapaxes(1, 2).reshape(rows, tokens, HIDDEN) @ o)
        if len(self.each):
            outputs["token_logits"] = (state @ self.each.T).astype(np.float32)
        hidden = state[np.arange(rows), inputs["last_index"]]
        outputs["hidden"] = hidden.astype(np.float32)
        outputs["label_logits"] = (hidden @ self.head[self.labels].T).astype(np.float32)
        return outputs


class TwinHead:
    """The twin's whole head; `bonus` is added to the logits of these tokens."""

    def __init__(self, twin: Twin, bonus: Mapping[int, float] | None = None) -> None:
        self._twin = twin
        self._bonus = dict(bonus or {})

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        logits = inputs["hidden"] @ self._twin.head.T
        for token, more in self._bonus.items():
            logits[:, token] += more
        return {"logits": logits}


def _heads(states: Array) -> Array:
    rows, tokens, _ = states.shape
    return states.reshape(rows, tokens, HEADS, WIDTH).swapaxes(1, 2)
