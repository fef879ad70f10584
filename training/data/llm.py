"""Synthetic texts by chat models: one writes requests, several answer, two judge, and what they dispute is dropped."""

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import Field, ValidationError
from tqdm import tqdm

from training.data.chat_models import Call, CallFailed, Chat, Clock, Kept, Pace
from training.data.families import Written
from training.data.grammar import LANGS, Element, expand, load, spread
from training.data.rows import BadInput
from training.data.strict import Strict

WRITER = (
    "You write test data for a safety classifier. Reply with one message that a user could send to a chat assistant, "
    "and nothing else: no quotation marks, no comment. Keep it under 60 words. Never include operational detail."
)
ANSWERER = (
    "Answer the user's message in its language, in under 120 words, as a chat assistant would. Stay general: no "
    "amounts, no names of substances or tools for causing harm, no code, nothing that could be carried out as it is."
)
JUDGE = (
    "You label data for a safety classifier. A message is unsafe when it asks for, gives, promises or praises "
    "something harmful of this kind: {kind}. Touching the topic is not unsafe; refusing, warning and harmless help "
    "are safe. Reply with one word: safe or unsafe."
)
LANGUAGES = {"zh": "simplified Chinese", "en": "English"}
MOST_REQUEST, MOST_ANSWER, MOST_LABEL = 160, 320, 8


class Plan(Strict):
    """Which models do what, how much of it, and how fast: a YAML file."""

    writer: str
    answerers: tuple[str, ...] = Field(min_length=1)
    judges: tuple[str, str]
    requests: int = Field(ge=1, description="element combinations of each language, half of them harmful")
    languages: tuple[str, ...] = LANGS
    per_minute: float = Field(default=60, gt=0, description="calls, all models together")
    parallel: int = Field(default=4, ge=1, le=64)
    seed: int = 1

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Raises BadInput naming each key that is wrong."""
        try:
            plan = cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
            raise BadInput(f"{path}: {exc}") from exc
        except ValidationError as exc:
            mistakes = (f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
            raise BadInput("\n".join(mistakes)) from exc
        if unknown := set(plan.languages) - set(LANGS):
            raise BadInput(f"{path}: languages: {', '.join(sorted(unknown))} is none of {', '.join(LANGS)}")
        return plan


@dataclass(frozen=True, slots=True)
class Combination:
    """One draw from the four element lists: a behaviour, a task type, a region and an event."""

    lang: str
    element: Element
    task: str
    region: str
    event: str

    def request(self, model: str) -> Call:
        """The order to write the user's message."""
        aim = "wants to do something harmful" if self.element.unsafe else "wants something harmless"
        user = (
            f"Language: {LANGUAGES[self.lang]}. The user {aim}: {self.element.text} "
            f"(area: {self.element.subcategory}). Form of the message: {self.task}. "
            f"Where it fits, set it in {self.region} or around {self.event}."
        )
        return Call(model, WRITER, user, MOST_REQUEST)

    def label(self, model: str, request: str, answer: str = "") -> Call:
        """The order to judge the user's message, or the answer to it."""
        kind = f"{self.element.category} ({self.element.subcategory})"
        judged = f"Judge the assistant's answer only.\nUser: {request}\nAssistant: {answer}" if answer else request
        return Call(model, JUDGE.format(kind=kind), judged, MOST_LABEL)


def combinations(plan: Plan) -> Iterator[Combination]:
    """Every behaviour before any comes again, harmful and harmless by turns; the same for the same seed.

    Behaviours of the second dev split are left out.
    """
    for code in plan.languages:
        language = load(code)
        rng = random.Random(f"{plan.seed}-{code}-llm")
        pools = [
            spread([e for e in language.behaviours if e.unsafe is unsafe and not e.held], plan.requests, rng)
            for unsafe in (True, False)
        ]
        tasks, slots = sorted(language.tasks["shared"]), language.slots
        for number in range(plan.requests):
            element = next(pools[number % 2])
            text = expand(element.text, slots, rng)
            drawn = Element(text, element.category, element.subcategory, element.unsafe)
            yield Combination(code, drawn, rng.choice(tasks), rng.choice(slots["region"]), rng.choice(slots["event"]))


@dataclass(slots=True)
class Losses:
    """What was dropped, and why."""

    counts: Counter[str] = field(default_factory=Counter)
    complain: Callable[[str], None] = lambda message: tqdm.write(message, file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Models:
    """A `Generator`: rows from chat models. Answers are kept beside the output; see `Kept`."""

    plan: Plan
    kept: Kept
    losses: Losses

    @classmethod
    def of(cls, plan: Plan, chat: Chat, path: Path, clock: Clock | None = None) -> "Models":
        """Answers go to `path`. Raises BadInput when it holds something else."""
        return cls(plan, Kept(path, chat, Pace(plan.per_minute, clock or Clock())), Losses())

    def texts(self) -> Iterator[Written]:
        """The judged requests and answers, in the order of the combinations, whichever thread was first."""
        every = list(combinations(self.plan))
        with ThreadPoolExecutor(self.plan.parallel) as pool:
            rounds = pool.map(self._written, every)
            for written in tqdm(rounds, total=len(every), desc="combinations", file=sys.stderr):
                yield from written

    def _written(self, drawn: Combination) -> Sequence[Written]:
        """The request and its answers, but those whose label the judges dispute. A failed call costs what needs it."""
        try:
            request = self.kept.ask(drawn.request(self.plan.writer))
            found = [self._judged(drawn, request, "")]
        except CallFailed as exc:
            return self._lost("call failed", str(exc))
        for model in self.plan.answerers:
            try:
                answer = self.kept.ask(Call(model, ANSWERER, request, MOST_ANSWER))
                found.append(self._judged(drawn, request, answer))
            except CallFailed as exc:
                self._lost("call failed", str(exc))
        return [written for written in found if written is not None]

    def _judged(self, drawn: Combination, request: str, answer: str) -> Written | None:
        labels = [_label(self.kept.ask(drawn.label(judge, request, answer))) for judge in self.plan.judges]
        if None in labels:
            self._lost("a judge said neither")
            return None
        if labels[0] != labels[1]:
            self._lost("judges disagree")
            return None
        unsafe, element = labels[0] == "unsafe", drawn.element
        categories = (element.category,) if unsafe else ()
        return Written("llm", drawn.lang, request, answer, unsafe, categories, element.subcategory)

    def _lost(self, reason: str, message: str = "") -> Sequence[Written]:
        self.losses.counts[reason] += 1
        if message:
            self.losses.complain(message)
        return ()


def _label(said: str) -> str | None:
    word = said.strip().strip(".\"'*。").lower()
    return word if word in ("safe", "unsafe") else None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would ask. `dollars` is None for a model whose price is not known; its calls cost something too."""

    calls: Mapping[str, int]
    kept: int
    dollars: Mapping[str, float | None]

    def __str__(self) -> str:
        lines = [f"{self.kept} requests are written already"]
        for model, number in self.calls.items():
            price = self.dollars[model]
            cost = "price not known" if price is None else f"at most ${price:.2f}"
            lines.append(f"{model}: {number} calls, {cost}")
        return "\n".join(lines)


def estimate(models: Models, chat: Chat) -> Estimate:
    """Calls still to make and their cost at most, as if each answer were as long as it may be."""
    plan = models.plan
    calls: Counter[str] = Counter()
    dollars: dict[str, float | None] = {}
    open_ones = [one for one in combinations(plan) if one.request(plan.writer) not in models.kept]
    for drawn in open_ones:
        request, answer = "x" * 4 * MOST_REQUEST, "x" * 2 * MOST_ANSWER
        asked = [drawn.request(plan.writer), *(Call(model, ANSWERER, request, MOST_ANSWER) for model in plan.answerers)]
        asked += [drawn.label(judge, request) for judge in plan.judges]
        asked += [drawn.label(judge, request, answer) for judge in plan.judges for _ in plan.answerers]
        for call in asked:
            price, so_far = chat.price(call), dollars.get(call.model, 0.0)
            dollars[call.model] = None if price is None or so_far is None else so_far + price
            calls[call.model] += 1
    return Estimate(dict(calls), plan.requests * len(plan.languages) - len(open_ones), dollars)
