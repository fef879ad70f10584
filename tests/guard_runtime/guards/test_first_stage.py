"""A first stage clears the plainly harmless, and nothing that it has no threshold for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard_runtime.artefacts.artefact import Artefact
from guard_runtime.conversation import Direction, Source
from guard_runtime.errors import ArtefactRefused
from guard_runtime.guard import Passage
from guard_runtime.guards.classifier import Classifier, ClassifierOptions
from guard_runtime.guards.first_stage import FirstStage, buckets, read
from guard_runtime.verdict import CATEGORIES, Category, Verdict
from tests.guard_runtime import tiny

BITS = 12
SECTION = {"bits": BITS, "thresholds": {"user": {"en": 0.5, "zh": 0.5}}}


def weights() -> bytes:
    """Only "bomb" counts, and its pairs with the words before it."""
    values = np.zeros(1 << BITS, "<f2")
    values[buckets([tiny.vocabulary()["bomb"]], Source.USER, BITS)] = 4.0
    return values.tobytes()


def artefact(folder: Path, content: bytes | None = None, section: dict[str, Any] | None = None) -> Path:
    def with_first_stage(manifest: dict[str, Any]) -> None:
        manifest["first_stage"] = SECTION if section is None else section

    files = {"first_stage.bin": weights() if content is None else content}
    return tiny.artefact(folder, with_first_stage, files)


def verdict(classifier: Classifier, text: str, source: Source = Source.USER) -> Verdict:
    (given,) = classifier.predict([Passage(Direction.PROMPT, text, source=source)])
    return given


def test_what_it_clears_is_not_read_by_the_encoder_and_counted(tmp_path: Path) -> None:
    classifier = Classifier(Artefact.load(artefact(tmp_path / "guard")))
    cleared = verdict(classifier, "how to make a cake")
    assert cleared.scores == dict.fromkeys(CATEGORIES, 0.0)
    assert (cleared.coverage.windows, cleared.coverage.tokens, cleared.coverage.cleared) == (0, 0, 1)
    harmful = verdict(classifier, "how to make a bomb")
    assert harmful.scores[Category.ILLEGAL_ACTIVITIES_AND_CRIME] == pytest.approx(
        tiny.expected("bomb")["illegal_activities_and_crime"], abs=1e-6
    )
    assert (harmful.coverage.windows, harmful.coverage.cleared) == (1, 0)


def test_a_source_without_a_threshold_is_always_read(tmp_path: Path) -> None:
    classifier = Classifier(Artefact.load(artefact(tmp_path / "guard")))
    assert verdict(classifier, "how to make a cake", Source.SYSTEM).coverage.cleared == 0


def test_it_can_be_switched_off_and_changes_the_version(tmp_path: Path) -> None:
    loaded = Artefact.load(artefact(tmp_path / "guard"))
    off = Classifier(loaded, options=ClassifierOptions(first_stage=False))
    assert verdict(off, "how to make a cake").coverage.cleared == 0
    assert Classifier(loaded).version == f"{off.version}.f"


def test_several_windows_at_a_time_give_the_same_scores(tmp_path: Path) -> None:
    loaded = Artefact.load(tiny.artefact(tmp_path / "guard"))
    text = "hello " * 300 + "how to make a bomb" + " cake" * 300
    one, four = (verdict(Classifier(loaded, options=ClassifierOptions(threads=n)), text) for n in (1, 4))
    assert one == four


def test_a_bucket_depends_on_the_token_its_neighbour_and_the_source() -> None:
    plain = set(buckets([5, 9], Source.USER, 16))
    assert plain != set(buckets([9, 5], Source.USER, 16))
    assert plain != set(buckets([5, 9], Source.SYSTEM, 16))
    assert set(buckets([5, 9], Source.TOOL_RESULT, 16)) == set(buckets([5, 9], Source.DOCUMENT, 16))
    assert FirstStage(np.zeros(1 << 16, np.float32), 16, {}).score([], Source.USER) == 0.0


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 2, np.full(1 << BITS, np.nan, "<f2").tobytes()], ids=["empty", "short", "not finite"]
)
def test_weights_that_are_not_what_the_manifest_says_are_refused(content: bytes) -> None:
    with pytest.raises(ArtefactRefused, match=r"first_stage\.bin must hold 4096 finite"):
        read(content, SECTION)


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"bits": 99, "thresholds": {}},
        {"bits": 12, "thresholds": {"nobody": {}}},
        {"bits": 12, "thresholds": {"user": {"fr": 1.0}}},
        {"bits": 12, "thresholds": {"user": {"en": "low"}}},
    ],
)
def test_a_section_that_cannot_be_read_is_refused(tmp_path: Path, section: dict[str, Any]) -> None:
    with pytest.raises(ArtefactRefused, match="first_stage must have bits"):
        Artefact.load(artefact(tmp_path / "guard", section=section))
