"""TensorRT's side of a session: which shapes an engine is built for, and where it is kept so that it is built once."""

import ctypes
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from guard_runtime.errors import ArtefactRefused

Shape = tuple[int, ...]

MOST_OPSET = 20
"""Above it ONNX has an Attention operator that TensorRT leaves to CUDA, in pieces."""

PRECISIONS = ("fp32", "fp16")
"""TensorRT 11 has no weak typing, and 10 takes none of ONNX Runtime's own operators: precision is in the graph."""

CONTEXT = "engine_ctx.onnx"
_MAJOR, _MINOR = 75, 76


@dataclass(frozen=True, slots=True)
class Profile:
    """The least, the usual and the largest shape of every dynamic input. An engine serves what lies between; any other
    shape would rebuild it while a caller waits, so every input must be named."""

    least: Mapping[str, Shape]
    usual: Mapping[str, Shape]
    most: Mapping[str, Shape]

    def __post_init__(self) -> None:
        if not set(self.least) == set(self.usual) == set(self.most):
            raise ValueError("a profile names the same inputs for its least, usual and largest shapes")
        for name, least in self.least.items():
            shapes = list(zip(least, self.usual[name], self.most[name], strict=True))
            if not all(a <= b <= c for a, b, c in shapes):
                raise ValueError(f"profile of {name}: {shapes} do not grow")


@dataclass(frozen=True, slots=True)
class Machine:
    """What an engine is bound to."""

    onnxruntime: str
    tensorrt: str
    architecture: str


def this_machine(onnxruntime: str) -> Machine:
    """Raises `ArtefactRefused` where there is no TensorRT 10 or no GPU."""
    try:
        version = int(ctypes.CDLL("libnvinfer.so.10").getInferLibVersion())
        driver = ctypes.CDLL("libcuda.so.1")
    except (OSError, AttributeError) as exc:
        raise ArtefactRefused(f"tensorrt: {exc}") from exc
    capability = [_attribute(driver, number) for number in (_MAJOR, _MINOR)]
    return Machine(onnxruntime, str(version), f"sm{capability[0]}{capability[1]}")


def _attribute(driver: ctypes.CDLL, number: int) -> int:
    """An attribute of the first GPU (cuDeviceGetAttribute)."""
    device, value = ctypes.c_int(), ctypes.c_int()
    results = (
        driver.cuInit(0),
        driver.cuDeviceGet(ctypes.byref(device), 0),
        driver.cuDeviceGetAttribute(ctypes.byref(value), number, device),
    )
    if any(results):
        raise ArtefactRefused(f"tensorrt: the CUDA driver gives no GPU (error {max(results)})")
    return value.value


def engine_folder(cache: Path, model: bytes, profile: Profile, machine: Machine) -> Path:
    """Where this model's engine lies for this machine: another model, runtime, TensorRT, GPU or profile is another
    folder, so an old engine is never used for a new one. Nothing is deleted here."""
    shapes = _texts(profile)
    described = "|".join((machine.onnxruntime, machine.tensorrt, machine.architecture, *shapes))
    key = hashlib.sha256(hashlib.sha256(model).digest() + described.encode()).hexdigest()[:24]
    return cache / f"{machine.architecture}-trt{machine.tensorrt}-ort{machine.onnxruntime}" / key


def options(folder: Path, profile: Profile) -> dict[str, str]:
    """The provider's options: engine, timings and the model's context are kept in `folder`."""
    least, usual, most = _texts(profile)
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder.parent),
        "trt_dump_ep_context_model": "1",
        "trt_ep_context_file_path": str(folder / CONTEXT),
        "trt_builder_optimization_level": "3",
        "trt_profile_min_shapes": least,
        "trt_profile_opt_shapes": usual,
        "trt_profile_max_shapes": most,
    }


def _texts(profile: Profile) -> tuple[str, str, str]:
    return _text(profile.least), _text(profile.usual), _text(profile.most)


def _text(shapes: Mapping[str, Shape]) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items()))


def refuse_unsuited(name: str, precision: str, opset: int) -> None:
    """Raises `ArtefactRefused` for an artefact that TensorRT would take in pieces, or not at all."""
    if precision not in PRECISIONS or opset > MOST_OPSET:
        raise ArtefactRefused(
            f"{name}: TensorRT takes no {precision} graph of opset {opset}: export it with --precision fp16 --target "
            f"tensorrt (opset {MOST_OPSET} or lower), or serve it on cuda"
        )


def classifier_profile(rows: int, tokens: int) -> Profile:
    """input_ids and attention_mask, [rows, tokens]."""
    names = ("input_ids", "attention_mask")
    return Profile(
        dict.fromkeys(names, (1, 1)),
        dict.fromkeys(names, (1, min(128, tokens))),
        dict.fromkeys(names, (rows, tokens)),
    )


@dataclass(frozen=True, slots=True)
class DecoderSizes:
    """Of a score graph: layers, heads and width of keys; the most rows and tokens in one prefill."""

    layers: int
    heads: int
    width: int
    rows: int
    tokens: int


@dataclass(frozen=True, slots=True)
class DecoderRun:
    """The shape of one run: rows, new tokens, and tokens read before."""

    rows: int
    new: int
    past: int

    def within(self, most: "DecoderRun") -> "DecoderRun":
        return DecoderRun(min(self.rows, most.rows), min(self.new, most.new), min(self.past, most.past))


LEAST_RUN = DecoderRun(1, 1, 1)
USUAL_RUN = DecoderRun(1, 128, 142)


def decoder_profile(sizes: DecoderSizes, usual: DecoderRun = USUAL_RUN) -> Profile:
    """Every input of a score graph, the past of every layer among them. There is always at least one past token: an
    engine takes no empty tensor, so the decoder puts a masked one there."""
    most = DecoderRun(sizes.rows, sizes.tokens, sizes.tokens)
    return Profile(_decoder(sizes, LEAST_RUN), _decoder(sizes, usual.within(most)), _decoder(sizes, most))


def _decoder(sizes: DecoderSizes, run: DecoderRun) -> dict[str, Shape]:
    kinds = [f"past.{layer}.{part}" for layer in range(sizes.layers) for part in ("key", "value")]
    return {
        "input_ids": (run.rows, run.new),
        "attention_mask": (run.rows, run.new + run.past),
        "position_ids": (run.rows, run.new),
        "last_index": (run.rows,),
        "past_row": (run.rows,),
        **dict.fromkeys(kinds, (run.rows, sizes.heads, run.past, sizes.width)),
    }
