"""A model on ONNX Runtime. The only file that imports it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from guard_runtime.errors import ArtefactRefused, GuardFailed

CPU = "CPUExecutionProvider"

Tokens = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]


Arrays = Mapping[str, npt.NDArray[Any]]


class Graph:
    """Named arrays in, named arrays out, on the provider asked for: see `Session` for what it raises."""

    def __init__(self, model: bytes, *, providers: Sequence[str] = (CPU,), threads: int = 1) -> None:
        self._session = _opened(model, providers, threads)
        self.provider: str = self._session.get_providers()[0]
        self.inputs: Mapping[str, str] = {node.name: node.type for node in self._session.get_inputs()}
        self.outputs: tuple[str, ...] = tuple(node.name for node in self._session.get_outputs())

    def run(self, inputs: Arrays) -> Arrays:
        """Raises `GuardFailed` when the model does."""
        try:
            found = self._session.run(None, dict(inputs))
        except Exception as exc:  # ONNX Runtime's exceptions share no base but Exception
            raise GuardFailed(f"the model failed: {type(exc).__name__}") from exc
        return dict(zip(self.outputs, found, strict=True))


class Session:
    """int64 input_ids and attention_mask [rows, tokens] -> float32 logits [rows, labels], on the provider asked for.

    `providers` in order of preference; the first must really be used: ONNX Runtime falls back to the CPU without a
    word. `threads` is never 0, which in a container means "as many as the host has cores".

    Raises `ArtefactRefused` when the model cannot be loaded, or not there.
    """

    def __init__(self, model: bytes, *, providers: Sequence[str] = (CPU,), threads: int = 1) -> None:
        self._session = _opened(model, providers, threads)
        self.provider: str = self._session.get_providers()[0]
        self._check_shape()

    def run(self, input_ids: Tokens, attention_mask: Tokens) -> Logits:
        """Raises `GuardFailed` when the model does."""
        try:
            (logits,) = self._session.run(["logits"], {"input_ids": input_ids, "attention_mask": attention_mask})
        except Exception as exc:
            raise GuardFailed(f"the model failed on {input_ids.shape} tokens: {type(exc).__name__}") from exc
        return np.asarray(logits, dtype=np.float32)

    def warm_up(self, lengths: Sequence[int]) -> None:
        """Run once at each length (tokens), so that no caller waits for the first allocation."""
        for length in lengths:
            self.run(np.full((1, length), 3, dtype=np.int64), np.ones((1, length), dtype=np.int64))

    def _check_shape(self) -> None:
        inputs = {(node.name, node.type) for node in self._session.get_inputs()}
        outputs = {(node.name, node.type) for node in self._session.get_outputs()}
        if inputs != {("input_ids", "tensor(int64)"), ("attention_mask", "tensor(int64)")}:
            raise ArtefactRefused(f"the model takes {sorted(inputs)}, not int64 input_ids and attention_mask")
        if outputs != {("logits", "tensor(float)")}:
            raise ArtefactRefused(f"the model gives {sorted(outputs)}, not float32 logits")


def _opened(model: bytes, providers: Sequence[str], threads: int) -> ort.InferenceSession:
    if not providers or threads < 1:
        raise ArtefactRefused(f"providers {list(providers)} with {threads} threads: name a provider and a thread")
    missing = [name for name in providers if name not in ort.get_available_providers()]
    if missing:
        raise ArtefactRefused(
            f"ONNX Runtime here has no {', '.join(missing)}; it has {', '.join(ort.get_available_providers())}"
        )
    try:
        session = ort.InferenceSession(model, _options(threads), providers=list(providers))
    except Exception as exc:  # ONNX Runtime's exceptions share no other base
        raise ArtefactRefused(f"the model cannot be loaded: {exc}") from exc
    used = session.get_providers()
    if used[0] != providers[0]:
        raise ArtefactRefused(f"asked for {providers[0]}, ONNX Runtime fell back to {used[0]}")
    return session


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options
