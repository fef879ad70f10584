"""Qwen3Guard-Stream's shape on a tiny random checkpoint: the artefact says what torch says, at every token."""

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
from transformers import AutoModel

from export.checkpoint import opened
from export.examples import EXAMPLES
from export.folder import Order
from export.to_onnx import export
from export.token_heads import TokenReference, heads_of
from guard_runtime.artefacts.artefact import Artefact
from guard_runtime.conversation import Conversation, Direction, Part, Role, Turn
from guard_runtime.errors import ArtefactRefused
from guard_runtime.generative.families.published import FAMILIES
from guard_runtime.generative.prompt import words
from guard_runtime.guard import Passage
from guard_runtime.guards.tokenwise import TokenwiseModel
from guard_runtime.loading.generative import generative_model, load_generative
from guard_runtime.verdict import Category, Verdict
from tests.export.tiny import config
from tests.guard_runtime.generative.qwen import tokenizer_json
from tests.guard_runtime.generative.templates import QWEN3

FAMILY = "qwen3guard_stream"
INNER = 24
NAMES = {"0": "Safe", "1": "Unsafe", "2": "Controversial"}
PIECES = (
    *("先把米洗干净", "再加水", "boil it", "，", "。", "\n", "转小火", "twenty minutes", "！", "不安全", "😀", "é"),
    *("<|im_end|>", "</think>", "\r\n", "  "),
)


def source(folder: Path) -> Path:
    """A checkpoint as its makers publish it, code of its own included: it would leave a file behind if it were run."""
    torch.manual_seed(11)
    folder.mkdir(parents=True)
    settings = config("qwen3")
    body = AutoModel.from_config(settings).state_dict()
    heads = {}
    for prefix, kinds in (("", 8), ("query_", 9)):
        heads[f"{prefix}risk_level_category_pre.weight"] = torch.randn(INNER, settings.hidden_size)
        heads[f"{prefix}risk_level_category_layernorm.weight"] = torch.rand(INNER) + 0.5
        heads[f"{prefix}risk_level_head.weight"] = torch.randn(3, INNER)
        heads[f"{prefix}category_head.weight"] = torch.randn(kinds, INNER)
    save_file(
        {**{f"model.{name}": weight for name, weight in body.items()}, **heads},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    more = {
        "architectures": ["Qwen3ForGuardModel"],
        "auto_map": {"AutoModel": "modeling_qwen3_guard.Qwen3ForGuardModel"},
        "guard_inner_size": INNER,
        "response_risk_level_map": NAMES,
        "query_risk_level_map": NAMES,
    }
    (folder / "config.json").write_text(json.dumps({**settings.to_dict(), **more}), "utf-8")
    (folder / "modeling_qwen3_guard.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n", "utf-8")
    (folder / "tokenizer.json").write_text(tokenizer_json(), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": QWEN3}), "utf-8")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return source(tmp_path_factory.mktemp("checkpoints") / "tiny-stream")


@pytest.fixture(scope="module")
def made(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("artefacts") / "tiny-stream"
    found = export(Order(checkpoint, out, FAMILY))
    assert found.verified
    assert found.worst < 1e-4
    assert found.in_form is None
    return out


def served(folder: Path) -> TokenwiseModel:
    model = generative_model(Artefact.load(folder))
    assert isinstance(model, TokenwiseModel)
    return model


@pytest.fixture(scope="module")
def reference(checkpoint: Path, made: Path) -> TokenReference:
    found = opened(checkpoint, AutoModel, known=True)
    model = served(made)
    return TokenReference(found, heads_of(found, FAMILIES[FAMILY]), model._contract, model._tokenizer)


def answers(count: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return ["".join(random.choice(PIECES, size=random.integers(2, 14))) for _ in range(count)]


def test_torch_and_the_artefact_agree_at_every_token(made: Path, reference: TokenReference) -> None:
    model = served(made)
    for text in answers(40, seed=1):
        for passage in (Passage(Direction.RESPONSE, text, "怎么煮饭？"), Passage(Direction.PROMPT, text)):
            (verdict,) = model.predict([passage])
            tokens = model._tokenizer.tokens(model._contract.heads[passage.direction].segments, words(passage))
            kept = model.caches.recall(tokens)
            assert kept is not None
            assert kept.tokens == tuple(tokens)
            assert kept.logits == pytest.approx(reference.logits(tokens), abs=1e-4)
            assert verdict.risk == pytest.approx(reference.risk(passage), abs=1e-4)


def test_answers_in_random_chunks_score_at_every_step_as_one_prefill_in_torch(
    made: Path, reference: TokenReference
) -> None:
    model = served(made)
    random = np.random.default_rng(2)
    risks = []
    for text in answers(12, seed=3):
        model.predict([Passage(Direction.PROMPT, "怎么煮饭？")])
        end = 0
        while end < len(text):
            end = min(len(text), end + int(random.integers(1, 6)))
            passage = Passage(Direction.RESPONSE, text[:end], "怎么煮饭？")
            (verdict,) = model.predict([passage])
            assert verdict.risk == pytest.approx(reference.risk(passage), abs=1e-3)
            risks.append(verdict.risk)
    assert min(risks) < 0.4 < 0.6 < max(risks), "a random guard that always says the same would prove nothing"


def test_the_checkpoints_own_code_is_not_run(checkpoint: Path, made: Path) -> None:
    assert made.is_dir()
    assert not (checkpoint / "ran").exists()


def test_an_artefact_serves_conversations(made: Path, reference: TokenReference) -> None:
    question, answer = "怎么煮饭？", "先洗米，再加水。"

    async def check() -> tuple[Verdict, Verdict]:
        guard = load_generative(made)
        conversation = Conversation((Turn(Role.USER, (Part(("messages", 0, "content"), question),)),))
        async with guard.running():
            asked = await guard.check(conversation)
            said = await guard.check(conversation.reply(Part(("choices", 0), answer)))
        assert guard.counts()["checks"] == len(EXAMPLES) + 2, "the golden rows, and these two"
        return asked, said

    asked, said = anyio.run(check)
    assert asked.risk == pytest.approx(reference.risk(Passage(Direction.PROMPT, question)), abs=1e-4)
    assert said.risk == pytest.approx(reference.risk(Passage(Direction.RESPONSE, answer, question)), abs=1e-4)
    assert said.scores[Category.PROMPT_ATTACK] == 0.0
    assert said.coverage.characters == len(answer)


def rewritten(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    change(manifest["generative"])
    path.write_text(json.dumps(manifest), "utf-8")


def head(direction: str, change: Mapping[str, Any]) -> Callable[[dict[str, Any]], object]:
    return lambda section: section["heads"][direction].update(change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (head("response", {"risks": ["Unsafe", "Safe", "Controversial"]}), "golden row"),
        (head("response", {"first": 12}), "begin at"),
        (lambda section: section["heads"].pop("prompt"), "begin at|no head"),
        (lambda section: section["heads"]["prompt"]["kinds"].pop(), "self-test failed|not 22"),
        (lambda section: section["heads"].clear(), "no heads"),
        (lambda section: section.update(heads=None), "no heads"),
        (lambda section: section.pop("heads"), "no prompts"),
        (lambda section: section.pop("decoder"), "cannot be read"),
        (lambda section: section.update(verified=False), "does not agree"),
    ],
)
def test_an_artefact_that_is_not_what_it_says_is_refused(
    change: Callable[[dict[str, Any]], object], message: str, made: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "copy"))
    rewritten(folder, change)
    with pytest.raises(ArtefactRefused, match=message):
        generative_model(Artefact.load(folder))


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return rewrite


def settings(values: Mapping[str, Any]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), "utf-8")

    return rewrite


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (weights(lambda t: t.pop("query_category_head.weight")), "query_category_head.weight"),
        (weights(lambda t: t.update({"category_head.weight": torch.zeros(9, INNER)})), "contract says"),
        (weights(lambda t: t["risk_level_head.weight"].fill_(float("nan"))), "not finite"),
        (weights(lambda t: t.pop("model.norm.weight")), "not there"),
        (
            settings({"query_risk_level_map": {"0": "Unsafe", "1": "Safe", "2": "Controversial"}}),
            "query_risk_level_map",
        ),
        (settings({"model_type": "bert"}), "not there"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
    ],
)
def test_a_checkpoint_that_is_not_its_contract_is_refused_and_leaves_nothing(
    change: Callable[[Path], object], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))
    change(folder)
    with pytest.raises(ArtefactRefused, match=message):
        export(Order(folder, tmp_path / "out", FAMILY))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]
