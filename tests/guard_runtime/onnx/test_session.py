"""A model runs where it was asked to run, or says what is missing: ONNX Runtime itself is a scripted twin here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from guard_runtime.errors import ArtefactRefused, GuardFailed
from guard_runtime.loading.classifier import placed
from guard_runtime.onnx.devices import LIBRARIES, PROVIDERS, Device, Placement, loads
from guard_runtime.onnx.session import Graph, Session
from guard_runtime.onnx.tensorrt import (
    CONTEXT,
    DecoderSizes,
    Machine,
    Profile,
    classifier_profile,
    decoder_profile,
    engine_folder,
    options,
    refuse_unsuited,
)
from guard_runtime.serving.warm_swap import WarmSwap
from guard_runtime.verdict import CATEGORIES, Verdict
from tests.guard_runtime import tiny

CPU, CUDA, TENSORRT = Device.CPU, Device.CUDA, Device.TENSORRT
EVERYTHING = tuple(PROVIDERS[device] for device in (TENSORRT, CUDA, CPU))
ALL = (TENSORRT, CUDA, CPU)
PROFILE = classifier_profile(4, 512)
HERE = Machine("1.31.1", "101300", "sm90")


class Opened:
    """A session that says it runs on the first of its providers that works."""

    def __init__(self, used: str) -> None:
        self.used = used

    def get_providers(self) -> list[str]:
        return [self.used]

    def get_inputs(self) -> Sequence[Any]:
        return [SimpleNamespace(name=name, type="tensor(int64)") for name in ("input_ids", "attention_mask")]

    def get_outputs(self) -> Sequence[Any]:
        return [SimpleNamespace(name="logits", type="tensor(float)")]

    def run(self, names: Sequence[str] | None, inputs: Mapping[str, Any]) -> list[Any]:
        if inputs["input_ids"].shape[1] > 100:
            raise RuntimeError("too long")
        return [np.zeros((len(inputs["input_ids"]), 9), np.float32)]


@dataclass
class Twin:
    """ONNX Runtime on a machine with these providers compiled in, these libraries, and these providers that work."""

    has: Sequence[str] = EVERYTHING
    libraries: frozenset[str] = frozenset(LIBRARIES[TENSORRT])
    works: frozenset[str] = frozenset(EVERYTHING)
    version: str = "1.31.1"
    opened: list[tuple[bytes | Path, list[Any]]] = field(default_factory=list)

    def available(self) -> list[str]:
        return list(self.has)

    def loads(self, library: str) -> bool:
        return library in self.libraries

    def machine(self) -> Machine:
        return HERE

    def open(self, model: bytes | Path, options: Any, providers: Sequence[Any]) -> Opened:
        assert options.intra_op_num_threads >= 1
        names = [item if isinstance(item, str) else item[0] for item in providers]
        self.opened.append((model, list(providers)))
        return Opened(next(name for name in names if name in self.works))


def session(place: Placement, twin: Twin) -> Session:
    return Session(b"model", place, profile=PROFILE, runtime=twin)


def test_providers_are_handed_over_in_the_order_of_the_config(tmp_path: Path) -> None:
    twin = Twin()
    assert session(Placement(ALL, cache=tmp_path), twin).device is TENSORRT
    ((model, providers),) = twin.opened
    assert model == b"model"
    assert [item if isinstance(item, str) else item[0] for item in providers] == list(EVERYTHING)


def test_a_later_provider_that_is_not_compiled_in_is_left_out() -> None:
    twin = Twin(has=EVERYTHING[1:])
    session(Placement((CUDA, TENSORRT, CPU)), twin)
    assert twin.opened[0][1] == list(EVERYTHING[1:])


@pytest.mark.parametrize(
    ("device", "twin", "said"),
    [
        (CUDA, Twin(has=EVERYTHING[2:]), r"no CUDAExecutionProvider, only CPU.*libragate\[gpu\]"),
        (TENSORRT, Twin(has=EVERYTHING[1:]), r"no TensorrtExecutionProvider.*libragate\[tensorrt\]"),
        (
            CUDA,
            Twin(libraries=frozenset({"libcudart.so.13", "libcublasLt.so.13"}), works=frozenset(EVERYTHING[2:])),
            r"fell back to CPUExecutionProvider: cuda: not found: libcudnn.so.9: .*CUDA 13 and cuDNN 9",
        ),
        (
            TENSORRT,
            Twin(libraries=frozenset(LIBRARIES[CUDA])),
            r"not found: libnvinfer.so.10, libnvonnxparser.so.10: .*tensorrt-cu13 below 11",
        ),
        (CUDA, Twin(works=frozenset(EVERYTHING[2:])), "fell back to CPU.*is there a GPU, and a driver"),
        (TENSORRT, Twin(works=frozenset(EVERYTHING[1:])), "fell back to CUDA"),
    ],
)
def test_what_is_missing_is_said_and_nothing_falls_back_in_silence(
    device: Device, twin: Twin, said: str, tmp_path: Path
) -> None:
    place = Placement((device, *(CUDA, CPU)[device is CUDA :]), cache=tmp_path)
    with pytest.raises(ArtefactRefused, match=said):
        session(place, twin)


def test_a_later_device_takes_over_only_where_the_config_says_so(tmp_path: Path) -> None:
    twin = Twin(works=frozenset(EVERYTHING[2:]))
    assert session(Placement(ALL, degrade=True, cache=tmp_path), twin).device is CPU
    with pytest.raises(ArtefactRefused, match="asked for Tensorrt"):
        session(Placement(ALL, cache=tmp_path), twin)
    nothing = Twin(has=(), works=frozenset())
    with pytest.raises(ArtefactRefused, match=r"no Tensorrt.*; cuda: .*; cpu: "):
        session(Placement(ALL, degrade=True, cache=tmp_path), nothing)


@pytest.mark.parametrize("place", [Placement(()), Placement(threads=0)])
def test_no_device_and_no_thread_are_no_place(place: Placement) -> None:
    with pytest.raises(ArtefactRefused, match="name a device and a thread"):
        session(place, Twin())


def test_an_engine_is_built_with_every_shape_and_kept_for_this_machine_alone(tmp_path: Path) -> None:
    twin = Twin()
    session(Placement(ALL, cache=tmp_path), twin)
    folder = engine_folder(tmp_path, b"model", PROFILE, HERE)
    assert folder.stat().st_mode & 0o077 == 0
    assert twin.opened[0][1][0] == (EVERYTHING[0], options(folder, PROFILE))
    given = options(folder, PROFILE)
    assert given["trt_profile_min_shapes"] == "attention_mask:1x1,input_ids:1x1"
    assert given["trt_profile_max_shapes"] == "attention_mask:4x512,input_ids:4x512"
    others = [
        engine_folder(tmp_path, b"other", PROFILE, HERE),
        engine_folder(tmp_path, b"model", classifier_profile(8, 512), HERE),
        *(engine_folder(tmp_path, b"model", PROFILE, Machine(*machine)) for machine in (
            ("1.32.0", "101300", "sm90"), ("1.31.1", "101400", "sm90"), ("1.31.1", "101300", "sm89"),
        )),
    ]  # fmt: skip
    assert len({folder, *others}) == 6


def test_a_built_engine_is_loaded_and_not_built_again(tmp_path: Path) -> None:
    folder = engine_folder(tmp_path, b"model", PROFILE, HERE)
    folder.mkdir(parents=True)
    (folder / CONTEXT).write_bytes(b"engine")
    twin = Twin()
    session(Placement(ALL, cache=tmp_path), twin)
    assert twin.opened[0][0] == folder / CONTEXT


def test_tensorrt_without_a_folder_or_shapes_is_refused(tmp_path: Path) -> None:
    for place, profile in ((Placement(ALL), PROFILE), (Placement(ALL, cache=tmp_path), None)):
        with pytest.raises(ArtefactRefused, match="needs a folder"):
            Session(b"model", place, profile=profile, runtime=Twin())
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactRefused, match="Not a directory"):
        session(Placement(ALL, cache=tmp_path / "file"), Twin())


def test_a_decoders_profile_names_every_input_and_its_shapes_grow() -> None:
    profile = decoder_profile(DecoderSizes(layers=2, heads=3, width=8, rows=4, tokens=1_000))
    assert len(profile.most) == 5 + 2 * 2
    assert profile.most["past.1.value"] == (4, 3, 1_000, 8)
    assert profile.least["past.0.key"] == (1, 3, 1, 8)
    assert profile.most["attention_mask"] == (4, 2_000)
    small = decoder_profile(DecoderSizes(layers=1, heads=1, width=8, rows=1, tokens=64))
    assert small.usual["attention_mask"] == (1, 128)


@pytest.mark.parametrize(
    ("least", "usual", "most"),
    [({"a": (2,)}, {"a": (1,)}, {"a": (3,)}), ({"a": (1,)}, {"a": (4,)}, {"a": (3,)}), ({}, {"a": (1,)}, {"a": (1,)})],
)
def test_a_profile_that_holds_no_shape_is_refused(
    least: dict[str, tuple[int, ...]], usual: dict[str, tuple[int, ...]], most: dict[str, tuple[int, ...]]
) -> None:
    with pytest.raises(ValueError, match="profile"):
        Profile(least, usual, most)


@pytest.mark.parametrize(("precision", "opset"), [("int8", 18), ("int4", 21), ("fp16", 23)])
def test_an_artefact_tensorrt_would_take_in_pieces_is_refused(precision: str, opset: int) -> None:
    refuse_unsuited("g", "fp16", 18)
    with pytest.raises(ArtefactRefused, match="--target tensorrt"):
        refuse_unsuited("g", precision, opset)


def test_a_model_that_fails_is_a_guards_failure() -> None:
    with pytest.raises(GuardFailed, match="RuntimeError"):
        session(Placement((CPU,)), Twin()).run(np.ones((1, 101), np.int64), np.ones((1, 101), np.int64))
    graph = Graph(b"model", runtime=Twin())
    with pytest.raises(GuardFailed, match="RuntimeError"):
        graph.run({"input_ids": np.ones((1, 101), np.int64)})


def test_a_bound_graph_gives_what_a_plain_one_gives_and_takes_what_it_holds() -> None:
    kill = tiny.vocabulary()["kill"]
    inputs = {"input_ids": np.array([[4, 5, kill], [6, 7, 1]]), "attention_mask": np.array([[1, 1, 1], [1, 1, 0]])}
    plain, bound = Graph(tiny.model()), Graph(tiny.model(), Placement(binding=True))
    expected = plain.run(inputs)["logits"]
    assert plain.held(inputs) is inputs
    held = bound.held({"input_ids": inputs["input_ids"]})
    for given in (inputs, {**inputs, **held}, {**inputs, **held}, {name: a[:, ::1] for name, a in inputs.items()}):
        assert (bound.run(given)["logits"] == expected).all()
    assert np.ptp(expected) > 1
    with pytest.raises(GuardFailed):
        bound.run({**inputs, "attention_mask": np.ones((2, 3), np.float32)})


def test_texts_padded_to_lengths_of_fixed_buffers_score_as_they_are() -> None:
    plain, padded = Session(tiny.model()), Session(tiny.model(), Placement(cuda_graphs=True))
    random = np.random.default_rng(3)
    for length in (1, 16, 17, 40, 512, 513, 3):
        ids = random.integers(4, len(tiny.vocabulary()), (1, length))
        mask = np.ones_like(ids)
        mask[0, 8:] = random.integers(0, 2, max(0, length - 8))
        assert (padded.run(ids, mask) == plain.run(ids, mask)).all()
    both = random.integers(4, 20, (2, 9))
    assert (padded.run(both, np.ones_like(both)) == plain.run(both, np.ones_like(both))).all()


def test_cuda_records_graphs_for_encoders_alone_and_only_where_asked() -> None:
    options = {"enable_cuda_graph": "1"}
    twins = [Twin(), Twin(), Twin()]
    Graph(b"model", Placement((CUDA, CPU), cuda_graphs=True), runtime=twins[0])
    Session(b"model", Placement((CUDA, CPU)), runtime=twins[1])
    with pytest.raises(ArtefactRefused, match="cuda_graphs: no buffers"):
        Session(b"model", Placement((CUDA, CPU), cuda_graphs=True), runtime=twins[2])
    given = [twin.opened[0][1][0] for twin in twins]
    assert given == [PROVIDERS[CUDA], PROVIDERS[CUDA], (PROVIDERS[CUDA], options)]


def test_a_library_that_nobody_has_does_not_load() -> None:
    assert not loads("libnobody-has-this.so.1")
    assert loads("libc.so.6")


class Model:
    def __init__(self, risk: float) -> None:
        self.risk = risk

    def predict(self, batch: Sequence[Any]) -> Sequence[Verdict]:
        return [Verdict("g", dict.fromkeys(CATEGORIES, self.risk)) for _ in batch]


def test_the_next_device_serves_until_the_engine_is_built() -> None:
    made: list[Placement] = []

    def make(place: Placement) -> Model:
        made.append(place)
        return Model(0.1 * len(made))

    _, model = placed(make, Placement(ALL, degrade=True))
    assert isinstance(model, WarmSwap)
    model.wait()
    assert [(place.first, place.degrade) for place in made] == [(CUDA, True), (TENSORRT, False)]
    assert model.predict([1])[0].risk == pytest.approx(0.2)
    now, alone = placed(make, Placement(ALL))
    assert alone is now
    assert made[-1].first is TENSORRT


def test_an_engine_that_cannot_be_built_leaves_the_next_device_serving() -> None:
    def make(place: Placement) -> Model:
        if place.first is TENSORRT:
            raise ArtefactRefused("no libnvinfer.so.10")
        return Model(0.1)

    _, model = placed(make, Placement(ALL, degrade=True))
    assert isinstance(model, WarmSwap)
    model.wait()
    assert model.failure == "no libnvinfer.so.10"
    assert model.predict([1])[0].risk == pytest.approx(0.1)
