"""Where a model may run: the devices asked for in order, what each needs, and what of that is missing here."""

import ctypes
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType


class Device(StrEnum):
    """As config.yaml calls them."""

    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


PROVIDERS: Mapping[Device, str] = MappingProxyType(
    {
        Device.CPU: "CPUExecutionProvider",
        Device.CUDA: "CUDAExecutionProvider",
        Device.TENSORRT: "TensorrtExecutionProvider",
    }
)

CUDA_LIBRARIES = ("libcudart.so.13", "libcublasLt.so.13", "libcudnn.so.9")
LIBRARIES: Mapping[Device, tuple[str, ...]] = MappingProxyType(
    {
        Device.CPU: (),
        Device.CUDA: CUDA_LIBRARIES,
        Device.TENSORRT: (*CUDA_LIBRARIES, "libnvinfer.so.10", "libnvonnxparser.so.10"),
    }
)
"""What onnxruntime-gpu 1.31's provider libraries are linked against."""

INSTALL: Mapping[Device, str] = MappingProxyType(
    {
        Device.CPU: "pip install onnxruntime",
        Device.CUDA: "pip uninstall onnxruntime, then pip install 'libragate[gpu]', CUDA 13 and cuDNN 9",
        Device.TENSORRT: "pip uninstall onnxruntime, then pip install 'libragate[tensorrt]': tensorrt-cu13 below 11, "
        "for ONNX Runtime looks for libnvinfer.so.10",
    }
)

Loads = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Placement:
    """`devices` in order of preference: the first must really be used, those behind it take the operations it has none
    for. With `degrade` a later one takes the first one's place where that cannot run here. `threads` is never 0, which
    in a container means "as many as the host has cores". `cache`: the folder for built engines. `binding`: inputs are
    bound where the model runs, and what comes back often (an instruction's keys) stays there. `cuda_graphs`: an
    encoder's single texts are padded to a few lengths, whose launches CUDA records once and replays."""

    devices: tuple[Device, ...] = (Device.CPU,)
    threads: int = 1
    degrade: bool = False
    cache: Path | None = None
    binding: bool = False
    cuda_graphs: bool = False

    @property
    def first(self) -> Device:
        return self.devices[0]

    @property
    def on_cpu(self) -> bool:
        return self.devices[:1] == (Device.CPU,)

    def choices(self) -> tuple[tuple[Device, ...], ...]:
        """What to try, in order: all of them, and with `degrade` all but the first, and so on."""
        last = len(self.devices) if self.degrade else 1
        return tuple(self.devices[n:] for n in range(last))


ON_CPU = Placement()


def loads(library: str) -> bool:
    """Whether the dynamic linker finds this library, or a package of pip's brings it."""
    for place in (library, *map(str, _in_packages(library))):
        try:
            ctypes.CDLL(place, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return True
    return False


def missing(device: Device, has: Loads = loads) -> tuple[str, ...]:
    """The libraries that this device needs and that are not here."""
    return tuple(library for library in LIBRARIES[device] if not has(library))


def explained(device: Device, available: Sequence[str], has: Loads = loads) -> str:
    """Why ONNX Runtime cannot use a device, and what to do."""
    if PROVIDERS[device] not in available:
        return (
            f"{device.value}: ONNX Runtime here has no {PROVIDERS[device]}, only {', '.join(available)}: "
            f"{INSTALL[device]}"
        )
    lacking = missing(device, has)
    if lacking:
        return f"{device.value}: not found: {', '.join(lacking)}: {INSTALL[device]}"
    return f"{device.value}: its libraries are here, but it cannot be used: is there a GPU, and a driver for CUDA 13?"


def _in_packages(library: str) -> list[Path]:
    """TensorRT's wheels keep their libraries where the linker does not look."""
    spec = importlib.util.find_spec("tensorrt_libs")
    folders = spec.submodule_search_locations if spec is not None else None
    return [Path(folder) / library for folder in folders or ()]
