"""Texts too close to a test row: the same after folding, or near-duplicates by MinHash."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from datasketch import MinHash, MinHashLSH

from training.data.rows import BadInput

PERMUTATIONS = 64
THRESHOLD = 0.6
"""For texts we write ourselves: they cost nothing, so the doubt is theirs."""

REAL_THRESHOLD = 0.8
"""For real rows, which the data's builders have checked once: templates and stock phrases they share are no leaks."""

SHORT = 6
"""Folded texts of fewer characters than this ("hello", "你好") are greetings, not leaks."""

_NOISE = re.compile(r"[\W_]+")


def folded(text: str) -> str:
    """Lower case, without spaces and punctuation: what two copies of a text share."""
    return _NOISE.sub("", text.lower())


def signature(text: str) -> MinHash:
    """MinHash over character 3-grams of the folded text (Han characters carry more, so the same length serves both)."""
    plain = folded(text)
    grams = {plain[start : start + 3] for start in range(max(1, len(plain) - 2))}
    sketch = MinHash(num_perm=PERMUTATIONS, seed=7)
    sketch.update_batch([gram.encode() for gram in grams])
    return sketch


class Leaks:
    """An index over test texts. `hits` counts what it has caught."""

    def __init__(self, texts: Iterable[str], threshold: float = THRESHOLD) -> None:
        self._exact: set[str] = set()
        self._near = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
        self.hits = 0
        for text in texts:
            self.add(text)

    @classmethod
    def of_folder(cls, folder: Path, threshold: float = THRESHOLD) -> "Leaks":
        """Every prompt and response of the folder's `test_*.jsonl`. Raises BadInput when there is none."""
        files = sorted(folder.glob("test_*.jsonl"))
        if not files:
            raise BadInput(f"{folder}: no test_*.jsonl to check against")
        return cls((text for file in files for text in texts_of(file)), threshold)

    def add(self, text: str) -> None:
        """Texts once added are found again."""
        plain = folded(text)
        if len(plain) >= SHORT and plain not in self._exact:
            self._near.insert(str(len(self._exact)), signature(text))
            self._exact.add(plain)

    def found(self, text: str, sketch: MinHash | None = None) -> bool:
        """Whether a text repeats, or nearly repeats, one of the index. `sketch`: its signature, if at hand."""
        plain = folded(text)
        if len(plain) < SHORT:
            return False
        leaked = plain in self._exact or bool(self._near.query(signature(text) if sketch is None else sketch))
        self.hits += leaked
        return leaked


def texts_of(file: Path) -> Iterable[str]:
    """Prompts and responses of a JSONL file. Raises BadInput with file and line when a line is no row, or not UTF-8."""
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as exc:
        raise BadInput(f"{file}: {exc.strerror}") from exc
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
            yield row["prompt"]
            yield row["response"]
        except (ValueError, KeyError, TypeError) as exc:
            raise BadInput(f"{file}:{number}: not a row with prompt and response ({exc})") from exc
