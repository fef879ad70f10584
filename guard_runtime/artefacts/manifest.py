"""Reads a guard artefact's manifest (reference/artefact.md) strictly, and reports every mistake in it at once."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from guard_runtime.conversation import Direction, Source
from guard_runtime.errors import ArtefactRefused
from guard_runtime.guard import BALANCED, NO_PENALTIES, PERMISSIVE, STRICT, OperatingPoints
from guard_runtime.text.language import LANGUAGES, Language, language_of
from guard_runtime.verdict import CATEGORIES, Category

FORMAT = 1
LABELS: tuple[str, ...] = ("unsafe", *CATEGORIES)
HIGHEST = 5
"""Of a source's bias or penalty."""

MIN_GOLDEN = 16
MAX_TOLERANCE = 0.2
MIN_TOKENS, MAX_TOKENS = 32, 8_192
MIN_BITS, MAX_BITS = 8, 22
KEYS = frozenset(
    {"format", "name", "version", "family", "precision", "opset", "files", "labels", "max_tokens", "calibration"}
    | {"operating_points", "golden", "golden_tolerance"}
)
OPTIONAL = frozenset({"made", "generative", "encoder", "frame", "window_penalty", "source_bias", "first_stage"})
FRAME = 2
"""The version of the frame in which a token of its own stands before each text and says what it is. Artefacts without a
`frame` have none."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DAY = re.compile(r"[0-9]{4}-[01][0-9]-[0-3][0-9]")
_VERSION = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*)){2}(?:[-+][0-9A-Za-z.+-]{1,64})?")


@dataclass(frozen=True, slots=True)
class Calibration:
    """p = sigmoid((logit - bias) / temperature)."""

    temperature: float
    bias: float


@dataclass(frozen=True, slots=True)
class Golden:
    """A text, and what it scored where the artefact was made."""

    prompt: str
    response: str | None
    scores: Mapping[Category, float]
    source: Source = Source.USER

    @property
    def direction(self) -> Direction:
        return Direction.PROMPT if self.response is None else Direction.RESPONSE

    @property
    def language(self) -> Language:
        return language_of(self.prompt if self.response is None else self.response)


@dataclass(frozen=True, slots=True)
class Manifest:
    name: str
    version: str
    family: str
    precision: str
    opset: int
    files: Mapping[str, str]
    labels: tuple[str, ...]
    max_tokens: int
    calibration: Mapping[Direction, Mapping[Language, Calibration]]
    operating_points: OperatingPoints
    golden: tuple[Golden, ...]
    golden_tolerance: float
    generative: Mapping[str, Any] | None = None
    encoder: Mapping[str, Any] | None = None
    frame: Mapping[Source, str] | None = None
    window_penalties: Mapping[Source, float] = field(default_factory=dict)
    source_biases: Mapping[Source, float] = field(default_factory=dict)
    first_stage: Mapping[str, Any] | None = None

    def calibration_of(self, direction: Direction, source: Source, language: Language) -> Calibration:
        """Of a text in this language, moved by what its source asks for."""
        plain = self.calibration[direction][language]
        return replace(plain, bias=plain.bias + self.source_biases.get(source, 0.0))


def parsed(text: bytes, place: str) -> Manifest:
    """The manifest in this file. Raises `ArtefactRefused` with every mistake in it."""
    try:
        content = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise ArtefactRefused(f"{place}: not strict JSON: {exc}") from exc
    if not isinstance(content, dict):
        raise ArtefactRefused(f"{place}: must be an object")
    mistakes = _Mistakes(content)
    manifest = mistakes.manifest()
    if mistakes.mistakes or manifest is None:
        raise ArtefactRefused(f"{place}: " + "; ".join(mistakes.mistakes))
    return manifest


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else []
    if twice:
        raise ValueError(f"duplicate keys {', '.join(twice)}")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_thresholds(value: object) -> bool:
    numbers = value.values() if isinstance(value, dict) and set(value) <= set(LANGUAGES) else [None]
    return all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers)


def _is_share(value: object) -> bool:
    return _is_number(value) and 0 <= float(value) <= 1  # type: ignore[arg-type]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_like(pattern: re.Pattern[str]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


class _Mistakes:
    """Reads one manifest and collects what is wrong with it."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.mistakes: list[str] = []
        self._content = content

    def manifest(self) -> Manifest | None:
        missing, unknown = sorted(KEYS - set(self._content)), sorted(set(self._content) - KEYS - OPTIONAL)
        self._unless(not missing, f"no {', '.join(missing)}")
        self._unless(not unknown, f"unknown keys {', '.join(unknown)}")
        if missing:
            return None
        self._plain()
        self._files()
        read = (
            self._calibration(),
            self._points(),
            self._golden(),
            self._frame(),
            self._by_source("window_penalty", 0),
            self._first_stage(),
            self._by_source("source_bias", -HIGHEST),
        )
        if self.mistakes:
            return None
        c = self._content
        return Manifest(
            name=c["name"],
            version=c["version"],
            family=c["family"],
            precision=c["precision"],
            opset=c["opset"],
            files=MappingProxyType(c["files"]),
            labels=tuple(c["labels"]),
            max_tokens=c["max_tokens"],
            calibration=read[0],
            operating_points=read[1],
            golden=read[2],
            golden_tolerance=float(c["golden_tolerance"]),
            generative=c.get("generative"),
            encoder=c.get("encoder"),
            frame=read[3],
            window_penalties=read[4],
            source_biases=read[6],
            first_stage=read[5],
        )

    def _unless(self, fine: bool, mistake: str) -> bool:
        if not fine:
            self.mistakes.append(mistake)
        return fine

    def _plain(self) -> None:
        c = self._content
        self._unless(c["format"] == FORMAT and not isinstance(c["format"], bool), f"format must be {FORMAT}")
        self._unless(_is_like(_NAME)(c["name"]), "name must be lower-case letters, digits, dots and dashes")
        self._unless(_is_like(_VERSION)(c["version"]), "version must be a semantic version such as 0.1.0")
        self._family()
        self._unless(isinstance(c["precision"], str) and bool(c["precision"]), "precision must be a word such as int8")
        self._unless(_is_count(c["opset"]), "opset must be a whole number")
        self._unless("made" not in c or _is_like(_DAY)(c["made"]), "made must be a day such as 2026-11-21")
        tokens = c["max_tokens"]
        fine = _is_count(tokens) and MIN_TOKENS <= tokens <= MAX_TOKENS
        self._unless(fine, f"max_tokens must be a whole number from {MIN_TOKENS} to {MAX_TOKENS}")
        tolerance = c["golden_tolerance"]
        fine = _is_share(tolerance) and 0 < tolerance <= MAX_TOLERANCE
        self._unless(fine, f"golden_tolerance must be above 0 and at most {MAX_TOLERANCE}")

    def _family(self) -> None:
        """A generative guard says in a section of its own how it is asked, and its labels are its answers."""
        family, labels = self._content["family"], self._content["labels"]
        if "generative" not in self._content:
            self._unless(family == "classifier", "family must be classifier")
            self._unless(isinstance(self._content.get("encoder", {}), dict), "encoder must be an object")
            self._unless(labels == list(LABELS), f"labels must be, in this order: {', '.join(LABELS)}")
            return
        fine = isinstance(self._content["generative"], dict) and _is_like(_NAME)(family) and family != "classifier"
        self._unless(fine, "generative must be an object, and family one of the generative families")
        words = isinstance(labels, list) and len(labels) > 1 and all(isinstance(word, str) for word in labels)
        self._unless(words, "labels must list the guard's answers")

    def _frame(self) -> Mapping[Source, str] | None:
        frame = self._content.get("frame")
        if frame is None:
            return None
        version = frame.get("version") if isinstance(frame, dict) else None
        known = version == FRAME and not isinstance(version, bool)
        if not self._unless(known, f"frame version {version!r} is not known; this release reads {FRAME}"):
            return None
        tokens = frame.get("sources")
        named = isinstance(tokens, dict) and set(tokens) == set(Source) and set(frame) == {"version", "sources"}
        fine = named and all(isinstance(token, str) and token for token in tokens.values())
        if not self._unless(fine, f"frame must have version and sources, a token for each of {', '.join(Source)}"):
            return None
        return MappingProxyType({source: str(tokens[source]) for source in Source})

    def _by_source(self, key: str, lowest: int) -> Mapping[Source, float]:
        numbers = self._content.get(key)
        if numbers is None:
            return NO_PENALTIES
        named = isinstance(numbers, dict) and set(numbers) <= set(Source)
        fine = named and all(_is_number(number) and lowest <= number <= HIGHEST for number in numbers.values())
        if not self._unless(fine, f"{key} must map sources to numbers from {lowest} to {HIGHEST}"):
            return NO_PENALTIES
        return MappingProxyType({Source(source): float(number) for source, number in numbers.items()})

    def _first_stage(self) -> Mapping[str, Any] | None:
        section = self._content.get("first_stage")
        if section is None:
            return None
        fine = isinstance(section, dict) and set(section) == {"bits", "thresholds"}
        fine = fine and _is_count(section["bits"]) and MIN_BITS <= section["bits"] <= MAX_BITS
        fine = fine and isinstance(section["thresholds"], dict) and set(section["thresholds"]) <= set(Source)
        fine = fine and all(map(_is_thresholds, section["thresholds"].values()))
        if not self._unless(fine, f"first_stage must have bits ({MIN_BITS} to {MAX_BITS}) and thresholds by source"):
            return None
        self._unless("first_stage.bin" in self._content["files"], "files lists no first_stage.bin")
        return MappingProxyType(section)

    def _files(self) -> None:
        files = self._content["files"]
        if not self._unless(isinstance(files, dict), "files must map names to sha256"):
            return
        names = [name for name in files if not _is_like(_FILE)(name) or name == "manifest.json"]
        self._unless(not names, f"files: not plain file names: {', '.join(map(repr, names))}")
        for name, digest in files.items():
            self._unless(_is_like(_SHA256)(digest), f"files.{name} must be a lower-case sha256")
        for name in ("model.onnx", "tokenizer.json"):
            self._unless(name in files, f"files lists no {name}")

    def _cells(self, key: str, outer: Sequence[str], inner: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The table at `key`, if it has exactly these rows and columns; otherwise {}."""
        table = self._content
        for step in key.split("."):
            table = table.get(step, {}) if isinstance(table, dict) else {}
        if not isinstance(table, dict) or set(table) != set(outer):
            self.mistakes.append(f"{key} must have exactly {', '.join(outer)}")
            return {}
        for row in outer:
            cells = table[row]
            if not isinstance(cells, dict) or set(cells) != set(inner):
                self.mistakes.append(f"{key}.{row} must have exactly {', '.join(inner)}")
                return {}
        return table

    def _calibration(self) -> Mapping[Direction, Mapping[Language, Calibration]]:
        table = self._cells("calibration", tuple(Direction), LANGUAGES)
        read: dict[Direction, Mapping[Language, Calibration]] = {}
        for name, cells in table.items():
            wrong = [language for language, cell in cells.items() if not _is_calibration(cell)]
            self._unless(not wrong, f"calibration.{name}: not a temperature above 0 and a bias: {', '.join(wrong)}")
            if not wrong:
                rows = {language: Calibration(**cells[language]) for language in LANGUAGES}
                read[Direction(name)] = MappingProxyType(rows)
        return MappingProxyType(read)

    def _points(self) -> OperatingPoints:
        points = self._content["operating_points"]
        needed = {BALANCED, STRICT}
        fine = isinstance(points, dict) and needed <= set(points) <= {*needed, PERMISSIVE}
        if not self._unless(fine, f"operating_points must have {BALANCED}, {STRICT} and no other but {PERMISSIVE}"):
            return {}
        read: dict[str, Mapping[Direction, Mapping[Category, float]]] = {}
        for name in points:
            table = self._cells(f"operating_points.{name}", tuple(Direction), CATEGORIES)
            for direction, cells in table.items():
                off = sorted(category for category, share in cells.items() if not _is_share(share))
                self._unless(not off, f"operating_points.{name}.{direction}: not in 0..1: {', '.join(off)}")
            read[name] = MappingProxyType({Direction(d): _scores(cells) for d, cells in table.items()})
        self._rising(read)
        return MappingProxyType(read)

    def _rising(self, points: OperatingPoints) -> None:
        for direction, cells in points.get(PERMISSIVE, {}).items():
            balanced = points[BALANCED].get(direction, {})
            lower = sorted(category for category, share in cells.items() if share < balanced.get(category, 0.0))
            where = f"operating_points.{PERMISSIVE}.{direction}"
            self._unless(not lower, f"{where}: below {BALANCED}: {', '.join(lower)}")

    def _golden(self) -> tuple[Golden, ...]:
        rows = self._content["golden"]
        fine = isinstance(rows, list) and len(rows) >= MIN_GOLDEN
        if not self._unless(fine, f"golden must list at least {MIN_GOLDEN} rows"):
            return ()
        read = []
        for number, row in enumerate(rows):
            where = f"golden[{number}]"
            if self._unless(_is_golden(row), f"{where} must have prompt, response and a score in 0..1 per category"):
                spoken = Source.USER if row["response"] is None else Source.ASSISTANT
                source = Source(row.get("source", spoken))
                read.append(Golden(row["prompt"], row["response"], _scores(row["scores"]), source))
        seen = {(golden.direction, golden.language) for golden in read}
        lacking = [f"{d} in {language}" for d in Direction for language in LANGUAGES if (d, language) not in seen]
        self._unless(not lacking, f"golden has no {', '.join(lacking)}")
        return tuple(read)


def _scores(cells: Mapping[str, Any]) -> Mapping[Category, float]:
    return MappingProxyType({c: float(cells[c]) for c in CATEGORIES if _is_number(cells.get(c))})


def _is_calibration(cell: object) -> bool:
    if not isinstance(cell, dict) or set(cell) != {"temperature", "bias"}:
        return False
    return all(map(_is_number, cell.values())) and cell["temperature"] > 0


def _is_golden(row: object) -> bool:
    if not isinstance(row, dict) or set(row) - {"source"} != {"prompt", "response", "scores"}:
        return False
    if row.get("source", Source.USER) not in tuple(Source):
        return False
    scores = row["scores"]
    return (
        isinstance(row["prompt"], str)
        and isinstance(row["response"], str | None)
        and isinstance(scores, dict)
        and set(scores) == set(CATEGORIES)
        and all(map(_is_share, scores.values()))
    )
