"""Element grammars: templates with choices and slots, expanded into labelled rows. No model, no operational detail."""

import hashlib
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from training.data.rows import BadInput

ELEMENTS = Path(__file__).parent.parent / "elements"
LANGS = ("zh", "en")
PARTS = (1, 2, 3)
FILES = (
    "advertising",
    "contrasts",
    "attacks",
    "answers",
    "seeds",
    "pairs",
    "requests",
    "conversations",
    "plain_requests",
    "situations",
)
HELD_SHARE = 8
"""One element in eight, chosen by its hash, is kept out of training for the second dev split."""

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeioAEIO]|un(?!i)|SAT\b|ID\b)")
_ROUNDS = 12

Slots = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Element:
    """One behaviour, topic or template with its label. `held` ones never enter training data."""

    text: str
    category: str
    subcategory: str
    unsafe: bool
    neutral: bool = False
    """A topic that is no wrong in itself."""

    @property
    def held(self) -> bool:
        return held(self.text)


@dataclass(frozen=True, slots=True)
class Language:
    """Everything written down for one language."""

    code: str
    slots: Slots
    behaviours: tuple[Element, ...]
    topics: tuple[Element, ...]
    tasks: Mapping[str, Any]
    files: Mapping[str, Any]


def held(text: str) -> bool:
    """Whether an element belongs to the second dev split. Depends on its text alone, so lists may grow."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).digest()[0] % HELD_SHARE == 0


def expand(template: str, slots: Slots, rng: random.Random) -> str:
    """One sentence of a template: `[a|b]` picks, `{name}` draws from `slots`, until neither is left.

    Raises BadInput for an unknown slot or a template that never ends.
    """
    text = template
    for _ in range(_ROUNDS):
        text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text)
        text = _SLOT.sub(lambda match: _drawn(match[1], slots, rng, template), text)
        if not _CHOICE.search(text) and not _SLOT.search(text):
            return text
    raise BadInput(f"elements: {template!r} does not end after {_ROUNDS} rounds")


def _drawn(name: str, slots: Slots, rng: random.Random, template: str) -> str:
    if name not in slots:
        raise BadInput(f"elements: {template!r} uses {{{name}}}, which is in no slots file")
    return rng.choice(slots[name])


@cache
def load(code: str, folder: Path = ELEMENTS) -> Language:
    """The elements of one language. Raises BadInput when a file is missing a part or names an unknown sub-category."""
    taxonomy = _read(folder / "taxonomy.yaml")
    category_of = {name: category for category, names in taxonomy.items() for name in names}
    neutral = frozenset(_read(folder / "neutral_topics.yaml")[code])
    behaviours: list[Element] = []
    topics: list[Element] = []
    for part in PARTS:
        file = folder / f"behaviours_{code}_{part}.yaml"
        for name, entry in _read(file).items():
            if name not in category_of:
                raise BadInput(f"{file}: {name!r} is not in taxonomy.yaml")
            category = category_of[name]
            behaviours += [Element(text, category, name, True) for text in entry["harmful"]]
            behaviours += [Element(text, category, name, False) for text in entry["harmless"]]
            topics += [Element(text, category, name, False, text in neutral) for text in entry["topics"]]
    missing = set(category_of) - {element.subcategory for element in behaviours}
    if missing:
        raise BadInput(f"{folder}: no {code} behaviours for {', '.join(sorted(missing))}")
    tasks = _read(folder / f"tasks_{code}.yaml")
    slots = {**_read(folder / f"slots_{code}.yaml"), "who": tasks["who"]}
    files = {name: _read(folder / f"{name}.yaml")[code] for name in FILES}
    return Language(code, slots, tuple(behaviours), tuple(topics), tasks, files)


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as exc:
        raise BadInput(f"{path}: {exc}") from exc


def finished(text: str, code: str, rng: random.Random) -> str:
    """The surface of a sentence: articles, capitals, now and then the carelessness of people who type fast."""
    text = re.sub(r"[ \t]+", " ", text).strip() if code == "en" else text.strip()
    if code == "en":
        text = _ARTICLE.sub(r"\1n ", text)
        text = text[:1].upper() + text[1:]
        draw = rng.random()
        if draw < 0.12:
            text = text.lower()
        elif draw < 0.2:
            text = text.rstrip(".?!").replace("'", "")
        return text
    draw = rng.random()
    if draw < 0.08:
        text = text.replace("，", " ").rstrip("。？")
    elif draw < 0.14:
        text = text.replace("，", ",").replace("？", "?")
    elif draw < 0.2:
        text = text.replace("怎么", "咋", 1)
    return re.sub(r"([，。！？])[，。？]+", r"\1", text)


def spread(items: Sequence[Element], count: int, rng: random.Random) -> Iterator[Element]:
    """`count` draws that visit every element before any comes again."""
    order: list[Element] = []
    for _ in range(count if items else 0):
        if not order:
            order = list(items)
            rng.shuffle(order)
        yield order.pop()
