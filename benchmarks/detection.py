"""What streaming costs in detection: the same answers judged whole, streamed through the real gate, and streamed with
every check reading all of `overlap` again instead of reaching back to a sentence's start.

`python -m benchmarks.detection ROWS.jsonl [--unsafe 300] [--safe 150]`, rows as evaluation has them. An answer is
flagged where a category reaches libra-mini's balanced threshold; a stream ends there, as it would in a gateway. Shares
are of the row's answers; the last line has those of all on which stream and whole do not agree.
"""

import argparse
import asyncio
import itertools
import json
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from benchmarks.streaming import GUARD, Stream
from gateway.policy.policy import StreamSettings
from gateway.streaming.channel import Reread, from_last_sentence
from gateway.streaming.replay import CHECK_SECONDS
from gateway.streaming.token_weight import last_part
from guard_runtime.conversation import Conversation, Direction, Part, Role, Turn
from guard_runtime.guard import BALANCED
from guard_runtime.guards.passage_guard import PassageGuard
from guard_runtime.loading.classifier import load_classifier
from guard_runtime.verdict import Verdict

WAYS = ("whole", "streamed", "streamed, full overlap")
WHOLE, STREAMED, FULL = range(len(WAYS))


@dataclass(frozen=True, slots=True)
class Row:
    language: str
    unsafe: bool
    prompt: str
    response: str


@dataclass(frozen=True, slots=True)
class Seen:
    """`out`: the share of the answer's characters that had left when it was flagged."""

    flagged: bool
    out: float = 0.0


def rows_of(path: Path, unsafe: int, safe: int, seed: int = 7) -> list[Row]:
    """As many answers of each label, half of them Chinese and half English, drawn by `seed`."""
    with path.open(encoding="utf-8") as file:
        found: list[Mapping[str, Any]] = [json.loads(line) for line in file]
    drawn = []
    for label, count in (("unsafe", unsafe), ("safe", safe)):
        for language in ("zh", "en"):
            fitting = [r for r in found if r["response"] and r["label"] == label and r["lang"] == language]
            picked = random.Random(seed).sample(fitting, min(count // 2, len(fitting)))
            drawn += [Row(language, label == "unsafe", row["prompt"], row["response"]) for row in picked]
    return drawn


class Bench:
    def __init__(self, guard: PassageGuard, tokenizer: Tokenizer) -> None:
        self._guard = guard
        self._tokenizer = tokenizer
        self._thresholds = guard.operating_points[BALANCED][Direction.RESPONSE]

    async def whole(self, row: Row) -> Seen:
        answer = Part(("answer",), row.response)
        return Seen(self._flags(await self._guard.check(_asked(row).reply(answer))))

    async def streamed(self, row: Row, reread: Reread = from_last_sentence) -> Seen:
        stream = Stream(self._pieces(row.response), StreamSettings(), row.prompt, reread)
        while not (stream.whole and stream.gate.settled):
            if not stream.gate.due(stream.now):
                stream.until(min(stream.next_piece, stream.gate.deadline))
                stream.let_out()
                continue
            verdict = await self._guard.check(_asked(row).reply(*stream.gate.take()))
            if self._flags(verdict):
                return Seen(True, stream.gate.released / len(row.response))
            stream.until(stream.now + CHECK_SECONDS)
            stream.gate.clear(risk=verdict.risk)
            stream.let_out()
        return Seen(False)

    async def full(self, row: Row) -> Seen:
        return await self.streamed(row, last_part)

    def _flags(self, verdict: Verdict) -> bool:
        return any(verdict.scores[category] >= least for category, least in self._thresholds.items())

    def _pieces(self, text: str) -> list[str]:
        """A piece of text for each token, with what the tokenizer leaves out between two."""
        ends = [end for _, end in self._tokenizer.encode(text, add_special_tokens=False).offsets]
        marks = sorted({0, *ends, len(text)})
        return [text[start:end] for start, end in itertools.pairwise(marks)]


def _asked(row: Row) -> Conversation:
    return Conversation((Turn(Role.USER, (Part(("prompt",), row.prompt),)),))


async def seen(rows: Sequence[Row]) -> list[tuple[Row, tuple[Seen, ...]]]:
    guard = load_classifier(GUARD)
    bench = Bench(guard, Tokenizer.from_file(str(GUARD / "tokenizer.json")))
    async with guard.running():
        return [(row, (await bench.whole(row), await bench.streamed(row), await bench.full(row))) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--unsafe", type=int, default=300)
    parser.add_argument("--safe", type=int, default=150)
    options = parser.parse_args()
    found = asyncio.run(seen(rows_of(options.rows, options.unsafe, options.safe)))
    print(
        "| answers | | whole | streamed | streamed, not whole | whole, not streamed | out when flagged "
        "| full overlap | only streamed | only full overlap |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for unsafe in (True, False):
        for language in ("zh", "en"):
            ways = [ways for row, ways in found if (row.unsafe, row.language) == (unsafe, language)]
            print(line(language, ways, unsafe=unsafe))
    print(f"all answers: {disagreement([ways for _, ways in found])}")


def line(language: str, found: Sequence[tuple[Seen, ...]], *, unsafe: bool) -> str:
    counts = [sum(ways[n].flagged for ways in found) for n in range(len(WAYS))]
    outs = [ways[1].out for ways in found if ways[1].flagged]
    out = f"{statistics.median(outs):.0%}" if outs else "-"
    label = f"{len(found)} {'unsafe' if unsafe else 'safe'}"
    apart = f"{only(found, STREAMED, WHOLE)} | {only(found, WHOLE, STREAMED)}"
    overlap = f"{counts[FULL]} | {only(found, STREAMED, FULL)} | {only(found, FULL, STREAMED)}"
    return f"| {label} | {language} | {counts[WHOLE]} | {counts[STREAMED]} | {apart} | {out} | {overlap} |"


def only(found: Sequence[tuple[Seen, ...]], one: int, other: int) -> str:
    """The answers that one way flags and the other does not, and their share."""
    count = sum(ways[one].flagged and not ways[other].flagged for ways in found)
    return f"{count} ({count / len(found):.1%})" if found else "-"


def disagreement(found: Sequence[tuple[Seen, ...]]) -> str:
    stream, whole = only(found, STREAMED, WHOLE), only(found, WHOLE, STREAMED)
    return f"flagged in a stream and not whole {stream}, whole and not in a stream {whole}"


if __name__ == "__main__":
    main()
