"""Ship a trained guard: ONNX, int8, calibration, thresholds, golden scores, manifest and card, in one folder."""

import argparse
import datetime
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from guard_runtime.artefacts.artefact import Artefact
from guard_runtime.artefacts.writing import ManifestDraft, golden_row, level_points, uncalibrated, write_manifest
from guard_runtime.conversation import Direction, Source
from guard_runtime.errors import ArtefactRefused
from guard_runtime.guard import BALANCED, Passage
from guard_runtime.guards.classifier import Classifier
from guard_runtime.verdict import CATEGORIES as ORDER
from training.data.augment import beginnings
from training.data.rows import BadInput, Row, read_rows
from training.learning import model as models
from training.learning.batches import collate, examples, passes
from training.learning.frame import Frame
from training.learning.model import LABELS
from training.learning.scores import TOKENS_PER_PASS
from training.recipe import Mix
from training.shipping import calibrate, card
from training.shipping.calibrate import Floats
from training.shipping.onnx_graph import OPSET, Precision, written
from training.shipping.smoothing import planned

AGREEMENT = 0.95
"""With fewer verdicts than these left as they are, int8 broke the guard. The aim is 0.99; the card says what it is."""
GOLDEN_TOLERANCE = 0.08
GOLDEN = Path(__file__).parent.parent / "recipes" / "golden.jsonl"
ANCHORS = Path(__file__).parent.parent / "recipes" / "anchors.jsonl"
SPOKEN = (Source.USER, Source.ASSISTANT)
BEGINNINGS_SEED = 3
ROWS_COMPARED = 1500
ROWS_SMOOTHED = 400
MEASURED = ("calibration", "operating_points", "golden", "golden_tolerance")


@dataclass(frozen=True, slots=True)
class Edition:
    """What the manifest calls the guard, and the longest input in tokens that it takes in one piece."""

    name: str
    version: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Dev:
    """Rows that calibrate: `plain` ones, whose benign sources bound the false alarms, and further ones. What is neither
    a user's nor an assistant's is seen by int8's rounding only: calibration knows no other sources."""

    plain: Sequence[Row]
    further: Sequence[Row] = ()
    others: Sequence[Row] = ()

    @classmethod
    def of(cls, plain: Sequence[Row], further: Sequence[Row]) -> "Dev":
        """The rows by what they are for."""
        spoken, told = ([row for row in rows if row.kind in SPOKEN] for rows in (plain, further))
        return cls(spoken, told, [row for row in (*plain, *further) if row.kind not in SPOKEN])

    @property
    def rows(self) -> list[Row]:
        return [*self.plain, *self.further]

    @property
    def benign(self) -> list[bool]:
        return calibrate.benign_rows(self.plain) + [False] * len(self.further)

    @property
    def looks(self) -> list[Row]:
        """What thresholds are chosen by beside the rows: beginnings of safe answers, as streams show them; anchors."""
        safe = [row for row in self.rows if not row.unsafe]
        return [*beginnings(safe, BEGINNINGS_SEED), *read_rows(ANCHORS)]


@dataclass(frozen=True, slots=True)
class Measured:
    """The int8 guard's scores on the dev rows, [rows, 8], and how often it and float32 say the same."""

    scores: Floats
    agreement: float


class Folder:
    """The artefact's folder while it is being made; after every change it can be loaded as serving loads it."""

    def __init__(self, path: Path, edition: Edition) -> None:
        path.mkdir(parents=True, exist_ok=True)
        for name in ("manifest.json", "CARD.md"):
            (path / name).unlink(missing_ok=True)
        (path / "CARD.md").write_text("In the making.\n", encoding="utf-8")
        self.path, self.edition = path, edition
        self.settings: dict[str, Any] = {
            "calibration": uncalibrated(),
            "operating_points": level_points((point, 0.5) for point in calibrate.GOALS),
            "golden": [_golden(row, [0.5] * len(ORDER)) for row in read_rows(GOLDEN)],
            "golden_tolerance": GOLDEN_TOLERANCE,
        }

    def write(self, **settings: Any) -> None:
        """Write the manifest, with these settings changed."""
        self.settings |= settings
        draft = ManifestDraft(
            name=self.edition.name,
            version=self.edition.version,
            family="classifier",
            precision="int8",
            opset=OPSET,
            labels=LABELS,
            max_tokens=self.edition.max_tokens,
            made=datetime.date.today(),
            sections={key: value for key, value in self.settings.items() if key not in MEASURED},
            **{key: self.settings[key] for key in MEASURED},
        )
        write_manifest(draft, self.path)

    def guard(self, *, final: bool = False) -> Classifier:
        """The guard as serving runs it, the golden rows checked when all is `final`. Raises BadInput when serving
        would refuse it."""
        try:
            artefact = Artefact.load(self.path)
            if not final:
                artefact = replace(artefact, manifest=replace(artefact.manifest, golden=()))
            return Classifier(artefact)
        except ArtefactRefused as exc:
            raise BadInput(f"serving refuses what was just written: {exc}") from exc


def served(guard: Classifier, rows: Sequence[Row], title: str) -> Floats:
    """The guard's scores [rows, 8]: every window, raw and normalised, the worst counting."""
    scores = np.zeros((len(rows), len(ORDER)))
    for place, row in enumerate(tqdm(rows, desc=title, mininterval=5)):
        [verdict] = guard.predict([_passage(row)])
        scores[place] = [verdict.scores[category] for category in ORDER]
    return scores


def _passage(row: Row) -> Passage:
    if row.direction == "prompt":
        return Passage(Direction.PROMPT, row.prompt, source=row.kind)
    return Passage(Direction.RESPONSE, row.response, row.prompt, source=row.kind)


def ship(source: Path, dev: Dev, edition: Edition, out: Path, notes: Mapping[str, str]) -> Measured:
    """Write the artefact folder. Raises BadInput when int8 changes too many verdicts."""
    folder, rows = Folder(out, edition), dev.rows
    tokenizer = models.load_tokenizer(source)
    tokenizer.save(str(out / "tokenizer.json"))
    seen = [*rows, *dev.others]
    group = examples(tokenizer, seen[:: max(1, len(seen) // ROWS_SMOOTHED)], edition.max_tokens, Mix())
    with tempfile.TemporaryDirectory() as scratch:
        full = Folder(Path(scratch) / "full", edition)
        tokenizer.save(str(full.path / "tokenizer.json"))
        plan = planned(models.load(source).eval(), [collate(part) for part in passes(group, TOKENS_PER_PASS)])
        for path, precision in ((full.path, Precision.FLOAT32), (out, Precision.INT8)):
            (path / "model.onnx").write_bytes(written(plan, precision).SerializeToString())
        folder.write(**Frame.of(tokenizer).manifest)
        calibration = calibrate.calibrated(rows, calibrate.margins(served(folder.guard(), rows, "margins")))
        folder.write(calibration=calibration)
        scores = served(folder.guard(), rows, "scores")
        full.write(calibration=calibration, **Frame.of(tokenizer).manifest)
        looks = dev.looks
        shown = np.concatenate([scores, served(folder.guard(), looks, "beginnings")])
        points = calibrate.operating_points([*rows, *looks], shown, dev.benign + [False] * len(looks))
        agreement = _agreement(full.guard(), rows, scores, points[BALANCED])
    if agreement < AGREEMENT:
        raise BadInput(f"int8 agrees with float32 on {agreement:.2%} of verdicts; at least {AGREEMENT:.0%} is needed")
    lines = [
        *card.dev_lines(rows, scores, dev.benign, points[BALANCED]),
        f"int8 against float32, same verdicts at the balanced point: {agreement:.4f}",
    ]
    (out / "CARD.md").write_text(card.written(edition.name, edition.version, lines, notes), encoding="utf-8")
    folder.write(operating_points=points)
    folder.write(golden=_golden_rows(folder.guard()))
    folder.guard(final=True)
    return Measured(scores, agreement)


def _agreement(full: Classifier, rows: Sequence[Row], scores: Floats, point: calibrate.OperatingPoint) -> float:
    """Share of (evenly drawn) rows on which float32 gives the same verdict, at one operating point."""
    places = list(range(0, len(rows), max(1, len(rows) // ROWS_COMPARED)))
    compared = [rows[i] for i in places]
    exact = calibrate.flagged(compared, served(full, compared, "float32"), point)
    return float((exact == calibrate.flagged(compared, scores[places], point)).mean())


def _golden_rows(guard: Classifier) -> list[dict[str, object]]:
    rows = read_rows(GOLDEN)
    return [_golden(row, line) for row, line in zip(rows, served(guard, rows, "golden"), strict=True)]


def _golden(row: Row, scores: Sequence[float] | Floats) -> dict[str, object]:
    return golden_row(_passage(row), dict(zip(ORDER, map(float, scores), strict=True)))


def main() -> int:
    """`python -m training.shipping.ship --model DIR --dev D.jsonl [--further F.jsonl ...] --out DIR
    --version X.Y.Z`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a folder that training wrote")
    parser.add_argument("--dev", type=Path, required=True, help="rows whose benign sources bound the false alarms")
    parser.add_argument("--further", type=Path, nargs="*", default=[], help="further rows to calibrate on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="libra-mini")
    parser.add_argument("--version", required=True)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--notes", type=Path, help="Markdown for the card: how it was trained, what it fails at")
    given = parser.parse_args()
    try:
        dev = Dev.of(read_rows(given.dev), [row for path in given.further for row in read_rows(path)])
        notes = {"": given.notes.read_text(encoding="utf-8")} if given.notes else {}
        edition = Edition(given.name, given.version, given.max_tokens)
        measured = ship(given.model, dev, edition, given.out, notes)
    except (BadInput, OSError) as exc:
        print(exc, file=sys.stderr)
        return 2
    size = (given.out / "model.onnx").stat().st_size / 1e6
    print(f"{given.out}: {size:.1f} MB, int8 agrees with float32 on {measured.agreement:.2%} of dev verdicts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
