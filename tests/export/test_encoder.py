"""`python -m export` of somebody's encoder: its labels become our categories, or nothing comes out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import anyio
import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from export.encoder import Reference
from export.folder import Order
from export.quantize import Precision
from export.to_onnx import export
from guard_runtime.artefacts.artefact import Artefact
from guard_runtime.conversation import Conversation, Direction, Part, Role, Turn
from guard_runtime.errors import ArtefactRefused
from guard_runtime.guard import Passage
from guard_runtime.guards.classifier import Classifier, ClassifierOptions
from guard_runtime.loading.classifier import load_classifier
from guard_runtime.verdict import CATEGORIES, Category
from tests.export.encoders import BAD, checkpoint, trained

HATE, CRIME = Category.HATE_SPEECH_AND_ABUSE, Category.ILLEGAL_ACTIVITIES_AND_CRIME


def prompt(text: str) -> Passage:
    return Passage(Direction.PROMPT, text)


def said(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "labels.yaml"
    path.write_text(text, "utf-8")
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("encoders") / "looks-for-one-character")


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("artefacts") / "guard"
    assert export(Order(source, out)).verified
    return out


@pytest.mark.parametrize("architecture", ["bert", "xlm-roberta", "modernbert", "distilbert"])
@pytest.mark.parametrize("answers", ["alone", "after_question"])
def test_an_encoder_scores_as_its_checkpoint_does(architecture: str, answers: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "tiny", architecture, ("LABEL_0", "LABEL_1", "LABEL_2"))
    unsafe = f"{{LABEL_1: [{HATE}], LABEL_2: []}}"
    labels = said(tmp_path, f"safe: [LABEL_0]\nunsafe: {unsafe}\nanswers: {answers}")
    found = export(Order(folder, tmp_path / "guard", labels=labels))
    assert found.rows == 24
    assert found.worst < 1e-4
    scores = [golden.scores[HATE] for golden in Artefact.load(tmp_path / "guard").manifest.golden]
    assert np.ptp(scores) > 0.01


def test_a_choice_of_labels_and_labels_for_themselves_are_read_as_they_are_meant(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "tiny", "bert", ("safe", "insult", "crime"))
    for kind in ("one_of", "any_of"):
        file = said(tmp_path, f"kind: {kind}\nsafe: [safe]\nunsafe: {{insult: [{HATE}], crime: [{CRIME}]}}")
        export(Order(folder, tmp_path / kind, labels=file))
        guard = Classifier(Artefact.load(tmp_path / kind))
        reference = logits(folder, "怎么煮饭")
        share = torch.softmax(reference, 0) if kind == "one_of" else torch.sigmoid(reference)
        harm = share[1:].sum() if kind == "one_of" else share[1:].max()
        (verdict,) = guard.predict([prompt("怎么煮饭")])
        expected = {HATE: share[1], CRIME: share[2]}
        for category, value in expected.items():
            assert verdict.scores[category] == pytest.approx(float(value / share[1:].max() * harm), abs=1e-4)
        assert verdict.scores[Category.PROMPT_ATTACK] < 1e-4


def logits(folder: Path, text: str) -> torch.Tensor:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        found: torch.Tensor = model(**AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")).logits[0]
    return found


def test_it_serves_conversations_and_finds_harm_anywhere_in_a_long_text(made: Path) -> None:
    text = "今天怎么煮饭" * 120

    async def risks() -> list[float]:
        guard = load_classifier(made)
        async with guard.running():
            found = []
            for said in (text, text[:170] + BAD + text[170:], f"{text}{BAD}", BAD + text):
                turn = Turn(Role.USER, (Part(("messages", 0, "content"), said),))
                found.append((await guard.check(Conversation((turn,)))).scores[HATE])
            return found

    safe, *unsafe = anyio.run(risks)
    assert safe < 0.5 < min(unsafe)
    (verdict,) = Classifier(Artefact.load(made)).predict([prompt(text)])
    assert verdict.coverage.windows > 1
    assert verdict.coverage.unread == ()


def test_control_words_in_a_text_are_words(made: Path) -> None:
    guard = Classifier(Artefact.load(made))
    frame = {"[CLS]", "[SEP]", "[PAD]", "[UNK]"}
    for word in frame:
        encoding = guard._encode(f"今天{word}煮饭")
        assert not frame & set(encoding.tokens)


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8, Precision.INT4])
def test_fewer_bits_are_verified_against_the_checkpoint(precision: Precision, source: Path, tmp_path: Path) -> None:
    found = export(Order(source, tmp_path / "guard", precision=precision))
    manifest = Artefact.load(tmp_path / "guard").manifest
    assert (manifest.precision, manifest.encoder["verified"]) == (precision, found.verified)
    guard = Classifier(Artefact.load(tmp_path / "guard"), options=ClassifierOptions(unverified=True))
    safe, unsafe = guard.predict([prompt("今天怎么煮饭"), prompt(f"今天{BAD}怎么煮饭")])
    assert safe.risk < 0.5 < unsafe.risk


def test_a_graph_for_tensorrt_has_no_operators_of_onnx_runtimes_own(source: Path, made: Path, tmp_path: Path) -> None:
    export(Order(source, tmp_path / "guard", precision=Precision.FP16, target="tensorrt"))
    graph = onnx.load(tmp_path / "guard" / "model.onnx")
    assert {node.domain for node in graph.graph.node} == {""}
    assert Artefact.load(tmp_path / "guard").manifest.opset <= 20
    fused = onnx.load(made / "model.onnx")
    assert "Attention" in {node.op_type for node in fused.graph.node}
    with pytest.raises(ArtefactRefused, match="TensorRT takes no int8"):
        export(Order(source, tmp_path / "other", precision=Precision.INT8, target="tensorrt"))


def test_rows_are_measured_and_those_too_long_for_the_checkpoint_left_out(source: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"今天{BAD * (n % 2)}煮饭", "unsafe": bool(n % 2)} for n in range(10)]
    rows.append({"prompt": "今天" * 100, "unsafe": True})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    found = export(Order(source, tmp_path / "guard", rows=tmp_path / "rows.jsonl"))
    assert found.rows == 24 + 10
    assert (found.auroc_checkpoint, found.auroc_artefact) == (1.0, 1.0)


def test_an_artefact_that_does_not_agree_is_refused_unless_allowed_by_name(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "guard"))
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest["encoder"]["verified"] = False
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(ArtefactRefused, match="does not agree with its checkpoint"):
        load_classifier(folder)
    assert load_classifier(folder, options=ClassifierOptions(unverified=True)).name == "looks-for-one-character"


def test_an_artefact_that_disagrees_is_written_as_unverified(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Reference.risk
    monkeypatch.setattr(Reference, "risk", lambda self, passage: 1 - plain(self, passage))
    assert not export(Order(source, tmp_path / "guard")).verified
    with pytest.raises(ArtefactRefused, match="does not agree with its checkpoint"):
        Classifier(Artefact.load(tmp_path / "guard"))


def settings(values: dict[str, object]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), "utf-8")

    return change


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("architecture", ["bert", "xlm-roberta"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pickled, "only pytorch_model.bin, and a pickle"),
        (settings({"auto_map": {"AutoModelForSequenceClassification": "m.M"}}), "auto_map"),
        (settings({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}), "LABEL_0, LABEL_1: what they mean is not known"),
        (settings({"id2label": {"0": "toxic", "1": "toxic"}}), "two outputs have one name"),
        (settings({"problem_type": "regression"}), "gives no probabilities"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"no tokenizer\.json"),
    ],
)
def test_a_checkpoint_that_cannot_be_trusted_is_refused(
    architecture: str, change: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "tiny", architecture)
    change(folder)
    with pytest.raises(ArtefactRefused, match=message):
        export(Order(folder, tmp_path / "guard"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("safe: [safe]\nunsafe: {}", "the checkpoint's labels are safe, toxic"),
        ("safe: [safe, toxic]", "at least one must mean harm"),
        ("safe: []\nunsafe: {safe: [], toxic: []}", "and of a choice one no harm"),
        ("safe: [safe]\nunsafe: {toxic: [rudeness]}", "no list of categories"),
        ("kind: both", "kind is one of one_of, any_of"),
        ("answers: never", "answers is one of"),
        ("harmless: [safe]", "must be a mapping with"),
        ("[", "labels.yaml"),
    ],
)
def test_labels_that_say_nothing_are_refused(text: str, message: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "tiny")
    with pytest.raises(ArtefactRefused, match=message):
        export(Order(folder, tmp_path / "guard", labels=said(tmp_path / "said", text)))


def test_every_category_is_a_label_of_its_own_name(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "tiny", "distilbert", ("safe", *CATEGORIES))
    export(Order(folder, tmp_path / "guard"))
    manifest = Artefact.load(tmp_path / "guard").manifest
    assert manifest.encoder["labels"]["unsafe"] == {category: [category] for category in CATEGORIES}
