"""Rows to curate and files to put them in."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def row(name: str, prompt: str, label: str = "safe", **changes: Any) -> dict[str, Any]:
    """One prompt row in the data's shape."""
    return {
        "id": name,
        "source": "tests",
        "licence": "none",
        "lang": "zh",
        "direction": "prompt",
        "prompt": prompt,
        "response": "",
        "label": label,
        "categories": ["hate_speech_and_abuse"] if label == "unsafe" else [],
        "subcategory": "",
        "quality": "silver",
        **changes,
    }


def write(path: Path, rows: Sequence[object]) -> Path:
    """Rows as JSONL; a string goes in as the line it is."""
    lines = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
