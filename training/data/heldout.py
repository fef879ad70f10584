"""Splits nothing trains on: dev2, look-alikes, everyday questions: `python -m training.data.heldout --out DIR`."""

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from training.data.families import Written
from training.data.grammar import ELEMENTS, LANGS
from training.data.leaks import Leaks
from training.data.rows import BadInput
from training.data.synthesize import Amounts, Grammar, rows

SHARE = 0.035
"""Of the training amounts: about a thousand rows from held-out elements. Statements are few, so none is held out."""


def chats(path: Path) -> Iterator[Written]:
    """The hand-written requests of `chat_dev.yaml`, whose behaviours are in no element list."""
    for lang, labels in _read(path).items():
        for label, scenarios in labels.items():
            for category, texts in scenarios.items():
                categories = (category,) if label == "unsafe" else ()
                for text in texts:
                    yield Written("chat", lang, text, "", label == "unsafe", categories, "hand-written")


def halves(family: str, texts: Mapping[str, Sequence[str]]) -> tuple[list[Written], list[Written]]:
    """Harmless texts by language in two halves, by the hash of each text: one to choose by, one to measure with."""
    found = ((lang, text) for lang, said in texts.items() for text in said)
    order = sorted(found, key=lambda pair: hashlib.sha256(pair[1].encode()).hexdigest())
    written = [Written(family, lang, text, "", False, (), "hand-written") for lang, text in order]
    return written[: len(written) // 2], written[len(written) // 2 :]


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as exc:
        raise BadInput(f"{path}: {exc}") from exc


def _save(path: Path, kept: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        number = sum(1 for row in kept if file.write(json.dumps(row, ensure_ascii=False) + "\n"))
    print(f"{path}: {number} rows")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Exits with 2 and one message when an element file cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m training.data.heldout", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the five files")
    parser.add_argument("--seed", type=int, default=2)
    options = parser.parse_args(arguments)
    amounts = replace(Amounts().scaled(SHARE), statements=0)
    try:
        sets = {
            "lookalikes": halves("lookalike", {"zh": _read(ELEMENTS / "lookalikes_zh.yaml")}),
            "everyday": halves("everyday", _read(ELEMENTS / "everyday_dev.yaml")),
        }
        grammar = Grammar(dict.fromkeys(LANGS, amounts), options.seed, dev=True)
        second = [*rows(chats(ELEMENTS / "chat_dev.yaml"), Leaks(())), *rows(grammar.texts(), Leaks(()))]
    except BadInput as exc:
        print(exc, file=sys.stderr)
        return 2
    random.Random(options.seed).shuffle(second)
    _save(options.out / "dev2.jsonl", second)
    for name, (near, far) in sets.items():
        _save(options.out / f"{name}_dev.jsonl", rows(near, Leaks(())))
        _save(options.out / f"{name}_heldout.jsonl", rows(far, Leaks(())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
