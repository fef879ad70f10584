"""Stage-2 data: `python -m training.data.curate --real F --synthetic F --tests FOLDER --out F --manifest F.json`.

Duplicates and leaks go, rows whose label other parts of the data contradict go, sources are capped and weighted.
"""

import argparse
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from datasketch import MinHash, MinHashLSH
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import KFold
from tqdm import tqdm

from training.data.grammar import ELEMENTS
from training.data.leaks import PERMUTATIONS, REAL_THRESHOLD, Leaks, folded, signature
from training.data.rows import BadInput, read_rows

Raw = dict[str, Any]
Sketches = Mapping[str, MinHash]
NEAR = 0.9
"""MinHash similarity from which two rows of one direction are the same row written twice."""

PARTS = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """What `elements/curation.yaml` says: caps per source and label, weights per source, and how noise is met."""

    cap: int
    caps: Mapping[str, int]
    weights: Mapping[str, float]
    weak: float
    doubted_below: float
    dropped_below: float

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Raises BadInput when a key is missing or unknown."""
        try:
            return cls(**yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, TypeError, yaml.YAMLError) as exc:
            raise BadInput(f"{path}: {exc}") from exc


@dataclass(slots=True)
class Ledger:
    """What became of the rows: counts by reason, source and label."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def note(self, reason: str, rows: Iterable[Raw]) -> None:
        for row in rows:
            self.counts[reason][f"{row['source']}/{row['lang']}/{row['direction']}/{row['label']}"] += 1


def read(path: Path) -> list[Raw]:
    """The rows of a file as they are. Raises BadInput with file, line and field unless every one is sound."""
    read_rows(path)
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]


def text_of(row: Raw) -> str:
    """What makes a row this row: the prompt, or the prompt with its answer."""
    return str(row["prompt"]) if row["direction"] == "prompt" else f"{row['prompt']}\n{row['response']}"


def without_repeats(rows: Sequence[Raw], sketches: Sketches, ledger: Ledger) -> list[Raw]:
    """The first of every set of exact or near duplicates. Of two with contradicting labels, neither is kept."""
    near = MinHashLSH(threshold=NEAR, num_perm=PERMUTATIONS)
    first: dict[str, int] = {}
    kept: dict[int, Raw] = {}
    repeats: list[Raw] = []
    disputed: set[int] = set()
    for index, row in enumerate(tqdm(rows, desc="repeats", unit=" rows")):
        key = f"{row['direction']}:{folded(text_of(row))}"
        sketch = sketches[row["id"]]
        twins = [first[key]] if key in first else [int(name) for name in near.query(sketch)]
        twins = [twin for twin in twins if kept[twin]["direction"] == row["direction"]]
        exact = key in first
        if twins:
            repeats.append(row)
            disputed.update(twin for twin in twins if exact and kept[twin]["label"] != row["label"])
            continue
        first[key] = index
        kept[index] = row
        near.insert(str(index), sketch)
    ledger.note("repeats another row", repeats)
    ledger.note("same text, two labels", (kept[index] for index in disputed))
    return [row for index, row in kept.items() if index not in disputed]


def without_leaks(rows: Sequence[Raw], leaks: Leaks, sketches: Sketches, ledger: Ledger) -> list[Raw]:
    """Rows that repeat no test row, exactly or nearly."""
    leaking = [leaks.found(text_of(row), sketches.get(row["id"])) for row in tqdm(rows, desc="leaks", unit=" rows")]
    ledger.note("too close to a test row", (row for row, leak in zip(rows, leaking, strict=True) if leak))
    return [row for row, leak in zip(rows, leaking, strict=True) if not leak]


def agreement(rows: Sequence[Raw]) -> list[float]:
    """How probable each label is to a plain classifier trained on the other parts of its language and direction."""
    chances = [1.0] * len(rows)
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[row["lang"], row["direction"]].append(index)
    vectorizer = HashingVectorizer(analyzer="char", ngram_range=(1, 3), n_features=2**19, alternate_sign=False)
    for members in groups.values():
        labels = np.array([rows[index]["label"] == "unsafe" for index in members])
        if len(members) < 10 * PARTS or labels.all() or not labels.any():
            continue
        features = vectorizer.transform(text_of(rows[index])[:600] for index in members)
        for train, rest in KFold(PARTS, shuffle=True, random_state=0).split(members):
            if len(set(labels[train])) < 2:
                continue
            model = _plain_classifier().fit(features[train], labels[train])
            unsafe = model.predict_proba(features[rest])[:, 1]
            for place, chance in zip(rest, unsafe, strict=True):
                chances[members[place]] = float(chance if labels[place] else 1 - chance)
    return chances


def _plain_classifier() -> SGDClassifier:
    return SGDClassifier(
        "log_loss", alpha=3e-6, max_iter=8, tol=None, average=True, class_weight="balanced", random_state=0
    )


def weighed(rows: Sequence[Raw], plan: Plan, ledger: Ledger) -> list[Raw]:
    """Rows with a weight: per source, less for weak labels and for labels the other parts doubt. Denied labels go."""
    kept: list[Raw] = []
    denied: list[Raw] = []
    doubted: list[Raw] = []
    for row, chance in zip(rows, agreement(rows), strict=True):
        certain = row["quality"] == "gold"
        if chance < plan.dropped_below and not certain:
            denied.append(row)
            continue
        weight = plan.weights.get(row["source"], 1.0) * (plan.weak if row["quality"] == "weak" else 1.0)
        if chance < plan.doubted_below and not certain:
            doubted.append(row)
            weight *= 0.5
        kept.append({**row, "weight": round(weight, 3)})
    ledger.note("label denied by the other parts", denied)
    ledger.note("label doubted, half weight", doubted)
    return kept


def capped(rows: Sequence[Raw], plan: Plan, rng: random.Random, ledger: Ledger) -> list[Raw]:
    """At most so many rows of a source, direction and label: the heaviest, and among equals a random choice."""
    groups: dict[tuple[str, str, str, str], list[Raw]] = defaultdict(list)
    for row in rows:
        groups[row["source"], row["lang"], row["direction"], row["label"]].append(row)
    kept: list[Raw] = []
    for (source, *_), members in sorted(groups.items()):
        rng.shuffle(members)
        members.sort(key=lambda row: _scary(row), reverse=True)
        cap = plan.caps.get(source, plan.cap)
        kept += members[:cap]
        ledger.note("over the source's cap", members[cap:])
    rng.shuffle(kept)
    return kept


def _scary(row: Raw) -> bool:
    return "hard negative" in row["subcategory"]


def curated(real: Sequence[Raw], synthetic: Sequence[Raw], leaks: Leaks, plan: Plan) -> tuple[list[Raw], Ledger]:
    """The rows for stage 2 in training order, and what became of the others."""
    ledger = Ledger()
    rng = random.Random(0)
    shuffled = list(real)
    rng.shuffle(shuffled)
    sketches = {row["id"]: signature(text_of(row)) for row in tqdm(real, desc="sketches", unit=" rows")}
    single = without_repeats(shuffled, sketches, ledger)
    cleaned = weighed(without_leaks(single, leaks, sketches, ledger), plan, ledger)
    written = without_leaks(synthetic, leaks, {}, ledger)
    written = [{**row, "weight": plan.weights.get(row["source"], 1.0)} for row in written]
    kept = capped([*cleaned, *written], plan, rng, ledger)
    ledger.note("kept", kept)
    return kept, ledger


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Exits with 2 and every mistake of the input (file, line, field) before anything is written."""
    parser = argparse.ArgumentParser(prog="python -m training.data.curate", description=__doc__)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--synthetic", type=Path, required=True)
    parser.add_argument("--tests", type=Path, required=True, help="folder of test_*.jsonl")
    parser.add_argument("--aside", type=Path, nargs="*", default=[], help="more files nothing may repeat")
    parser.add_argument("--plan", type=Path, default=ELEMENTS / "curation.yaml")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        plan = Plan.read(options.plan)
        real, synthetic = read(options.real), read(options.synthetic)
        leaks = Leaks.of_folder(options.tests, REAL_THRESHOLD)
        for file in options.aside:
            for row in read(file):
                leaks.add(text_of(row))
        rows, ledger = curated(real, synthetic, leaks, plan)
    except BadInput as exc:
        print(exc, file=sys.stderr)
        return 2
    with options.out.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    manifest = {reason: dict(sorted(counter.items())) for reason, counter in ledger.counts.items()}
    options.manifest.write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    for reason, counter in ledger.counts.items():
        print(f"{reason}: {counter.total()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
