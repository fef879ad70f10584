"""Stage-1 data, by the grammar or by chat models: `python -m training.data.synthesize --out F.jsonl [--tests FOLDER]`.

With `--plan PLAN.yaml` chat models write it (`llm.py`): first only an estimate of calls and cost, with `--go` the rows.
"""

import argparse
import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from training.data import families, llm
from training.data.chat_models import Chat, LiteLLM
from training.data.families import Writer, Written
from training.data.grammar import LANGS, load
from training.data.leaks import Leaks, texts_of
from training.data.rows import BadInput

LICENCE = "Apache-2.0"


class Generator(Protocol):
    """A source of synthetic texts: the element grammar, or chat models that write, answer and judge."""

    def texts(self) -> Iterator[Written]:
        """Labelled texts, harmful and harmless in about equal number."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """How many texts of each family and language: per sub-category and label, except where said otherwise."""

    requests: int = 120
    topics_safe: int = 36
    topics_unsafe: int = 12
    adverts: int = 3200
    """In all, for each label."""
    contrasts: int = 140
    """For each family of look-alikes and each label."""
    attacks: int = 900
    """In all, for each label."""
    answers: int = 50
    talk_safe: int = 10
    talk_unsafe: int = 10
    statements: int = 110
    """For each scenario and label."""
    seeds: int = 10
    """Variants of each hand-written request; of each hand-written answer a third as many."""
    asks: int = 30
    """Variants of each request in `requests.yaml` and `plain_requests.yaml`, which leave more choices."""

    def scaled(self, factor: float) -> "Amounts":
        names = type(self).__slots__
        return replace(self, **{name: max(1, round(getattr(self, name) * factor)) for name in names})


@dataclass(frozen=True, slots=True)
class Grammar:
    """Element grammars of both languages. The same seed gives the same texts."""

    amounts: Mapping[str, Amounts]
    seed: int
    dev: bool = False

    def texts(self) -> Iterator[Written]:
        for code in LANGS:
            writer = Writer(load(code), random.Random(f"{self.seed}-{code}-{self.dev}"), self.dev)
            many = self.amounts[code]
            yield from families.requests(writer, many.requests)
            yield from families.topics(writer, many.topics_safe, many.topics_unsafe)
            yield from families.adverts(writer, many.adverts)
            yield from families.contrasts(writer, many.contrasts)
            yield from families.attacks(writer, many.attacks)
            yield from families.answers(writer, many.answers)
            yield from families.talk(writer, many.talk_safe, many.talk_unsafe)
            yield from families.statements(writer, many.statements)
            yield from families.seeds(writer, many.seeds)
            yield from families.pairs(writer, -(-many.seeds // 3))
            yield from families.seeds(writer, many.asks, "ask", "requests")
            yield from families.seeds(writer, many.asks, "plain", "plain_requests")
            yield from families.seeds(writer, many.seeds, "situation", "situations")
            yield from families.pairs(writer, many.seeds, "turn", "conversations")


def rows(texts: Iterable[Written], leaks: Leaks) -> Iterator[Mapping[str, Any]]:
    """Rows in the data's shape: each text once, none that repeats or nearly repeats a test row."""
    seen: set[str] = set()
    for text in texts:
        identity = hashlib.sha256(f"{text.prompt}\0{text.response}".encode()).hexdigest()[:12]
        if identity in seen or leaks.found(text.prompt) or leaks.found(text.response):
            continue
        seen.add(identity)
        yield {
            "id": f"syn-{identity}",
            "source": f"syn_{text.family}",
            "licence": LICENCE,
            "lang": text.lang,
            "direction": "response" if text.response else "prompt",
            "prompt": text.prompt,
            "response": text.response,
            "label": "unsafe" if text.unsafe else "safe",
            "categories": list(text.categories),
            "subcategory": text.subcategory,
            "quality": "silver",
        }


def write(path: Path, generator: Generator, leaks: Leaks) -> Counter[tuple[str, str, str]]:
    """Writes the rows in a random but fixed order; returns their number by source, language and label."""
    kept = list(tqdm(rows(generator.texts(), leaks), desc=path.name, unit=" rows", file=sys.stderr))
    random.Random(0).shuffle(kept)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
    return Counter((row["source"], row["lang"], row["label"]) for row in kept)


def main(arguments: Sequence[str] | None = None, chat: Chat | None = None) -> int:
    """The command line. Exits with 2 and one message when the elements, the plan or the test files cannot be read."""
    options = _parser().parse_args(arguments)
    try:
        return _written(options, chat)
    except BadInput as exc:
        print(exc, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.data.synthesize",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="training rows, from elements that are not held out")
    parser.add_argument("--tests", type=Path, help="folder of test_*.jsonl: nothing like their rows is written")
    parser.add_argument("--aside", type=Path, nargs="*", default=[], help="more files nothing may repeat")
    grammar = parser.add_argument_group("by the grammar")
    grammar.add_argument("--dev", type=Path, help="also write rows from held-out elements only")
    grammar.add_argument("--scale", type=float, default=1.0, help="factor on every amount")
    grammar.add_argument("--seed", type=int, default=1)
    models = parser.add_argument_group("by chat models")
    models.add_argument("--plan", type=Path, help="YAML: which models write, answer and judge, how much and how fast")
    models.add_argument("--go", action="store_true", help="ask the models; without it only the estimate is printed")
    return parser


def _written(options: argparse.Namespace, chat: Chat | None) -> int:
    generator: Generator
    if options.plan is None:
        amounts = {"zh": Amounts().scaled(options.scale), "en": Amounts().scaled(options.scale * 0.75)}
        generator = Grammar(amounts, options.seed)
    else:
        chat = chat or LiteLLM()
        generator = models = llm.Models.of(llm.Plan.read(options.plan), chat, options.out.with_suffix(".calls.jsonl"))
        print(llm.estimate(models, chat))
        if not options.go:
            print("nothing was asked; add --go to start")
            return 0
    leaks = Leaks.of_folder(options.tests) if options.tests else Leaks(())
    for text in (text for file in options.aside for text in texts_of(file)):
        leaks.add(text)
    counts = write(options.out, generator, leaks)
    if options.dev and isinstance(generator, Grammar):
        dev_amounts = {code: many.scaled(0.06) for code, many in generator.amounts.items()}
        counts += write(options.dev, Grammar(dev_amounts, options.seed, dev=True), leaks)
    for key, count in sorted(counts.items()):
        print(*key, count)
    print(f"left out as too close to a test row: {leaks.hits}")
    if isinstance(generator, llm.Models):
        for reason, count in generator.losses.counts.most_common():
            print(f"left out, {reason}: {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
