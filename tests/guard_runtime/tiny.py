"""A guard small enough to reason about: each token has logits of its own, and a text has the highest of its tokens'."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from guard_runtime.artefacts.manifest import LABELS
from guard_runtime.conversation import Direction
from guard_runtime.text.language import LANGUAGES
from guard_runtime.verdict import CATEGORIES, Category

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
ENGLISH = "the a how to make cake weather today hello world good question answer please bomb kill"
CHINESE = "今天气很好公园的怎么做蛋糕炸弹台湾吗你"
WORDS = (*ENGLISH.split(), *CHINESE)
HARMFUL: Mapping[str, Category] = {
    "bomb": Category.ILLEGAL_ACTIVITIES_AND_CRIME,
    "kill": Category.PHYSICAL_AND_MENTAL_HEALTH,
    "弹": Category.ILLEGAL_ACTIVITIES_AND_CRIME,
}
HARMLESS_LOGIT, HARMFUL_LOGIT = -4.0, 4.0
MAX_TOKENS = 32
SAFE = 1 / (1 + math.exp(-HARMLESS_LOGIT))
UNSAFE = 1 / (1 + math.exp(-HARMFUL_LOGIT))
CHANGE_NOTHING: Callable[[dict[str, Any]], None] = lambda manifest: None  # noqa: E731


def vocabulary() -> dict[str, int]:
    return {token: number for number, token in enumerate((*SPECIALS, *WORDS))}


def tokenizer() -> bytes:
    made = Tokenizer(models.WordLevel(vocabulary(), unk_token="<unk>"))
    han = pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), han])
    made.add_special_tokens(list(SPECIALS))
    return made.to_str().encode()


def weights() -> np.ndarray:
    table = np.full((len(SPECIALS) + len(WORDS), len(LABELS)), HARMLESS_LOGIT, dtype=np.float32)
    for word, category in HARMFUL.items():
        table[vocabulary()[word], [0, LABELS.index(category)]] = HARMFUL_LOGIT
    return table


def model(table: np.ndarray | None = None, *, output: str = "logits") -> bytes:
    """The highest logits among the tokens that the mask lets through."""
    constants = {"at_tokens": np.array([1]), "at_last": np.array([2]), "one": np.float32(1), "far": np.float32(1e4)}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["each"]),
        helper.make_node("Cast", ["attention_mask"], ["shown"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["shown", "at_last"], ["wide"]),
        helper.make_node("Sub", ["wide", "one"], ["hidden"]),
        helper.make_node("Mul", ["hidden", "far"], ["down"]),
        helper.make_node("Add", ["each", "down"], ["masked"]),
        helper.make_node("ReduceMax", ["masked", "at_tokens"], [output], keepdims=0),
    ]
    shape = ["rows", "tokens"]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows", len(LABELS)])],
        [
            numpy_helper.from_array(weights() if table is None else table, "table"),
            *(numpy_helper.from_array(np.array(value), name) for name, value in constants.items()),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def expected(*words: str) -> dict[Category, float]:
    """What a text with these words scores, by the rule of reference/artefact.md."""
    harm = {HARMFUL[word] for word in words if word in HARMFUL}
    if not harm:
        return dict.fromkeys(CATEGORIES, SAFE)
    return {category: UNSAFE if category in harm else UNSAFE * SAFE / UNSAFE for category in CATEGORIES}


def golden() -> list[dict[str, Any]]:
    texts = [
        ("how to make cake", ("cake",)),
        ("how to make bomb", ("bomb",)),
        ("今天天气好吗", ()),
        ("怎么做炸弹", ("弹",)),
    ]
    rows: list[dict[str, Any]] = []
    for text, words in texts * 2:
        rows.append({"prompt": text, "response": None, "scores": expected(*words)})
        rows.append({"prompt": "hello", "response": text, "scores": expected(*words)})
    return rows


def manifest(files: Mapping[str, bytes]) -> dict[str, Any]:
    cell = {"temperature": 1.0, "bias": 0.0}
    return {
        "format": 1,
        "name": "tiny",
        "version": "0.1.0",
        "family": "classifier",
        "precision": "fp32",
        "opset": 18,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        "labels": list(LABELS),
        "max_tokens": MAX_TOKENS,
        "calibration": {d: {language: dict(cell) for language in LANGUAGES} for d in Direction},
        "operating_points": {p: {d: dict.fromkeys(CATEGORIES, 0.5) for d in Direction} for p in ("balanced", "strict")},
        "golden": golden(),
        "golden_tolerance": 0.01,
    }


def artefact(
    folder: Path, change: Callable[[dict[str, Any]], None] = CHANGE_NOTHING, files: Mapping[str, bytes] | None = None
) -> Path:
    """Writes a guard to `folder`; `change` may spoil its manifest, `files` replace its files before they are listed."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"model.onnx": model(), "tokenizer.json": tokenizer(), "CARD.md": b"# tiny\n", **(files or {})}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    said = manifest(contents)
    change(said)
    (folder / "manifest.json").write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")
    return folder
