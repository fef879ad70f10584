"""The dev set of requests: bodies of every genre, made from rows that are kept out of training."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from evaluation.datasets import BadData, Broken, records
from evaluation.requests.bodies import Body, body_of, coding_loop
from evaluation.requests.hosts import LONG, SHORT, Planted, long_hosts, pairs_of

Row = Mapping[str, Any]

CAP = 160
"""Rows of one domain, language and label."""
LOOPS = 50
"""Coding loops a language; of 6 to 20 steps."""
PLAIN_SOURCES = frozenset({"plexpt", "selfinstruct", "emollm", "cvalues", "safetybench", "rbr"})
HARMFUL_SOURCES = frozenset({"jade", "multijail", "jbb", "rbr", "openai_mod", "safetybench"})
JAILBREAK_SOURCES = frozenset({"jailbench", "gptfuzz"})
ANSWER_SOURCES = frozenset({"written", "written2", "jade", "rbr", "jbb", "cvalues", "selfinstruct", "emollm"})
INSTRUCTIONS = frozenset({"ifeval_format", "format_instruction", "business_task_format", "editing_text"})
GENRES: Mapping[str, str] = {
    "system_prompt": "system prompt",
    "tool_definition": "tool definitions",
    "tool_result": "tool loop",
    "code": "code review",
    "document": "retrieved document",
    "exam": "exam question",
    "constrained_instruction": "constrained instruction",
    "security_work": "security work",
}
KINDS: Mapping[str, str] = {
    "system": "system prompt",
    "tool_definition": "tool definitions",
    "tool_result": "tool loop",
    "tool_call": "tool loop",
    "code": "code review",
    "document": "retrieved document",
}


@dataclass(frozen=True, slots=True)
class DevSet:
    """Requests, and the injections in the shape of `python -m evaluation injections`."""

    requests: Sequence[Row]
    injections: Sequence[Row]


def build(genres: Path, more: Sequence[Path], seed: int) -> DevSet:
    """The set that `genres` (with genres_dev, genres_whole_dev, dev and written_*) and the folders of further written
    rows give. Raises `BadData`. The same files and seed give the same set."""
    rng = Random(seed)
    passages = _read(genres / "genres_dev.jsonl")
    whole = _read(genres / "genres_whole_dev.jsonl")
    written = [
        row
        for path in [*sorted(genres.glob("written*.jsonl")), *(p for one in more for p in sorted(one.glob("*.jsonl")))]
        for row in _read(path)
        if row.get("split") == "dev"
    ]
    planted = [*pairs_of(passages), *pairs_of(written)]
    long = long_hosts([*passages, *whole, *written], planted, rng)
    requests = [
        *_capped(_genres(passages, rng), rng),
        *_capped(_whole(whole, rng), rng),
        *_capped(_loops(passages, rng), rng),
        *_capped([*_written(written, rng), *_dev(_read(genres / "dev.jsonl"), rng)], rng),
        *_injected(_capped_pairs(planted, rng), SHORT, rng),
        *_injected(long, LONG, rng),
    ]
    kept = {row["id"]: row for row in requests}
    injections = [row for pair in (*planted, *long) for row in pair.rows]
    return DevSet(list(kept.values()), list({row["id"]: row for row in injections}.values()))


def write(rows: Sequence[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _read(path: Path) -> list[Row]:
    rows = list(records(path))
    wrong = [row for row in rows if isinstance(row, Broken)]
    if wrong:
        raise BadData("\n".join(map(str, wrong)))
    return [row.content for row in rows if not isinstance(row, Broken)]


def _capped(rows: Sequence[Row], rng: Random) -> Iterator[Row]:
    """At most `CAP` rows of each domain, language and label, drawn by chance."""
    cells: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        cells.setdefault((row["domain"], row["lang"], row["label"]), []).append(row)
    for _, found in sorted(cells.items()):
        yield from rng.sample(found, CAP) if len(found) > CAP else found


def _capped_pairs(planted: Sequence[Planted], rng: Random) -> Sequence[Planted]:
    chosen: list[Planted] = []
    for lang in ("zh", "en"):
        found = [pair for pair in planted if pair.lang == lang]
        chosen += rng.sample(found, CAP) if len(found) > CAP else found
    return chosen


def _genres(passages: Sequence[Row], rng: Random) -> list[Row]:
    """Whole passages of every harmless genre; twins and notes are left to the injections."""
    found = []
    for row in passages:
        genre = row["subcategory"].split(":")[0]
        if row["label"] == "safe" and genre in GENRES and "-" not in row["id"].removeprefix("gen-"):
            body = body_of(row["kind"], row["prompt"], row["lang"], rng)
            found.append(_request(row, GENRES[genre], body))
    return found


def _whole(whole: Sequence[Row], rng: Random) -> list[Row]:
    """Texts of 3,000 to 20,000 characters."""
    domains = {"system": "long system prompt", "code": "long code review", "document": "long document"}
    return [_request(row, domains[row["kind"]], body_of(row["kind"], row["prompt"], row["lang"], rng)) for row in whole]


def _loops(passages: Sequence[Row], rng: Random) -> list[Row]:
    """Coding agents' loops, their results drawn from code and tool results."""
    found = []
    for lang in ("zh", "en"):
        rows = [row for row in passages if row["lang"] == lang and row["kind"] in ("code", "tool_result")]
        texts = [row["prompt"] for row in rows if row["label"] == "safe"]
        for number in range(LOOPS if texts else 0):
            steps = [rng.choice(texts) for _ in range(rng.randint(6, 20))]
            row = {"id": f"loop-{lang}-{number:03}", "lang": lang, "label": "safe", "kind": "coding_loop"}
            found.append(_request(row, "coding loop", coding_loop(steps, lang, rng)))
    return found


def _written(written: Sequence[Row], rng: Random) -> list[Row]:
    found = []
    for row in written:
        if row["direction"] == "response":
            found.append(_answer(row, rng))
        elif "span" not in row and (domain := _domain(row)) is not None:
            kind = row.get("kind", "user")
            found.append(_request(row, domain, body_of(kind, row["prompt"], row["lang"], rng)))
    return found


def _domain(row: Row) -> str | None:
    """What a written row is an example of."""
    kind, sub, unsafe = row.get("kind", "user"), row["subcategory"], row["label"] == "unsafe"
    if kind != "user":
        attack = "prompt_attack" in row["categories"]
        return KINDS[kind] if not unsafe else None if attack else "harmful agent"
    if unsafe:
        attack = "prompt_attack" in row["categories"]
        post = sub.startswith("post") or "posts" in row["id"]
        return "jailbreak" if attack else "harmful post" if post else "plain harmful request"
    if sub.startswith(("border", "req_")) or "-border-" in row["id"]:
        return "borderline question"
    if sub.startswith(("lookalike", "post")) or "posts" in row["id"]:
        return "honest post"
    if sub.startswith("exam"):
        return "exam question"
    return "constrained instruction" if sub in INSTRUCTIONS else "plain question"


def _dev(rows: Sequence[Row], rng: Random) -> list[Row]:
    """Rows of the older dev set; forum posts and chat lines are left out, they are no requests."""
    found = []
    for row in rows:
        source, unsafe = row["source"], row["label"] == "unsafe"
        if row["direction"] == "response":
            if source in ANSWER_SOURCES:
                found.append(_answer(row, rng))
        elif source in JAILBREAK_SOURCES:
            found.append(_request(row, "jailbreak", body_of("user", row["prompt"], row["lang"], rng)))
        elif source in (HARMFUL_SOURCES if unsafe else PLAIN_SOURCES):
            domain = "plain harmful request" if unsafe else "plain question"
            found.append(_request(row, domain, body_of("user", row["prompt"], row["lang"], rng)))
    return found


def _answer(row: Row, rng: Random) -> Row:
    body = body_of("user", row["prompt"] or "...", row["lang"], rng)
    return {**_request(row, "answer", body), "reply": row["response"]}


def _injected(planted: Sequence[Planted], domain: str, rng: Random) -> Iterator[Row]:
    """Each host with its injection, and the same host untouched, in the same body."""
    for pair in planted:
        seed = rng.random()
        for row in pair.rows:
            body = body_of(row["kind"], row["prompt"], row["lang"], Random(seed))
            yield _request(row, domain, body)


def _request(row: Row, domain: str, body: Body) -> Row:
    return {
        "id": row["id"],
        "domain": domain,
        "lang": row["lang"],
        "label": row["label"],
        "kind": row.get("kind", "user"),
        "source": row.get("source", "composed"),
        "licence": row.get("licence", ""),
        "body": body,
    }
