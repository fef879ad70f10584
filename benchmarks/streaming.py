"""What guarding a stream costs, by window setting: guard tokens per streamed token, and how late the first text is.

`python -m benchmarks.streaming [--json]` streams 2,000 tokens of Chinese and of English at 50 tokens a second through
the real gate and libra-mini. The stream's clock is virtual, so that it takes seconds; a check takes on it what the
guard really took.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tokenizers import Tokenizer

from gateway.policy.policy import StreamSettings
from gateway.streaming.channel import Reread, from_last_sentence
from gateway.streaming.gate import Gate
from gateway.streaming.replay import PIECES_PER_SECOND, PacedAnswer
from gateway.streaming.token_weight import weigh
from guard_runtime.artefacts.shipped import MODELS
from guard_runtime.conversation import Conversation, Part, Role, Turn
from guard_runtime.guards.passage_guard import PassageGuard
from guard_runtime.loading.classifier import load_classifier
from guard_runtime.loading.options import ServingOptions

GUARD = MODELS / "libra-mini"
TOKENS = 2_000
WINDOWS = (16, 32, 64, 128)

QUESTIONS = {
    "zh": "请详细介绍一下怎样安排一次周末短途旅行。",
    "en": "Please explain in detail how to plan a short weekend trip.",
}
SENTENCES: dict[str, Sequence[str]] = {
    "zh": (
        "第{n}站可以选在{place}，那里的{thing}在春天最好看。",
        "出发之前先查一查天气，再把雨伞、水壶和一本书放进背包里。",
        "如果同行的人里有老人和孩子，行程就要排得松一些，中午留出休息的时间；",
        "到了{place}，不妨先沿着河边走一走，看看{thing}，再找一家小店吃饭。",
        "预算方面，车票、住宿和三餐大约各占三分之一，剩下的留作备用。",
        "最后别忘了把照片整理好，写几句话，记下{thing}给你的印象！",
    ),
    "en": (
        "Stop number {n} could be {place}, where the {thing} is at its best in spring. ",
        "Before you leave, look up the weather and pack an umbrella, a bottle of water and a good book. ",
        "If older people or children come along, keep the plan loose and leave an hour to rest at noon. ",
        "Once you are in {place}, walk along the river first, see the {thing}, then find a small place to eat. ",
        "As for the budget, tickets, rooms and meals take about a third each; keep a little for the unexpected. ",
        "In the end, sort your pictures and write down in a few words what the {thing} was like!\n",
    ),
}
PLACES = {
    "zh": ("苏州", "黄山脚下", "海边的渔村", "老城区", "湖心岛", "植物园", "古镇"),
    "en": ("the old town", "the lake", "a fishing village", "the botanical garden", "the hills", "the island", "Bath"),
}
THINGS = {
    "zh": ("樱花", "石桥", "日出", "集市", "博物馆"),
    "en": ("cherry blossom", "stone bridge", "sunrise", "market", "museum"),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds on the stream's clock. `first_text` is how long after the answer's first token its first text left,
    `allowed` the first window and one check; `longest_hold` the longest any text waited. `check_ms`: a median check."""

    window: str
    language: str
    checks: int
    guard_tokens: int
    per_token: float
    first_text: float
    allowed: float
    mean_hold: float
    longest_hold: float
    check_ms: float


def answer(language: str, tokenizer: Tokenizer) -> list[str]:
    """`TOKENS` tokens of harmless prose, a piece of text for each."""
    places, things = itertools.cycle(PLACES[language]), itertools.cycle(THINGS[language])
    lines = (
        line.format(n=n, place=next(places), thing=next(things))
        for n, line in enumerate(itertools.cycle(SENTENCES[language]), 1)
    )
    text = "".join(itertools.islice(lines, 200))
    ends = [end for _, end in tokenizer.encode(text, add_special_tokens=False).offsets[:TOKENS]]
    return [text[start:end] for start, end in itertools.pairwise([0, *ends])]


class Stream(PacedAnswer):
    """One answer on its way through a gate, and how long its text was held."""

    def __init__(
        self, pieces: Sequence[str], settings: StreamSettings, question: str, reread: Reread = from_last_sentence
    ) -> None:
        super().__init__(pieces, Gate(settings, question=question, reread=reread))
        self.first_left: float | None = None
        self.holds: list[float] = []

    def let_out(self) -> None:
        for free in self.gate.release(self.now):
            self.holds.append(self.now - (free.event.data or {})["at"])
            self.first_left = self.now if self.first_left is None else self.first_left


async def measured(guard: PassageGuard, language: str, pieces: Sequence[str], settings: StreamSettings) -> Measured:
    question = QUESTIONS[language]
    asked = Conversation((Turn(Role.USER, (Part(("messages", 0, "content"), question),)),))
    stream = Stream(pieces, settings, question)
    tokens, seconds = 0, []
    while not (stream.whole and stream.gate.settled):
        if stream.gate.due(stream.now):
            began = time.perf_counter()
            verdict = await guard.check(asked.reply(*stream.gate.take()))
            seconds.append(time.perf_counter() - began)
            tokens += verdict.coverage.tokens
            stream.until(stream.now + seconds[-1])
            stream.gate.clear(risk=verdict.risk)
            stream.let_out()
            continue
        stream.until(min(stream.next_piece, stream.gate.deadline))
        stream.let_out()
    if stream.gate.released != stream.gate.cleared or stream.gate.released != sum(map(len, pieces)):
        raise RuntimeError(f"{stream.gate.released} characters left, {stream.gate.cleared} were cleared")
    return Measured(
        window=f"{settings.window} (default)" if settings == StreamSettings() else str(settings.window),
        language=language,
        checks=stream.gate.windows,
        guard_tokens=tokens,
        per_token=round(tokens / len(pieces), 2),
        first_text=round(stream.first_left or 0.0, 3),
        allowed=round(_window_came(pieces, settings.first_window) + seconds[0], 3),
        mean_hold=round(statistics.mean(stream.holds), 2),
        longest_hold=round(max(stream.holds), 2),
        check_ms=round(1000 * statistics.median(seconds), 1),
    )


def _window_came(pieces: Sequence[str], window: int) -> float:
    """When the first window of estimated tokens has arrived."""
    weights = itertools.accumulate(map(weigh, pieces))
    return next(i for i, weight in enumerate(weights) if weight >= 4 * window) / PIECES_PER_SECOND


async def all_measured() -> list[Measured]:
    tokenizer = Tokenizer.from_file(str(GUARD / "tokenizer.json"))
    settings = [StreamSettings(first_window=min(20, w), window=w, max_window=max(w, 128)) for w in WINDOWS]
    guard = load_classifier(GUARD, serving=ServingOptions(cache_bytes=0))
    async with guard.running():
        return [
            await measured(guard, language, answer(language, tokenizer), one)
            for one in settings
            for language in SENTENCES
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    as_json = parser.parse_args().json
    rows = asyncio.run(all_measured())
    if as_json:
        for row in rows:
            print(json.dumps(asdict(row)))
        return
    print(f"{TOKENS} tokens at {PIECES_PER_SECOND:g} a second; windows in estimated tokens, times in seconds")
    print("| window | | checks | guard tokens per token | first text | first window + check | mean hold | longest |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        times = f"{row.first_text:.2f} | {row.allowed:.2f} | {row.mean_hold:.2f} | {row.longest_hold:.2f}"
        print(f"| {row.window} | {row.language} | {row.checks} | {row.per_token:.2f} | {times} |")


if __name__ == "__main__":
    main()
