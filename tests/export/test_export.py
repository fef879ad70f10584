"""`python -m export`: what comes out is served only whole and unchanged; what cannot be trusted does not come out."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from export.checkpoint import opened
from export.parity import Reference, auroc
from export.quantize import Precision
from export.to_onnx import Order, export
from guard_runtime.artefacts.artefact import Artefact
from guard_runtime.conversation import Conversation, Direction, Part, Role, Turn
from guard_runtime.errors import ArtefactRefused
from guard_runtime.generative.tokenizer import SafeTokenizer
from guard_runtime.guard import Passage
from guard_runtime.loading.generative import generative_model, load_generative
from guard_runtime.onnx.devices import Placement
from tests.export.tiny import checkpoint

WORDS = (
    "先把米洗干净",
    "再加水",
    "boil it",
    "，",
    "。",
    "\n",
    "转小火",
    "twenty minutes",
    "！",
    "安全",
    "不安全",
    "<|im_end|>",
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-libra")


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("artefacts") / "tiny-libra"
    found = export(Order(source, out, "libra_guard", Precision.FP32, head=False))
    assert found.verified
    assert found.p99 < 1e-4
    return out


def passages(count: int) -> list[Passage]:
    random = np.random.default_rng(1)
    texts = ["".join(random.choice(WORDS, size=random.integers(1, 12))) for _ in range(2 * count)]
    return [Passage(Direction.RESPONSE, texts[2 * n], texts[2 * n + 1]) for n in range(count)]


def test_the_forced_prefill_gives_the_checkpoints_verdict_on_500_rows(source: Path, made: Path) -> None:
    model = generative_model(Artefact.load(made))
    reference = Reference(opened(source, AutoModelForCausalLM), model._contract, model._tokenizer)
    rows = passages(500)
    ours = np.array([verdict.risk for verdict in model.predict(rows)])
    theirs = np.array([reference.risk(row) for row in rows])
    assert ((ours >= 0.5) == (theirs >= 0.5)).all()
    assert np.abs(ours - theirs).max() < 1e-4


def test_a_stream_in_onnx_scores_as_a_full_prefill_at_every_step(source: Path, made: Path) -> None:
    model = generative_model(Artefact.load(made))
    reference = Reference(opened(source, AutoModelForCausalLM), model._contract, model._tokenizer)
    answer = "".join(passage.text for passage in passages(12))
    for end in range(1, len(answer), 5):
        passage = Passage(Direction.RESPONSE, answer[:end], "怎么煮饭？")
        (verdict,) = model.predict([passage])
        assert verdict.risk == pytest.approx(reference.risk(passage), abs=1e-3)


def test_an_artefact_serves_conversations(made: Path) -> None:
    async def check() -> float:
        guard = load_generative(made)
        turn = Turn(Role.USER, (Part(("messages", 0, "content"), "怎么煮饭？"),))
        conversation = Conversation((turn,)).reply(Part(("choices", 0), "先洗米，再加水。"))
        async with guard.running():
            return (await guard.check(conversation)).risk

    assert 0 < anyio.run(check) < 1


def test_an_artefact_bound_to_its_device_scores_as_one_that_is_not(made: Path) -> None:
    rows = [*passages(6), Passage(Direction.RESPONSE, "先洗米，再加水", "怎么煮饭？")]
    rows += [Passage(Direction.RESPONSE, "先洗米，再加水，转小火", "怎么煮饭？")]
    plain, bound = (generative_model(Artefact.load(made), place=Placement(binding=b)) for b in (False, True))
    for row in rows:
        assert bound.predict([row])[0].risk == plain.predict([row])[0].risk


def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def cut(folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1000])


def swap(folder: Path) -> None:
    """Calls safe unsafe, as a label list in the wrong order would."""

    def change(manifest: dict[str, Any]) -> None:
        for asked in manifest["generative"]["prompts"].values():
            asked[0]["risky"] = ["safe"]

    rewrite(folder, change)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), "utf-8")


def section(values: Mapping[str, Any]) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, lambda manifest: manifest["generative"].update(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut, "sha256"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "not here"),
        (lambda folder: (folder / "extra.py").write_text("1"), "not in the manifest"),
        (swap, "golden row"),
        (section({"verified": False}), "does not agree"),
        (section({"label_tokens": [99464, 16530]}), "in their order"),
        (section({"prompts": {}}), "no prompts"),
        (section({"prompts": {"response": [{}]}}), "cannot be read"),
        (section({"decoder": {"layers": 3, "heads": 2, "width": 8}}), "score graph of 3 layers"),
        (lambda folder: rewrite(folder, lambda manifest: manifest.pop("generative")), "family must be classifier"),
    ],
)
def test_an_artefact_that_is_not_what_it_says_is_refused(
    change: Callable[[Path], object], message: str, made: Path, tmp_path: Path
) -> None:
    folder = copy(made, tmp_path)
    change(folder)
    with pytest.raises(ArtefactRefused, match=message):
        generative_model(Artefact.load(folder))


def test_an_unverified_artefact_is_served_when_it_is_allowed_by_name(made: Path, tmp_path: Path) -> None:
    folder = copy(made, tmp_path)
    section({"verified": False})(folder)
    assert generative_model(Artefact.load(folder), unverified=True).name == "tiny-libra"


def test_a_tokenizer_of_another_checkpoint_is_refused(source: Path) -> None:
    found = opened(source, AutoModelForCausalLM)
    rows = found.model.get_input_embeddings().weight.shape[0]
    found.covers([0, rows - 1])
    with pytest.raises(ArtefactRefused, match=f"token {rows}, the model {rows} embeddings"):
        found.covers([rows])


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled(folder: Path) -> None:
    no_weights(folder)
    torch.save({}, folder / "pytorch_model.bin")


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def settings(name: str, values: Mapping[str, Any]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), "utf-8")

    return change


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5000])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_weights, "no weights"),
        (pickled, "pickle"),
        (truncated, "cannot be loaded"),
        (lambda folder: weights(folder, lambda t: t.pop("model.norm.weight")), "not there"),
        (lambda folder: weights(folder, lambda t: t["model.norm.weight"].fill_(float("nan"))), "not finite"),
        (settings("config.json", {"auto_map": {"AutoModelForCausalLM": "m.M"}}), "auto_map"),
        (settings("tokenizer_config.json", {"auto_map": {}}), "auto_map"),
        (settings("tokenizer_config.json", {"chat_template": "{{ raise_exception('no') }}"}), "raised"),
        (settings("tokenizer_config.json", {"chat_template": None}), "no chat template"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
    ],
)
def test_a_checkpoint_that_cannot_be_trusted_is_refused_and_leaves_nothing(
    change: Callable[[Path], object], message: str, source: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(source, tmp_path / "checkpoint"))
    change(folder)
    with pytest.raises(ArtefactRefused, match=message):
        export(Order(folder, tmp_path / "out", "libra_guard", head=False))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ({"family": "libra"}, "not one of"),
        ({"family": "libra_guard", "target": "tensorrt", "precision": Precision.INT4}, "TensorRT"),
    ],
)
def test_an_order_that_cannot_be_filled_is_refused(order: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ArtefactRefused, match=message):
        export(Order(tmp_path, tmp_path / "out", **order))


def test_a_checkpoint_is_never_fetched(tmp_path: Path) -> None:
    with pytest.raises(ArtefactRefused, match="not a local folder"):
        export(Order(Path("Qwen/Qwen2.5-0.5B-Instruct"), tmp_path / "out", "instruct"))


def test_auroc_counts_pairs() -> None:
    assert auroc([0.9, 0.1, 0.5, 0.5], [True, False, True, False]) == pytest.approx(0.875)
    assert auroc([0.9], [True]) is None
    assert auroc([0.9, 0.2], [True, None]) is None


def test_the_tokenizer_is_the_one_transformers_uses(source: Path) -> None:
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(source / "tokenizer.json"))
    ours = SafeTokenizer((source / "tokenizer.json").read_text("utf-8"))
    for passage in passages(100):
        plain = passage.text.replace("<|im_end|>", "")
        assert ours.text(plain) == theirs.encode(plain, add_special_tokens=False)
