"""What a check by the embedded guard costs: `python -m benchmarks.guard [--guard NAME|DIR ...] [--rounds 5] [--json]`.

One thread, no cache: a check is `Classifier.predict`, as serving's batcher calls it, on harmless Chinese.
Lengths and guards take turns in every round. Wall time is what a caller waits; CPU time hardly shows what else runs.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks.relay import machine
from guard_runtime.artefacts.artefact import Artefact
from guard_runtime.artefacts.shipped import MODELS
from guard_runtime.conversation import Direction
from guard_runtime.guard import Passage
from guard_runtime.guards.classifier import Classifier

LENGTHS = (16, 32, 64, 128, 256, 512)
CHECKS = 20
"""Of each guard and length, in every round."""

SPECIALS = 2
"""`<s>` and `</s>`, which every input carries."""

PLACES = ("图书馆", "菜市场", "火车站", "体育馆", "博物馆", "植物园", "老码头", "电影院")
SENTENCES = (
    "请问第{n}路公交车到{place}要坐几站？",
    "周末想带父母去{place}走一走，午饭在附近吃面条还是吃火锅比较好？",
    "听说{place}旁边新开了一家书店，里面有很多关于古代建筑和园林的书。",
    "天气预报说明天有小雨，出门要不要带伞，穿一件薄外套够不够？",
    "孩子第一次学骑自行车，应该先练平衡还是先练刹车？",
    "写一篇介绍{place}的短文，语气轻松一点，不要超过三百个字。",
)


@dataclass(frozen=True, slots=True)
class Bench:
    """A guard and the tokenizer its texts are measured with."""

    name: str
    guard: Classifier
    tokenizer: Tokenizer

    @classmethod
    def of(cls, name: str) -> "Bench":
        """A guard that ships, or the artefact in a folder. Raises `ArtefactRefused`."""
        shipped = MODELS / name
        artefact = Artefact.load(shipped if shipped.is_dir() else Path(name))
        return cls(name, Classifier(artefact), Tokenizer.from_buffer(artefact.tokenizer))

    def text(self, number: int, tokens: int) -> str:
        """Chinese small talk that the guard reads as so many tokens, its own two included."""
        parts = (SENTENCES[(number + i) % len(SENTENCES)] for i in range(tokens))
        said = "".join(part.format(n=number, place=PLACES[(number + i) % len(PLACES)]) for i, part in enumerate(parts))
        ends = self.tokenizer.encode(said, add_special_tokens=False).offsets
        return said[: next(islice(ends, tokens - SPECIALS - 1, None))[1]]

    def check(self, text: str) -> "Check":
        """One check, timed."""
        began, busy = time.perf_counter(), time.thread_time()
        (verdict,) = self.guard.predict([Passage(Direction.PROMPT, text)])
        wall, cpu = time.perf_counter() - began, time.thread_time() - busy
        return Check(1000 * wall, 1000 * cpu, verdict.coverage.tokens, verdict.coverage.windows)


@dataclass(frozen=True, slots=True)
class Check:
    """Milliseconds, and what the guard read for them."""

    wall: float
    cpu: float
    tokens: int
    windows: int


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: medians of the rounds' medians, and the least and the most of these."""

    name: str
    tokens: int
    read: int
    """Tokens that went through the model: more than `tokens` where windows overlap."""

    windows: int
    p50_ms: float
    p50_least_ms: float
    p50_most_ms: float
    p95_ms: float
    cpu_p50_ms: float

    @classmethod
    def of(cls, name: str, tokens: int, rounds: Sequence[Sequence[Check]]) -> "Row":
        medians = [statistics.median(check.wall for check in checks) for checks in rounds]
        every = [check for checks in rounds for check in checks]
        wall = sorted(check.wall for check in every)
        return cls(
            name,
            tokens,
            read=statistics.median_low(check.tokens for check in every),
            windows=statistics.median_low(check.windows for check in every),
            p50_ms=round(statistics.median(medians), 3),
            p50_least_ms=round(min(medians), 3),
            p50_most_ms=round(max(medians), 3),
            p95_ms=round(wall[int(0.95 * len(wall))], 3),
            cpu_p50_ms=round(statistics.median(check.cpu for check in every), 3),
        )


def measured(benches: Sequence[Bench], rounds: int, checks: int) -> list[Row]:
    """Every guard at every length, in turn, `rounds` times; the texts are ready before the clock starts."""
    found: dict[tuple[str, int], list[list[Check]]] = {}
    for turn in range(rounds):
        for tokens in LENGTHS:
            for bench in benches:
                texts = [bench.text(turn * checks + number, tokens) for number in range(checks)]
                bench.check(texts[0])
                found.setdefault((bench.name, tokens), []).append([bench.check(text) for text in texts])
    return [Row.of(name, tokens, every) for (name, tokens), every in found.items()]


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guard", nargs="+", default=["libra-mini"], help="guards that ship, or folders of artefacts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--checks", type=int, default=CHECKS, help="of each guard and length, in every round")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args(given)
    rows = measured([Bench.of(name) for name in options.guard], options.rounds, options.checks)
    print(f"{machine()}, one thread, {options.rounds} rounds of {options.checks} checks, {time.strftime('%Y-%m-%d')}\n")
    print("| guard | tokens | read | windows | p50 ms (spread) | p95 ms | CPU p50 ms |\n|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.name} | {row.tokens} | {row.read} | {row.windows} "
            f"| {row.p50_ms} ({row.p50_least_ms}-{row.p50_most_ms}) | {row.p95_ms} | {row.cpu_p50_ms} |"
        )
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
