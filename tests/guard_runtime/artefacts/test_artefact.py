"""A guard on disk is what its manifest says, or it is refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from guard_runtime.artefacts.artefact import Artefact, self_test
from guard_runtime.artefacts.manifest import LABELS
from guard_runtime.conversation import Direction
from guard_runtime.errors import ArtefactRefused
from guard_runtime.guards.classifier import Classifier
from guard_runtime.onnx.devices import Device, Placement
from guard_runtime.verdict import CATEGORIES, Category
from tests.guard_runtime import tiny

Change = Callable[[dict[str, Any]], None]

POINT = {direction.value: {category.value: 0.9 for category in CATEGORIES} for direction in Direction}


def put(path: str, value: Any) -> Change:
    def change(manifest: dict[str, Any]) -> None:
        *outer, last = path.split(".")
        for key in outer:
            manifest = manifest[key]
        manifest[last] = value

    return change


def drop(path: str) -> Change:
    def change(manifest: dict[str, Any]) -> None:
        *outer, last = path.split(".")
        for key in outer:
            manifest = manifest[key]
        del manifest[last]

    return change


def golden_of(direction: Direction) -> Change:
    def change(manifest: dict[str, Any]) -> None:
        rows = [row for row in tiny.golden() * 2 if (row["response"] is not None) == (direction is Direction.RESPONSE)]
        manifest["golden"] = rows

    return change


def test_an_artefact_that_is_what_it_says_loads(folder: Path) -> None:
    artefact = Artefact.load(folder)
    assert artefact.manifest.name == "tiny"
    assert artefact.manifest.calibration[Direction.RESPONSE]["zh"].temperature == 1.0
    assert artefact.manifest.operating_points["strict"][Direction.PROMPT][Category.PROMPT_ATTACK] == 0.5


MISTAKES: list[tuple[Change, str]] = [
    (drop("calibration"), "no calibration"),
    (drop("calibration.prompt"), "calibration must have exactly prompt, response"),
    (drop("calibration.prompt.zh"), "calibration.prompt must have exactly zh, en"),
    (put("calibration.prompt.zh.temperature", 0), "calibration.prompt: not a temperature above 0 and a bias: zh"),
    (put("calibration.prompt.zh", {"temperature": 1}), "calibration.prompt: not a temperature above 0 and a bias: zh"),
    (put("calibration.response.en.bias", "0"), "calibration.response: not a temperature above 0 and a bias: en"),
    (put("labels", [LABELS[0], *LABELS[:0:-1]]), "labels must be, in this order: unsafe, illegal"),
    (put("format", 2), "format must be 1"),
    (put("format", True), "format must be 1"),
    (put("name", "../up"), "name must be lower-case"),
    (put("version", "one"), "version must be a semantic version"),
    (put("family", "oracle"), "family must be classifier"),
    (put("made", "yesterday"), "made must be a day"),
    (put("max_tokens", 0), "max_tokens must be a whole number from 32"),
    (put("max_tokens", True), "max_tokens must be a whole number from 32"),
    (put("opset", "17"), "opset must be a whole number"),
    (put("golden_tolerance", 1), "golden_tolerance must be above 0 and at most 0.2"),
    (put("colour", "red"), "unknown keys colour"),
    (drop("operating_points.strict"), "operating_points must have balanced, strict and no other but permissive"),
    (put("operating_points.loose", POINT), "operating_points must have balanced, strict and no other but permissive"),
    (put("operating_points.permissive", {"prompt": POINT["prompt"]}), "operating_points.permissive must have exactly"),
    (
        put(
            "operating_points.permissive",
            {"prompt": {**POINT["prompt"], "prompt_attack": 0.4}, "response": POINT["response"]},
        ),
        "operating_points.permissive.prompt: below balanced: prompt_attack",
    ),
    (drop("operating_points.strict.prompt.prompt_attack"), "operating_points.strict.prompt must have exactly"),
    (
        put("operating_points.strict.prompt.prompt_attack", 1.5),
        "operating_points.strict.prompt: not in 0..1: prompt_attack",
    ),
    (put("source_bias", {"user": 9}), "source_bias must map sources to numbers from -5 to 5"),
    (put("source_bias", {"nobody": 1}), "source_bias must map sources"),
    (put("window_penalty", {"user": -1}), "window_penalty must map sources to numbers from 0 to 5"),
    (put("golden", []), "golden must list at least 16 rows"),
    (put("golden", [{**row, "source": "nobody"} for row in tiny.golden()]), "golden[0] must have prompt"),
    (put("golden", [{"prompt": "hello"}] * 16), "golden[0] must have prompt, response and a score"),
    (golden_of(Direction.PROMPT), "golden has no response in zh, response in en"),
    (put("files", ["model.onnx"]), "files must map names to sha256"),
    (put("files", {}), "files lists no model.onnx"),
    (put("files", {"../model.onnx": "0" * 64}), "not plain file names: '../model.onnx'"),
]


@pytest.mark.parametrize(("change", "said"), MISTAKES)
def test_a_mistake_in_the_manifest_is_named(tmp_path: Path, change: Change, said: str) -> None:
    with pytest.raises(ArtefactRefused) as refused:
        Artefact.load(tiny.artefact(tmp_path / "guard", change))
    assert said in str(refused.value)
    assert "manifest.json" in str(refused.value)


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        put("family", "oracle")(manifest)
        put("golden", [])(manifest)

    with pytest.raises(ArtefactRefused, match=r"family.*golden"):
        Artefact.load(tiny.artefact(tmp_path / "guard", change))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not strict JSON"),
        ("[]", "must be an object"),
        ('{"format": 1, "format": 1}', "duplicate keys format"),
        ('{"golden_tolerance": NaN}', "NaN is no number"),
        ("[" * 100_000, "not strict JSON"),
    ],
)
def test_a_manifest_that_is_not_strict_json_is_refused(tmp_path: Path, text: str, said: str) -> None:
    folder = tiny.artefact(tmp_path / "guard")
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ArtefactRefused, match=said):
        Artefact.load(folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "CARD.md"])
def test_one_flipped_byte_in_a_file_is_refused(tmp_path: Path, name: str) -> None:
    folder = tiny.artefact(tmp_path / "guard")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ArtefactRefused, match=rf"{name}: sha256 is"):
        Artefact.load(folder)


def test_a_flipped_byte_in_the_manifest_is_refused_or_gives_another_version(tmp_path: Path) -> None:
    folder = tiny.artefact(tmp_path / "guard")
    before = Classifier(Artefact.load(folder)).version
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"bias": 0.0', '"bias": 0.001'))
    assert Classifier(Artefact.load(folder)).version != before


def test_a_file_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    folder = tiny.artefact(tmp_path / "guard")
    (folder / "weights.bin").write_bytes(b"0")
    with pytest.raises(ArtefactRefused, match=r"not in the manifest: weights.bin"):
        Artefact.load(folder)


def test_a_listed_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    folder = tiny.artefact(tmp_path / "guard")
    (folder / "CARD.md").unlink()
    with pytest.raises(ArtefactRefused, match=r"not here: CARD.md"):
        Artefact.load(folder)


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "tokenizer.json"])
def test_a_symbolic_link_is_refused_though_its_content_is_right(tmp_path: Path, name: str) -> None:
    folder = tiny.artefact(tmp_path / "guard")
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    with pytest.raises(ArtefactRefused, match=rf"{name}: cannot be read, or is a link"):
        Artefact.load(folder)


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "CARD.md"])
def test_a_second_hard_link_is_refused(tmp_path: Path, name: str) -> None:
    folder = tiny.artefact(tmp_path / "guard")
    os.link(folder / name, tmp_path / name)
    with pytest.raises(ArtefactRefused, match=rf"{name}: has 2 hard links"):
        Artefact.load(folder)


def test_a_pipe_in_place_of_a_file_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    folder = tiny.artefact(tmp_path / "guard")
    (folder / "CARD.md").unlink()
    os.mkfifo(folder / "CARD.md")
    with pytest.raises(ArtefactRefused, match=r"CARD.md: not a plain file"):
        Artefact.load(folder)


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    made = onnx.load_from_string(tiny.model())
    onnx.external_data_helper.convert_model_to_external_data(made, location="outside.bin", size_threshold=0)
    folder = tiny.artefact(tmp_path / "guard", files={"model.onnx": made.SerializeToString()})
    with pytest.raises(ArtefactRefused, match=r"model.onnx: keeps weights in another file"):
        Artefact.load(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactRefused, match=r"manifest.json: cannot be read"):
        Artefact.load(tmp_path / "nowhere")


def test_golden_rows_score_as_they_should(folder: Path, classifier: Classifier) -> None:
    assert self_test(Artefact.load(folder).manifest, classifier) < 1e-5


def test_weights_that_score_otherwise_are_refused_by_row_and_by_how_much(tmp_path: Path) -> None:
    swapped = tiny.weights()
    swapped[:, [1, 2]] = swapped[:, [2, 1]]
    folder = tiny.artefact(tmp_path / "guard", files={"model.onnx": tiny.model(swapped)})
    with pytest.raises(ArtefactRefused) as refused:
        Classifier(Artefact.load(folder))
    assert "golden row 2 scores 0.018 for illegal_activities_and_crime, 0.982 was expected: 0.964 off" in str(
        refused.value
    )


def test_a_swapped_vocabulary_is_refused(tmp_path: Path) -> None:
    text = json.loads(tiny.tokenizer())
    vocabulary = text["model"]["vocab"]
    vocabulary["bomb"], vocabulary["cake"] = vocabulary["cake"], vocabulary["bomb"]
    folder = tiny.artefact(tmp_path / "guard", files={"tokenizer.json": json.dumps(text).encode()})
    with pytest.raises(ArtefactRefused, match="golden row"):
        Classifier(Artefact.load(folder))


@pytest.mark.parametrize("logit", [np.nan, np.inf, -np.inf])
def test_a_model_that_gives_no_finite_number_is_refused(tmp_path: Path, logit: float) -> None:
    folder = tiny.artefact(tmp_path / "guard", files={"model.onnx": tiny.model(np.full_like(tiny.weights(), logit))})
    with pytest.raises(ArtefactRefused, match="not finite"):
        Classifier(Artefact.load(folder))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"model.onnx": b"no model"}, "the model cannot be loaded"),
        ({"model.onnx": tiny.model(output="scores")}, "not float32 logits"),
        ({"tokenizer.json": b"{}"}, "tokenizer.json cannot be read"),
        ({"tokenizer.json": tiny.tokenizer().replace(b"<pad>", b"<dap>")}, "lacks one of <s>"),
    ],
)
def test_a_file_that_is_no_model_or_tokenizer_is_refused(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    with pytest.raises(ArtefactRefused, match=said):
        Classifier(Artefact.load(tiny.artefact(tmp_path / "guard", files=files)))


def test_a_device_that_is_not_here_is_refused_and_not_replaced(folder: Path) -> None:
    with pytest.raises(ArtefactRefused, match=r"no CUDAExecutionProvider, only .*CPUExecutionProvider.*pip install"):
        Classifier(Artefact.load(folder), place=Placement((Device.CUDA, Device.CPU)))


def test_no_threads_means_no_session(folder: Path) -> None:
    with pytest.raises(ArtefactRefused, match="0 threads"):
        Classifier(Artefact.load(folder), place=Placement(threads=0))
