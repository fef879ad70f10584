"""What the manifest's writer writes, its reader reads, and finds every fact in it again."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from guard_runtime.artefacts.artefact import MANIFEST
from guard_runtime.artefacts.manifest import FRAME, LABELS, MIN_GOLDEN, parsed
from guard_runtime.artefacts.writing import (
    ManifestDraft,
    checksums,
    golden_row,
    level_points,
    manifest_json,
    uncalibrated,
    write_manifest,
)
from guard_runtime.conversation import Direction, Source
from guard_runtime.guard import POINTS, Passage
from guard_runtime.text.language import LANGUAGES
from guard_runtime.verdict import CATEGORIES, Category

TEXTS = {"zh": "怎么煮饭", "en": "how to cook rice"}
PASSAGES = [
    passage
    for language in LANGUAGES
    for text in [TEXTS[language]]
    for passage in (
        Passage(Direction.PROMPT, text),
        Passage(Direction.PROMPT, text, source=Source.DOCUMENT),
        Passage.answer(text, "?"),
    )
]
SCORES: Mapping[Category, float] = {category: number / 10 for number, category in enumerate(CATEGORIES)}
FILES = {"model.onnx": "0" * 64, "tokenizer.json": "1" * 64}
DRAFT = ManifestDraft(
    name="tiny",
    version="1.2.3",
    family="classifier",
    precision="int8",
    opset=17,
    labels=LABELS,
    max_tokens=128,
    calibration=uncalibrated(),
    operating_points=level_points((point, (n + 1) / 4) for n, point in enumerate(POINTS)),
    golden=[golden_row(passage, SCORES) for passage in PASSAGES * (MIN_GOLDEN // len(PASSAGES) + 1)],
    golden_tolerance=0.05,
    made=date(2026, 12, 1),
)


def test_the_reader_finds_every_fact_again() -> None:
    frame = {"version": FRAME, "sources": {source.value: f"[{source.value}]" for source in Source}}
    manifest = parsed(manifest_json(replace(DRAFT, sections={"frame": frame}), FILES).encode(), "here")
    assert (manifest.name, manifest.version, manifest.family) == ("tiny", "1.2.3", "classifier")
    assert (manifest.precision, manifest.opset, manifest.max_tokens) == ("int8", 17, 128)
    assert (manifest.files, manifest.labels, manifest.golden_tolerance) == (FILES, LABELS, 0.05)
    assert manifest.calibration[Direction.PROMPT]["zh"].temperature == 1.0
    points = manifest.operating_points
    assert [points[point][Direction.RESPONSE][Category.PROMPT_ATTACK] for point in POINTS] == [0.25, 0.5, 0.75]
    assert manifest.frame == frame["sources"]


@pytest.mark.parametrize(("number", "passage"), list(enumerate(PASSAGES)))
def test_a_golden_row_keeps_its_text_its_source_and_its_scores(number: int, passage: Passage) -> None:
    golden = parsed(manifest_json(DRAFT, FILES).encode(), "here").golden[number]
    text = golden.prompt if golden.response is None else golden.response
    assert (golden.direction, text, golden.source, golden.scores) == (
        passage.direction,
        passage.text,
        passage.source,
        SCORES,
    )


def test_a_number_that_json_does_not_have_is_not_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        manifest_json(replace(DRAFT, golden_tolerance=float("nan")), FILES)


def test_the_manifest_lists_every_file_of_its_folder_but_itself(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"model")
    write_manifest(DRAFT, tmp_path)
    (tmp_path / "CARD.md").write_text("card")
    write_manifest(DRAFT, tmp_path)
    files = json.loads((tmp_path / MANIFEST).read_text("utf-8"))["files"]
    assert files == checksums(tmp_path)
    assert sorted(files) == ["CARD.md", "model.onnx"]
