"""Rows of every source: genre texts told as what else they could be, orders in hosts of another text, short texts."""

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml

from guard_runtime.conversation import Source
from training.data.rows import BadInput, Row, read_rows, write_rows

ELEMENTS = Path(__file__).parent.parent / "elements" / "sources.yaml"

TOLD_AS: Mapping[Source, Mapping[Source, float]] = {
    Source.DOCUMENT: {Source.USER: 0.22, Source.SYSTEM: 0.05, Source.ASSISTANT: 0.08, Source.TOOL_CALL: 0.02},
    Source.TOOL_RESULT: {Source.USER: 0.15, Source.SYSTEM: 0.03, Source.ASSISTANT: 0.03},
    Source.SYSTEM: {Source.USER: 0.12},
    Source.TOOL_DEFINITION: {Source.SYSTEM: 0.12, Source.USER: 0.08},
}
"""Documents are pasted into questions and system prompts, answers quote them: so a share of the harmless ones is told
as that. What is not named stays what it is."""

ORDER_TOLD_AS: Mapping[Source, float] = {Source.USER: 0.17, Source.SYSTEM: 0.05}
"""The same of orders, where they give themselves away by words: a plain one is harmless when a user gives it."""

CUT = 0.15
ANSWERED = 0.6
HOST_CHARACTERS = (300, 6_000)
REQUEST_CHARACTERS = 220
MILD = {"hate_speech_and_abuse", "rumors_and_misinformation", "ethics_and_morality", "prompt_attack"}
"""A system prompt made of a request in these categories alone may well be harmless."""

Elements = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Amounts:
    """How many rows of each kind are put together; orders are each planted in `hosts` other texts."""

    systems: int = 700
    calls: int = 500
    poisoned: int = 260
    hosts: int = 2
    short: int = 2


def elements(path: Path = ELEMENTS) -> Elements:
    """What texts are put together from. Raises BadInput when it cannot be read."""
    try:
        read: Elements = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as exc:
        raise BadInput(f"{path}: {exc}") from exc
    return read


def genre_rows(rows: Iterable[Row], words: Elements, seed: int) -> Iterator[Row]:
    """The rows, some told as another source and some cut short, so that neither length nor source gives the label."""
    override = re.compile(words["override"], re.IGNORECASE)
    for row in rows:
        chance = Random(f"{seed} {row.id}")
        if row.unsafe:
            order = row.prompt[slice(*row.span)] if row.span else row.prompt
            plain = override.search(order) is None
            if plain and row.kind is Source.USER:
                continue
            shares = {} if plain or row.span is None else ORDER_TOLD_AS
            yield dataclasses.replace(row, kind=_drawn(row.kind, shares, chance))
            continue
        kind = _drawn(row.kind, TOLD_AS.get(row.kind, {}), chance)
        text = shortened(row.prompt, chance) if chance.random() < CUT else row.prompt
        if kind is Source.ASSISTANT and chance.random() < ANSWERED:
            question = chance.choice(words["questions"][row.lang])
            yield dataclasses.replace(row, kind=kind, direction="response", prompt=question, response=text)
        else:
            yield dataclasses.replace(row, kind=kind, prompt=text)


def _drawn(kind: Source, shares: Mapping[Source, float], chance: Random) -> Source:
    drawn = chance.random()
    for other, share in shares.items():
        if drawn < share:
            return other
        drawn -= share
    return kind


def shortened(text: str, chance: Random) -> str:
    """One to three sentences or lines in a row, from anywhere in the text."""
    parts = [part for part in re.split(r"(?<=[。！？])|(?<=[.!?;；])\s+|\n+", text) if len(part.strip()) > 3]
    if len(parts) < 3:
        return text
    first = chance.randrange(len(parts))
    return "\n".join(parts[first : first + chance.choice((1, 1, 2, 3))])


def planted(
    orders: Sequence[Row], hosts: Sequence[Row], times: int, seed: int, kind: Source | None = None
) -> list[Row]:
    """Each order of the rows with a span in `times` hosts, between two lines; `kind` says in hosts of which kind, in
    documents and tool results where it is not given."""
    kinds = (Source.DOCUMENT, Source.TOOL_RESULT) if kind is None else (kind,)
    places: dict[tuple[Source, str], list[Row]] = {}
    for host in hosts:
        if HOST_CHARACTERS[0] < len(host.prompt) < HOST_CHARACTERS[1] and host.kind in kinds and not host.unsafe:
            places.setdefault((host.kind, host.lang), []).append(host)
    made: list[Row] = []
    for row in orders:
        for number in range(times):
            chance = Random(f"{seed} {row.id} {number}")
            found = places.get((chance.choice(kinds), row.lang), [])
            if found and row.span is not None:
                made.append(_with_order(row, chance.choice(found), chance, f"{row.id}-in-{kind or 'text'}-{number}"))
    return made


def _with_order(row: Row, host: Row, chance: Random, name: str) -> Row:
    order = row.prompt[slice(*row.span)].strip() if row.span else row.prompt
    breaks = [0, len(host.prompt), *(place.end() for place in re.finditer(r"\n", host.prompt))]
    at = chance.choice(breaks)
    prompt = f"{host.prompt[:at]}\n{order}\n{host.prompt[at:]}"
    span = (at + 1, at + 1 + len(order))
    return dataclasses.replace(row, id=name, kind=host.kind, prompt=prompt, span=span)


def composed(requests: Sequence[Row], words: Elements, amounts: Amounts, seed: int) -> Iterator[Row]:
    """Requests of both labels as system prompts, in the same forms, and as the arguments of tool calls."""
    grave = [row for row in requests if row.unsafe and not set(row.categories) <= MILD]
    harmless = [row for row in requests if not row.unsafe]
    for rows in (grave, harmless):
        for row in Random(f"{seed} systems").sample(rows, min(amounts.systems, len(rows))):
            chance = Random(f"{seed} system {row.id}")
            form = chance.choice(words["system"][row.lang]).replace("{name}", chance.choice(words["names"][row.lang]))
            text = form.replace("{}", row.prompt)
            yield dataclasses.replace(row, id=f"{row.id}-system", kind=Source.SYSTEM, prompt=text)
        for row in Random(f"{seed} calls").sample(rows, min(amounts.calls, len(rows))):
            chance = Random(f"{seed} call {row.id}")
            named = json.dumps({chance.choice(words["arguments"]): row.prompt}, ensure_ascii=False)
            text = chance.choice((row.prompt, named))
            yield dataclasses.replace(row, id=f"{row.id}-call", kind=Source.TOOL_CALL, prompt=text)


def short_rows(words: Elements, times: int) -> Iterator[Row]:
    """Short harmless texts of each source, each `times` over."""
    for kind, texts in words["short"].items():
        for number, text in enumerate(texts):
            for time in range(times):
                name = f"short-{kind}-{number}-{time}"
                lang = "en" if text.isascii() else "zh"
                yield Row(
                    name, "short", "Apache-2.0", lang, "prompt", text, "", False, (), "", "gold", 1.0, Source(kind)
                )


def all_rows(genres: Sequence[Row], written: Sequence[Row], amounts: Amounts, seed: int) -> Iterator[Row]:
    """Everything this module makes, of rows that are not held out."""
    words = elements()
    genres, written = ([row for row in rows if not row.held_out] for rows in (genres, written))
    override = re.compile(words["override"], re.IGNORECASE)
    orders = [row for row in written if row.span and row.unsafe]
    telling = [row for row in (*orders, *genres) if row.span and override.search(row.prompt[slice(*row.span)])]
    asked = [row for row in written if row.kind is Source.USER and row.span is None]
    yield from genre_rows(genres, words, seed)
    yield from written
    yield from planted(orders, genres, amounts.hosts, seed)
    poison = Random(seed).sample(telling, min(amounts.poisoned, len(telling)))
    yield from planted(poison, genres, 1, seed, Source.TOOL_DEFINITION)
    yield from composed([row for row in asked if len(row.prompt) < REQUEST_CHARACTERS], words, amounts, seed)
    yield from short_rows(words, amounts.short)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m training.data.sources --genres G.jsonl --written W.jsonl ... --out S.jsonl`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--genres", type=Path, required=True, nargs="+")
    parser.add_argument("--written", type=Path, required=True, nargs="+")
    parser.add_argument("--seed", type=int, default=606)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, help="where the written rows go that are for measuring")
    given = parser.parse_args(arguments)
    try:
        genres, written = (
            [row for path in paths for row in read_rows(path)] for paths in (given.genres, given.written)
        )
        made = list(all_rows(genres, written, Amounts(), given.seed))
    except BadInput as exc:
        print(exc, file=sys.stderr)
        return 2
    write_rows(given.out, made)
    if given.held_out is not None:
        write_rows(given.held_out, [row for row in written if row.held_out])
    print(f"{given.out}: {len(made)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
