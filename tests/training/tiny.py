"""A tiny guard for tests: an E5S1 file of random weights, rows a child could tell apart, and a recipe of seconds."""

import json
import random
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.recipe import Recipe

HIDDEN, LAYERS, HEADS, INTERMEDIATE, POSITIONS = 32, 3, 2, 64, 64
WORDS = (
    "▁",
    "坏",
    "好",
    "人",
    "骗",
    "花",
    "▁bad",
    "▁good",
    "▁man",
    "▁cheat",
    "▁flower",
    "a",
    "b",
    "d",
    "g",
    "o",
    ",",
    "!",
)
PIECES = (
    ("<s>", 0.0),
    ("<pad>", 0.0),
    ("</s>", 0.0),
    ("<unk>", 0.0),
    *((w, -2.0 - i / 9) for i, w in enumerate(WORDS)),
)


def packed(values: npt.NDArray[np.float32]) -> bytes:
    """Q4_0, as the format says: per 32 weights an fp16 scale and 16 bytes of nibbles."""
    out = b""
    for block in values.reshape(-1, 32):
        scale = np.float16(np.abs(block).max() / 7 or 1)
        nibbles = np.clip(np.round(block / np.float32(scale)) + 8, 0, 15).astype(np.uint8)
        out += scale.tobytes() + (nibbles[:16] | (nibbles[16:] << 4)).tobytes()
    return out


def tensors(seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """Random weights under the names the file uses."""
    draw = np.random.default_rng(seed)

    def make(*shape: int) -> npt.NDArray[np.float32]:
        return (draw.standard_normal(shape) * 0.2).astype(np.float32)

    found = {
        "emb.word": make(len(PIECES), HIDDEN),
        "emb.pos": make(POSITIONS, HIDDEN),
        "emb.type": make(2, HIDDEN),
        "emb.ln.w": np.ones(HIDDEN, np.float32),
        "emb.ln.b": np.zeros(HIDDEN, np.float32),
    }
    for layer in range(LAYERS):
        for name, rows, columns in (
            ("q", HIDDEN, HIDDEN),
            ("k", HIDDEN, HIDDEN),
            ("v", HIDDEN, HIDDEN),
            ("ao", HIDDEN, HIDDEN),
            ("fi", INTERMEDIATE, HIDDEN),
            ("fo", HIDDEN, INTERMEDIATE),
        ):
            found[f"l{layer}.{name}.w"] = make(rows, columns)
            found[f"l{layer}.{name}.b"] = make(rows)
        for name in ("aln", "oln"):
            found[f"l{layer}.{name}.w"] = np.ones(HIDDEN, np.float32)
            found[f"l{layer}.{name}.b"] = np.zeros(HIDDEN, np.float32)
    return found


def base_file(path: Path) -> Path:
    """Write an E5S1 file."""
    text = [piece.encode() for piece, _ in PIECES]
    offsets = np.cumsum([0, *map(len, text)]).astype("<u4")
    scores = np.array([score for _, score in PIECES], "<f4")
    head = struct.pack("<4sI7ifi", b"E5S1", 1, HIDDEN, LAYERS, HEADS, INTERMEDIATE, len(PIECES), POSITIONS, 2, 1e-5, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, int(offsets[-1])) + offsets.tobytes() + scores.tobytes()
    head += b"".join(text) + struct.pack("<iI", 0, 0)
    found = tensors()
    data = {
        name: packed(value) if name == "emb.word" or (name.endswith(".w") and "ln" not in name) else value.tobytes()
        for name, value in found.items()
    }
    start = len(head) + 4 + sum(2 + len(k) + 21 for k in found)
    directory, body = struct.pack("<i", len(found)), b""
    for name, value in found.items():
        entry = struct.pack("<BIQQ", 0, value.size, start + len(body), len(data[name]))
        directory += struct.pack("<H", len(name)) + name.encode() + entry
        body += data[name]
    path.write_bytes(head + directory + body)
    return path


def row(number: int, **changed: Any) -> dict[str, Any]:
    """One good row, its fields changed as asked."""
    return {
        "id": f"r{number}",
        "source": "tiny",
        "licence": "Apache-2.0",
        "lang": "zh",
        "direction": "prompt",
        "prompt": "好人",
        "response": "",
        "label": "safe",
        "categories": [],
        "subcategory": "",
        "quality": "gold",
    } | changed


def rows(count: int, seed: int = 0, start: int = 0) -> list[dict[str, Any]]:
    """Rows in both languages and directions: 坏, bad, 骗 and cheat are unsafe, flowers are not."""
    draw = random.Random(seed)
    found = []
    for number in range(start, start + count):
        lang, direction, unsafe = draw.choice(("zh", "en")), draw.choice(("prompt", "response")), draw.random() < 0.5
        words = {("zh", True): "坏骗", ("zh", False): "好花"}.get((lang, unsafe))
        english = ("bad", "cheat") if unsafe else ("good", "flower")
        text = (
            "".join(draw.choices(words or "a", k=3)) + "人" if words else " ".join(draw.choices(english, k=3)) + " man"
        )
        said = {"prompt": "好人", "response": text} if direction == "response" else {"prompt": text, "response": ""}
        label = {"label": "unsafe", "categories": ["hate_speech_and_abuse"]} if unsafe else {"label": "safe"}
        found.append(row(number, lang=lang, direction=direction, **said, **label))
    return found


def write(path: Path, found: Iterable[object]) -> Path:
    """Rows as JSONL."""
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in found), encoding="utf-8")
    return path


def recipe(**changed: Any) -> Recipe:
    """A run of a second."""
    given: dict[str, Any] = {
        "epochs": 3,
        "rows_per_step": 8,
        "tokens_per_pass": 256,
        "rate": 3e-3,
        "max_tokens": 16,
        "threads": 1,
    }
    return Recipe.model_validate(given | changed)
