"""Labelled texts from JSON, JSONL, Parquet or a folder of them; a broken row is reported with its place."""

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

FOLDER_SEED = 100
"""Libra's inference script shuffles a folder's files with this seed before machines share them out."""


class BadData(Exception):
    """A file that cannot be evaluated at all; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled text: a prompt, or an answer with the prompt before it."""

    id: str
    source: str
    lang: str
    direction: str
    prompt: str
    response: str
    unsafe: bool
    categories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that cannot be read: where it stands, and what is wrong with it."""

    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Record:
    """One object of a data file, and where it stands."""

    place: str
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Share:
    """Which machine of how many this is: it takes its part of the rows of a file, or of the files of a folder.

    Raises BadData unless 0 <= rank < machines.
    """

    rank: int = 0
    machines: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.machines:
            raise BadData(f"--machine_rank {self.rank}: must be from 0 to {self.machines - 1}")

    def of(self, number: int) -> slice:
        """This machine's part of so many things, as Libra's script cuts them."""
        each = number / self.machines
        return slice(int(each * self.rank), int(each * (self.rank + 1)))


ALONE = Share()


def records(path: Path) -> Iterator[Record | Broken]:
    """Every object of a file, or of a folder's files. Raises BadData when there is none, or a file cannot be opened."""
    for file in files(path):
        yield from _objects(file)


def files(path: Path) -> list[Path]:
    """The file itself, or a folder's data files in the order in which Libra's script shares them out."""
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix in {".json", ".jsonl", ".parquet"})
    if not found:
        raise BadData(f"{path}: no .json, .jsonl or .parquet file in this folder")
    random.Random(FOLDER_SEED).shuffle(found)
    return found


def _objects(file: Path) -> Iterator[Record | Broken]:
    try:
        match file.suffix:
            case ".parquet":
                rows: list[Any] = parquet.read_table(file).to_pylist()
                yield from (_record(f"{file}:{number}", row) for number, row in enumerate(rows, 1))
            case ".json":
                rows = json.loads(file.read_bytes())
                if not isinstance(rows, list):
                    raise BadData(f"{file}: a .json file holds one list of rows")
                yield from (_record(f"{file}:{number}", row) for number, row in enumerate(rows, 1))
            case _:
                yield from _lines(file)
    except (OSError, UnicodeDecodeError, ValueError) as exc:
        raise BadData(f"{file}: {exc}") from exc


def _lines(file: Path) -> Iterator[Record | Broken]:
    for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        try:
            yield _record(place, json.loads(line))
        except UnicodeDecodeError as exc:
            yield Broken(place, f"not UTF-8 at byte {exc.start}")
        except json.JSONDecodeError as exc:
            yield Broken(place, f"not JSON: {exc.msg} at column {exc.colno}")


def _record(place: str, row: Any) -> Record | Broken:
    if isinstance(row, dict):
        return Record(place, row)
    return Broken(place, f"a row is an object, not {type(row).__name__}")


def samples(path: Path) -> Iterator[Sample | Broken]:
    """The labelled rows of a data file (the shape of `MANIFEST.md`). Raises BadData when the file has no row at all."""
    seen: set[str] = set()
    empty = True
    for record in records(path):
        empty = False
        sample = record if isinstance(record, Broken) else _sample(record)
        if isinstance(sample, Sample):
            if sample.id in seen:
                sample = Broken(record.place, f"id: {sample.id!r} has been used before")
            else:
                seen.add(sample.id)
        yield sample
    if empty:
        raise BadData(f"{path}: no rows")


def _sample(record: Record) -> Sample | Broken:
    row = record.content
    for field in ("id", "source", "lang", "direction", "prompt", "response", "label"):
        if not isinstance(row.get(field), str):
            return Broken(record.place, f"{field}: missing, or not a string")
    for field, allowed in (("direction", ("prompt", "response")), ("label", ("safe", "unsafe"))):
        if row[field] not in allowed:
            return Broken(record.place, f"{field}: {row[field]!r} is none of {', '.join(allowed)}")
    judged = row["prompt"] if row["direction"] == "prompt" else row["response"]
    if not judged.strip():
        return Broken(record.place, f"{row['direction']}: empty")
    categories = row.get("categories", [])
    if not isinstance(categories, list) or not all(isinstance(category, str) for category in categories):
        return Broken(record.place, "categories: not a list of strings")
    return Sample(
        id=row["id"],
        source=row["source"],
        lang=row["lang"],
        direction=row["direction"],
        prompt=row["prompt"],
        response=row["response"],
        unsafe=row["label"] == "unsafe",
        categories=tuple(categories),
    )
