"""Labelled requests from a JSONL file; every wrong row is told at once, with its file, line and field."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.datasets import BadData, Broken, Record, records
from guard_runtime.conversation import Conversation

MOST_TOLD = 100
DIALECTS = ("chat", "responses", "messages", "completions")
KNOWN = frozenset({"id", "domain", "lang", "label", "kind", "body", "dialect", "reply", "source", "licence"})
MOST_REPLY = 1_000_000
"""Characters of a reply: what a row costs stays bounded."""


class WrongBody(Exception):
    """A body that the gateway would refuse to read: which field of it, and why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


ReadBody = Callable[[str, Mapping[str, Any]], Conversation]
"""Reads a body of the dialect of that name. Raises `WrongBody`."""


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One labelled request. `reply`, where there is one, is an answer to it; `label` is the label of the reply then."""

    id: str
    domain: str
    lang: str
    unsafe: bool
    kind: str
    body: Mapping[str, Any] = field(repr=False)
    conversation: Conversation = field(repr=False)
    reply: str | None = field(default=None, repr=False)
    dialect: str = "chat"

    @property
    def label(self) -> str:
        return "unsafe" if self.unsafe else "safe"


def request_rows(path: Path, read_body: ReadBody) -> list[RequestRow]:
    """Every row of the file. Raises `BadData` that names every wrong row, or says that there is none."""
    rows: list[RequestRow] = []
    wrong: list[Broken] = []
    first_place: dict[str, str] = {}
    for record in records(path):
        row = record if isinstance(record, Broken) else _row(record, read_body)
        if isinstance(row, RequestRow) and isinstance(record, Record):
            if row.id in first_place:
                row = Broken(record.place, f"id: {row.id!r} has been used in {first_place[row.id]}")
            else:
                first_place[row.id] = record.place
        if isinstance(row, Broken):
            wrong.append(row)
        else:
            rows.append(row)
    refuse(wrong)
    if not rows:
        raise BadData(f"{path}: no rows")
    return rows


def refuse(wrong: Sequence[Broken]) -> None:
    """Raises `BadData` when a row is wrong: a line for each, the first hundred of them."""
    if wrong:
        more = [f"and {len(wrong) - MOST_TOLD} more wrong rows"] if len(wrong) > MOST_TOLD else []
        raise BadData("\n".join([*map(str, wrong[:MOST_TOLD]), *more]))


def wrong_field(row: Mapping[str, Any], texts: Sequence[str]) -> str | None:
    """What is wrong with the fields that every row has: `texts` are strings with something in them."""
    for name in texts:
        if not isinstance(row.get(name), str) or not row[name].strip():
            return f"{name}: missing, empty, or not a string"
    if row["label"] not in ("safe", "unsafe"):
        return f"label: {row['label']!r} is neither safe nor unsafe"
    return None


def _row(record: Record, read_body: ReadBody) -> RequestRow | Broken:
    row = record.content
    reason = wrong_field(row, ("id", "domain", "lang", "label", "kind")) or _wrong_request(row)
    if reason is not None:
        return Broken(record.place, reason)
    try:
        conversation = read_body(row.get("dialect", "chat"), row["body"])
    except WrongBody as exc:
        return Broken(record.place, f"body{'.' if exc.field else ''}{exc.field}: {exc.reason}")
    return RequestRow(
        id=row["id"],
        domain=row["domain"],
        lang=row["lang"],
        unsafe=row["label"] == "unsafe",
        kind=row["kind"],
        body=row["body"],
        conversation=conversation,
        reply=row.get("reply"),
        dialect=row.get("dialect", "chat"),
    )


def _wrong_request(row: Mapping[str, Any]) -> str | None:
    unknown = sorted(row.keys() - KNOWN)
    if unknown:
        return f"{unknown[0]}: no field of a row; there are {', '.join(sorted(KNOWN))}"
    if row.get("dialect", "chat") not in DIALECTS:
        return f"dialect: {row['dialect']!r} is none of {', '.join(DIALECTS)}"
    if not isinstance(row.get("body"), dict):
        return "body: missing, or not an object"
    reply = row.get("reply")
    if "reply" in row and (not isinstance(reply, str) or not reply.strip()):
        return "reply: empty, or not a string"
    if isinstance(reply, str) and len(reply) > MOST_REPLY:
        return f"reply: longer than {MOST_REPLY} characters"
    return None
