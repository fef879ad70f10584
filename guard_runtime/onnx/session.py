"""A model on ONNX Runtime. The only file that imports it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from guard_runtime.errors import ArtefactRefused, GuardFailed
from guard_runtime.onnx import tensorrt
from guard_runtime.onnx.devices import ON_CPU, PROVIDERS, Device, Loads, Placement, explained, loads, missing
from guard_runtime.onnx.tensorrt import Machine, Profile

Tokens = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
Arrays = Mapping[str, npt.NDArray[Any]]

BUCKETS = (16, 32, 64, 128, 256, 512)
"""Lengths in tokens that single texts are padded to for CUDA graphs: one graph, and its buffers, for each."""


class Opened(Protocol):
    """An `onnxruntime.InferenceSession`."""

    def get_providers(self) -> list[str]: ...

    def get_inputs(self) -> Sequence[Any]: ...

    def get_outputs(self) -> Sequence[Any]: ...

    def run(self, names: Sequence[str] | None, inputs: Mapping[str, Any]) -> list[Any]: ...

    def io_binding(self) -> Any: ...

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None: ...


class Runtime(Protocol):
    """ONNX Runtime, or its scripted twin: what it has, and what it makes of a model (bytes, or a file it wrote)."""

    @property
    def version(self) -> str: ...

    def available(self) -> list[str]: ...

    def open(self, model: bytes | Path, options: ort.SessionOptions, providers: Sequence[Any]) -> Opened:
        """Raises whatever ONNX Runtime raises."""

    def loads(self, library: str) -> bool: ...

    def machine(self) -> Machine:
        """Raises `ArtefactRefused` where there is no TensorRT."""


class OnnxRuntime:
    """The real one."""

    version = str(ort.__version__)
    loads: Loads = staticmethod(loads)

    def available(self) -> list[str]:
        return list(ort.get_available_providers())

    def open(self, model: bytes | Path, options: ort.SessionOptions, providers: Sequence[Any]) -> Opened:
        if PROVIDERS[Device.CUDA] in self.available():
            ort.preload_dlls()  # CUDA and cuDNN out of pip's packages
        source = model if isinstance(model, bytes) else str(model)
        session: Opened = ort.InferenceSession(source, options, providers=list(providers))
        return session

    def machine(self) -> Machine:
        return tensorrt.this_machine(self.version)


class _Model:
    """What `Graph` and `Session` share: one model, opened where it was asked for."""

    def __init__(
        self, model: bytes, place: Placement = ON_CPU, *, profile: Profile | None = None, runtime: Runtime | None = None
    ) -> None:
        self._session, self.device = _opened(model, place, profile, runtime or OnnxRuntime())
        self._buffers = "cpu" if self.device is Device.CPU else "cuda"


class Graph(_Model):
    """Named arrays in, named arrays out, on the device asked for: see `Placement`. `profile` is needed for TensorRT.

    Raises `ArtefactRefused` when the model cannot be loaded, or not there.
    """

    def __init__(
        self, model: bytes, place: Placement = ON_CPU, *, profile: Profile | None = None, runtime: Runtime | None = None
    ) -> None:
        # Its shapes change with every text: no CUDA graph fits twice.
        super().__init__(model, replace(place, cuda_graphs=False), profile=profile, runtime=runtime)
        self._bound = place.binding

    @property
    def inputs(self) -> Mapping[str, str]:
        return {node.name: node.type for node in self._session.get_inputs()}

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(node.name for node in self._session.get_outputs())

    def held(self, arrays: Arrays) -> Mapping[str, Any]:
        """The same arrays where the model runs, for `run` to take as often as need be; as they are without binding."""
        if not self._bound:
            return arrays
        return {name: ort.OrtValue.ortvalue_from_numpy(_whole(a), self._buffers, 0) for name, a in arrays.items()}

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        """Takes arrays and what `held` gave. Raises `GuardFailed` when the model does."""
        try:
            outputs = self._run_bound(inputs) if self._bound else self._session.run(None, dict(inputs))
        except Exception as exc:  # ONNX Runtime's exceptions share no base but Exception
            raise GuardFailed(f"the model failed: {type(exc).__name__}") from exc
        return dict(zip(self.outputs, outputs, strict=True))

    def _run_bound(self, inputs: Mapping[str, Any]) -> list[Any]:
        binding = self._session.io_binding()
        for name, value in inputs.items():
            if isinstance(value, ort.OrtValue):
                binding.bind_ortvalue_input(name, value)
            else:
                binding.bind_cpu_input(name, _whole(value))
        for name in self.outputs:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        outputs: list[Any] = binding.copy_outputs_to_cpu()
        return outputs


def _whole(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(array)


@dataclass(frozen=True, slots=True)
class _Bucket:
    """One text of one length: buffers whose addresses never change, as a CUDA graph needs them."""

    ids: Any
    mask: Any
    logits: Any
    binding: Any
    options: Any

    @classmethod
    def of(cls, session: Opened, length: int, buffers: str) -> "_Bucket":
        made = ort.OrtValue.ortvalue_from_shape_and_type
        ids, mask = (made([1, length], np.int64, buffers, 0) for _ in range(2))
        logits = made([1, int(session.get_outputs()[0].shape[1])], np.float32, buffers, 0)
        binding = session.io_binding()
        binding.bind_ortvalue_input("input_ids", ids)
        binding.bind_ortvalue_input("attention_mask", mask)
        binding.bind_ortvalue_output("logits", logits)
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(length))
        return cls(ids, mask, logits, binding, options)

    def run(self, session: Opened, input_ids: Tokens, attention_mask: Tokens) -> Logits:
        room = ((0, 0), (0, self.ids.shape()[1] - input_ids.shape[1]))
        self.ids.update_inplace(np.pad(input_ids, room))
        self.mask.update_inplace(np.pad(attention_mask, room))
        session.run_with_iobinding(self.binding, self.options)
        return np.array(self.logits.numpy(), dtype=np.float32)


class Session(_Model):
    """int64 input_ids and attention_mask [rows, tokens] -> float32 logits [rows, labels]: see `Graph`. No bucket is
    longer than `longest` tokens, which the model takes."""

    def __init__(
        self,
        model: bytes,
        place: Placement = ON_CPU,
        *,
        profile: Profile | None = None,
        runtime: Runtime | None = None,
        longest: int = BUCKETS[-1],
    ) -> None:
        super().__init__(model, place, profile=profile, runtime=runtime)
        self._check_shape()
        lengths = [n for n in BUCKETS if n <= longest] if place.cuda_graphs else []
        try:
            self._buckets = {length: _Bucket.of(self._session, length, self._buffers) for length in lengths}
        except RuntimeError as exc:
            raise ArtefactRefused(f"cuda_graphs: no buffers on the device: {exc}") from exc

    def run(self, input_ids: Tokens, attention_mask: Tokens) -> Logits:
        """Raises `GuardFailed` when the model does."""
        length = next((n for n in self._buckets if input_ids.shape[1] <= n), None)
        try:
            if length is not None and len(input_ids) == 1:
                return self._buckets[length].run(self._session, input_ids, attention_mask)
            (logits,) = self._session.run(["logits"], {"input_ids": input_ids, "attention_mask": attention_mask})
        except Exception as exc:
            raise GuardFailed(f"the model failed on {input_ids.shape} tokens: {type(exc).__name__}") from exc
        return np.asarray(logits, dtype=np.float32)

    def warm_up(self, lengths: Sequence[int]) -> None:
        """Run once at each length (tokens), so that no caller waits for the first allocation."""
        for length in (*lengths, *self._buckets):
            self.run(np.full((1, length), 3, dtype=np.int64), np.ones((1, length), dtype=np.int64))

    def _check_shape(self) -> None:
        inputs = {(node.name, node.type) for node in self._session.get_inputs()}
        outputs = {(node.name, node.type) for node in self._session.get_outputs()}
        if inputs != {("input_ids", "tensor(int64)"), ("attention_mask", "tensor(int64)")}:
            raise ArtefactRefused(f"the model takes {sorted(inputs)}, not int64 input_ids and attention_mask")
        if outputs != {("logits", "tensor(float)")}:
            raise ArtefactRefused(f"the model gives {sorted(outputs)}, not float32 logits")


@dataclass(frozen=True, slots=True)
class Opening:
    """A model, where it is to run, and the shapes a TensorRT engine is built for."""

    model: bytes
    place: Placement
    profile: Profile | None


def _opened(model: bytes, place: Placement, profile: Profile | None, runtime: Runtime) -> tuple[Opened, Device]:
    """The session, and the device it really runs on: ONNX Runtime falls back to the CPU without a word."""
    if not place.devices or place.threads < 1:
        names = [device.value for device in place.devices]
        raise ArtefactRefused(f"devices {names} with {place.threads} threads: name a device and a thread")
    refused = []
    for devices in place.choices():
        try:
            return _on(Opening(model, place, profile), devices, runtime), devices[0]
        except ArtefactRefused as exc:
            refused.append(str(exc))
    raise ArtefactRefused("; ".join(refused))


def _on(opening: Opening, devices: Sequence[Device], runtime: Runtime) -> Opened:
    first = devices[0]
    available = runtime.available()
    if PROVIDERS[first] not in available:
        raise ArtefactRefused(explained(first, available, runtime.loads))
    source: bytes | Path = opening.model
    providers: list[Any] = [PROVIDERS[device] for device in devices if PROVIDERS[device] in available]
    if first is Device.TENSORRT:
        folder, options = _engine(opening, runtime)
        providers[0] = (PROVIDERS[first], options)
        source = folder / tensorrt.CONTEXT if (folder / tensorrt.CONTEXT).is_file() else opening.model
    if first is Device.CUDA and opening.place.cuda_graphs:
        providers[0] = (PROVIDERS[first], {"enable_cuda_graph": "1"})
    why = "" if first is Device.CPU else f": {explained(first, available, runtime.loads)}"
    try:
        session = runtime.open(source, _options(opening.place.threads), providers)
    except Exception as exc:  # ONNX Runtime's exceptions share no other base
        raise ArtefactRefused(f"the model cannot be loaded: {exc}{why}") from exc
    if (used := session.get_providers()[0]) != PROVIDERS[first]:
        raise ArtefactRefused(f"asked for {PROVIDERS[first]}, ONNX Runtime fell back to {used}{why}")
    return session


def _engine(opening: Opening, runtime: Runtime) -> tuple[Path, Mapping[str, str]]:
    """The folder of this model's engine, which only this user may write to, and the options to build or find it."""
    place, profile = opening.place, opening.profile
    if profile is None or place.cache is None:
        raise ArtefactRefused("tensorrt: needs a folder for its engines, and the shapes they are built for")
    if missing(Device.TENSORRT, runtime.loads):
        raise ArtefactRefused(explained(Device.TENSORRT, runtime.available(), runtime.loads))
    folder = tensorrt.engine_folder(place.cache, opening.model, profile, runtime.machine())
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise ArtefactRefused(f"tensorrt: {folder}: {exc.strerror}") from exc
    return folder, tensorrt.options(folder, profile)


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options
