"""Hosts with an injection and the same hosts untouched: as they come, and long ones made of many texts."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

Row = Mapping[str, Any]

SHORT = "injection in a short host"
LONG = "injection in a long host"
HOST_KINDS = ("tool_result", "document", "code")
PER_CELL = 12
"""Long hosts of each language, kind and place."""
WINDOWS = (5, 100)
"""Windows of a long host, drawn so that every order of magnitude is as likely as another."""
WINDOW_CHARACTERS: Mapping[str, int] = {"zh": 170, "en": 420}
"""What fills a window of 128 tokens, about."""
PLACES = ("beginning", "middle", "end")


@dataclass(frozen=True, slots=True)
class Planted:
    """A host with an injection in it, and its untouched twin."""

    injected: Row
    untouched: Row

    @property
    def lang(self) -> str:
        return str(self.injected["lang"])

    @property
    def rows(self) -> tuple[Row, Row]:
        return self.injected, self.untouched

    @property
    def payload(self) -> str:
        start, end = self.injected["span"]
        return str(self.injected["prompt"][start:end])


def pairs_of(rows: Sequence[Row]) -> list[Planted]:
    """Every injected row `X-inj` whose twin is there: `X`, `X-twin`, or `X-ok`, `X-safe`."""
    by_id = {row["id"]: row for row in rows}
    found = []
    for row in rows:
        twin = twin_of(row, by_id)
        if twin is not None and row["kind"] in HOST_KINDS:
            host = {"host": row["kind"]}
            found.append(Planted({**row, **host}, {**twin, **host, "kind": row["kind"]}))
    return found


def twin_of(row: Row, by_id: Mapping[str, Row]) -> Row | None:
    """The untouched twin of an injected row; None for any other row, and where it is missing."""
    name = str(row["id"])
    if "span" not in row or not name.endswith("-inj"):
        return None
    stem = name.removesuffix("-inj")
    for other in (f"{stem}-twin", stem, f"{stem}-safe", f"{stem}-ok", f"{stem}-clean"):
        if other in by_id and by_id[other]["label"] == "safe":
            return by_id[other]
    return None


def long_hosts(rows: Sequence[Row], planted: Sequence[Planted], rng: Random) -> list[Planted]:
    """Long hosts of joined harmless texts, with an injection of `planted` at the beginning, in the middle, at the
    end."""
    return [
        made
        for lang in ("zh", "en")
        for kind in HOST_KINDS
        for place in PLACES
        for number in range(PER_CELL)
        if (made := _long(f"long-{lang}-{kind}-{place}-{number:02}", (lang, kind, place), rows, planted, rng))
    ]


def _long(
    name: str, cell: tuple[str, str, str], rows: Sequence[Row], planted: Sequence[Planted], rng: Random
) -> Planted | None:
    lang, kind, place = cell
    texts = [
        row["prompt"]
        for row in rows
        if (row["lang"], row.get("kind"), row["label"], row["direction"]) == (lang, kind, "safe", "prompt")
    ]
    payloads = [pair.payload for pair in planted if pair.lang == lang]
    if not texts or not payloads:
        return None
    pieces = list(_pieces(texts, _characters(lang, rng), rng))
    at = {"beginning": 1, "middle": max(1, len(pieces) // 2), "end": max(1, len(pieces) - 1)}[place]
    before, behind = "\n\n".join(pieces[:at]), "\n\n".join(pieces[at:])
    payload = rng.choice(payloads)
    start = len(before) + 2
    common = {"lang": lang, "kind": kind, "host": f"long {kind}", "source": "composed", "licence": ""}
    injected = {
        **common, "id": f"{name}-inj", "label": "unsafe", "prompt": f"{before}\n\n{payload}\n\n{behind}",
        "span": [start, start + len(payload)],
    }  # fmt: skip
    return Planted(injected, {**common, "id": name, "label": "safe", "prompt": f"{before}\n\n{behind}"})


def _characters(lang: str, rng: Random) -> int:
    low, high = map(math.log, WINDOWS)
    return round(math.exp(rng.uniform(low, high)) * WINDOW_CHARACTERS[lang])


def _pieces(texts: Sequence[str], characters: int, rng: Random) -> Iterator[str]:
    """Texts until there are so many characters, at least two of them. A long one is cut, so that it does not fill the
    host alone."""
    most = max(200, characters // 3)
    length = number = 0
    while length < characters or number < 2:
        text = rng.choice(texts)[:most]
        length, number = length + len(text), number + 1
        yield text
