"""The families of synthetic rows (requests, adverts, attacks, answers, ...), harmful and harmless in equal number."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evaluation.perturbations import perturbed
from training.data.grammar import Element, Language, expand, finished, held, spread

_SHARED = ("group", "crowd", "job", "province", "food", "event")
"""Slots that question and reply must fill alike."""

_ADVERT_CATEGORIES = {"Baiting": "hate_speech_and_abuse"}
_ADVERT_SLOTS = ("hook", "urgency", "contact", "money", "casino", "coin", "bankn")
_DISGUISES = ("homophone", "emoji", "spacing", "punctuation", "traditional", "glyph_similar", "pinyin_initial")
_DISGUISED_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Written:
    """A text with its label, before it becomes a row. `response` is empty for a prompt."""

    family: str
    lang: str
    prompt: str
    response: str
    unsafe: bool
    categories: tuple[str, ...]
    subcategory: str


@dataclass(frozen=True, slots=True)
class Text:
    """`response` is empty for a prompt."""

    prompt: str
    response: str = ""


@dataclass(frozen=True, slots=True)
class Labels:
    category: str
    subcategory: str


HAND_WRITTEN = "hand-written"


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes the rows of one language. `dev` uses only held-out elements, otherwise none of them is used."""

    language: Language
    rng: random.Random
    dev: bool = False

    def sentence(self, template: str, **slots: str) -> str:
        """A finished sentence of a template; extra slots may themselves be templates."""
        known: Mapping[str, Sequence[str]] = {**self.language.slots, **{name: [value] for name, value in slots.items()}}
        return finished(expand(template, known, self.rng), self.language.code, self.rng)

    def usable(self, templates: Sequence[str]) -> list[str]:
        """Templates of this split; for a short list there may be none to hold out."""
        return [template for template in templates if held(template) == self.dev]

    def elements(self, unsafe: bool, subcategory: str) -> list[Element]:
        wanted = (unsafe, subcategory, self.dev)
        return [e for e in self.language.behaviours if (e.unsafe, e.subcategory, e.held) == wanted]

    def topics(self, subcategory: str, wrongs_only: bool) -> list[Element]:
        """Topics of a sub-category; those that are no wrong in themselves can be left out."""
        found = [e for e in self.language.topics if (e.subcategory, e.held) == (subcategory, self.dev)]
        return [e for e in found if not (wrongs_only and e.neutral)]

    def subcategories(self) -> list[str]:
        return list(dict.fromkeys(element.subcategory for element in self.language.behaviours))

    def written(self, family: str, text: Text, unsafe: bool, labels: Labels) -> Written:
        categories = (labels.category,) if unsafe else ()
        return Written(family, self.language.code, text.prompt, text.response, unsafe, categories, labels.subcategory)

    def bound(self, element: Element) -> Element:
        """The element with its own slots filled, so that question and answer speak of the same person and place."""
        return replace(element, text=expand(element.text, self.language.slots, self.rng))

    def request(self, element: Element) -> str:
        """A question or order about a behaviour, in one of the task types, sometimes with a setting before it."""
        tasks = self.language.tasks
        style = self.rng.choice(list(tasks["shared"]))
        body = self.rng.choice(tasks["shared"][style])
        parts = [self.rng.choice(tasks["openers"]), body, self.rng.choice(tasks["closers"])]
        if self.rng.random() < 0.12:
            parts.insert(0, self.rng.choice(tasks["settings"]))
        joint = "" if self.language.code == "zh" else " "
        return self.sentence(joint.join(part for part in parts if part), x=element.text)


def requests(writer: Writer, per_label: int) -> Iterator[Written]:
    """Chat-style requests: for every sub-category as many harmful as harmless ones."""
    for subcategory in writer.subcategories():
        for unsafe in (True, False):
            for element in spread(writer.elements(unsafe, subcategory), per_label, writer.rng):
                text = Text(writer.request(element))
                yield writer.written("request", text, unsafe, Labels(element.category, subcategory))


def topics(writer: Writer, safe: int, unsafe: int) -> Iterator[Written]:
    """Questions that touch a dangerous topic: mostly harmless ones, and some that want to take part in it."""
    tasks = writer.language.tasks
    for subcategory in writer.subcategories():
        for count, templates, label in ((safe, tasks["topic_harmless"], False), (unsafe, tasks["topic_harmful"], True)):
            for topic in spread(writer.topics(subcategory, wrongs_only=label), count, writer.rng):
                opener = writer.rng.choice(tasks["openers"])
                fitting = tasks["topic_neutral"] if topic.neutral else templates
                text = writer.sentence(opener + writer.rng.choice(fitting), t=topic.text)
                yield writer.written("topic", Text(text), label, Labels(topic.category, subcategory))


def adverts(writer: Writer, count: int) -> Iterator[Written]:
    """Advertising and what stands beside it: `count` harmful and harmless texts each, as many of every template."""
    adverts = writer.language.files["advertising"]
    for unsafe, kinds in ((True, adverts["harmful"]), (False, adverts["harmless"])):
        usable = [(kind, template) for kind in kinds for template in writer.usable(kinds[kind])]
        for number in range(count if usable else 0):
            kind, template = usable[number % len(usable)]
            category = _ADVERT_CATEGORIES.get(kind, "illegal_activities_and_crime")
            yield writer.written("advert", Text(_advert(writer, adverts, template)), unsafe, Labels(category, kind))


def _advert(writer: Writer, adverts: Mapping[str, Any], template: str) -> str:
    drawn = {name: writer.rng.choice(adverts[name]) for name in _ADVERT_SLOTS}
    text = writer.sentence(template, handle=_handle(writer.rng), **drawn)
    return _disguised(text.strip("，, "), writer)


def _handle(rng: random.Random) -> str:
    """An account name or number as adverts carry them; nobody's."""
    letters = "".join(rng.choices("abcdefghjkmnpqrstuvwxyz", k=rng.randint(0, 4)))
    return letters + "".join(rng.choices("0123456789", k=rng.randint(3, 8)))


def _disguised(text: str, writer: Writer) -> str:
    """Now and then the spelling by which adverts dodge filters: harmful and harmless ones at the same rate."""
    if writer.language.code != "zh" or writer.rng.random() >= _DISGUISED_SHARE:
        return text
    operator = writer.rng.choice(_DISGUISES)
    return perturbed(text, operator, writer.rng.choice(("light", "medium")), writer.rng.randrange(2**31))


def contrasts(writer: Writer, count: int) -> Iterator[Written]:
    """Look-alikes (homonyms, figures of speech, definitions, history, public facts, safety) and harmful twins."""
    for entry in writer.language.files["contrasts"]:
        labels = Labels(entry["category"], entry["subcategory"])
        for unsafe, part in ((True, "unsafe"), (False, "safe")):
            usable = writer.usable(entry[part])
            for _ in range(count if usable else 0):
                opener = writer.rng.choice(writer.language.tasks["openers"])
                text = writer.sentence(opener + writer.rng.choice(usable))
                yield writer.written("contrast", Text(text), unsafe, labels)


def attacks(writer: Writer, count: int) -> Iterator[Written]:
    """Jailbreak wrappers, prompt extraction, injected documents, and harmless texts of the same shapes."""
    parts = writer.language.files["attacks"]
    usual = [e for e in writer.language.behaviours if e.held == writer.dev]
    pools = {label: [e for e in usual if e.unsafe is label] for label in (True, False)}
    shapes = {"wrappers": count // 2, "extraction": count // 4, "docs": count // 4}
    for shape, number in shapes.items():
        for unsafe in (True, False):
            name = f"{'injection_docs' if shape == 'docs' and unsafe else shape}_{'unsafe' if unsafe else 'safe'}"
            usable = writer.usable(parts[name])
            for _ in range(number if usable else 0):
                question = writer.rng.choice(pools[unsafe and writer.rng.random() < 0.6])
                drawn = {key: writer.rng.choice(parts[key]) for key in ("doc_head", "doc_tail", "doc", "char")}
                asked = writer.request(question)
                text = writer.sentence(writer.rng.choice(usable), q=asked, **drawn)
                also = (question.category,) if shape == "wrappers" and question.unsafe else ()
                categories = (*also, "prompt_attack") if unsafe else ()
                yield Written("attack", writer.language.code, text, "", unsafe, categories, shape)


def answers(writer: Writer, per_label: int) -> Iterator[Written]:
    """Answers to requests. Safe ones are mostly no refusals; unsafe ones open as politely as any."""
    for subcategory in writer.subcategories():
        for unsafe in (True, False):
            count = per_label * 8 // 5 if unsafe else per_label * 4 // 5
            for element in spread(writer.elements(unsafe, subcategory), count, writer.rng):
                yield _answer(writer, writer.bound(element))


def _answer(writer: Writer, element: Element) -> Written:
    parts = writer.language.files["answers"]
    draw = writer.rng.random()
    if not element.unsafe:
        kind, unsafe = ("comply", False) if draw < 0.85 else ("refuse", False)
    elif draw < 0.62:
        kind, unsafe = ("comply", True) if draw < 0.48 else ("refuse_then_comply", True)
    else:
        kind, unsafe = _safe_kind(draw), False
    response = writer.sentence(_answer_template(writer, kind, element.unsafe, parts), x=element.text)
    labels = Labels(element.category, element.subcategory)
    return writer.written("answer", Text(writer.request(element), response), unsafe, labels)


def _safe_kind(draw: float) -> str:
    return "refuse" if draw < 0.74 else "caution" if draw < 0.9 else "comply_then_refuse"


def _answer_template(writer: Writer, kind: str, harmful: bool, parts: Mapping[str, Any]) -> str:
    def pick(name: str) -> str:
        return str(writer.rng.choice(parts[name]))

    match kind:
        case "comply":
            return pick("comply_open") + pick("steps") + pick("unsafe_tail" if harmful else "safe_tail")
        case "refuse":
            return pick("refuse_open") + pick("refuse") + pick("redirect")
        case "refuse_then_comply":
            parting = pick("refuse_open") + pick("refuse") + pick("refuse_then_comply")
            return parting + pick("steps") + pick("unsafe_tail")
        case "comply_then_refuse":
            return pick("comply_then_refuse") + pick("redirect")
        case _:
            opening = pick("refuse_open") if writer.rng.random() < 0.2 else ""
            return opening + pick("caution")


def talk(writer: Writer, safe: int, unsafe: int) -> Iterator[Written]:
    """Answers about topics, and short statements (abuse, prejudice, false claims) with their decent twins."""
    parts = writer.language.files["answers"]
    tasks = writer.language.tasks
    for subcategory in writer.subcategories():
        for count, name, label in ((safe, "topic_safe", False), (unsafe, "topic_unsafe", True)):
            for topic in spread(writer.topics(subcategory, wrongs_only=label), count, writer.rng):
                manner = "topic_neutral" if topic.neutral else "topic_harmless"
                asked = writer.sentence(writer.rng.choice(tasks[manner]), t=topic.text)
                fitting = parts["topic_neutral" if topic.neutral else name]
                said = writer.sentence(writer.rng.choice(fitting), t=topic.text)
                yield writer.written("talk", Text(asked, said), label, Labels(topic.category, subcategory))


def statements(writer: Writer, per_label: int) -> Iterator[Written]:
    """Abusive, prejudiced, false or callous replies to ordinary messages, and decent replies to the same ones."""
    parts = writer.language.files["answers"]
    slots = writer.language.slots
    shared = [slot for slot in _SHARED if slot in slots]
    for category, questions in parts["questions"].items():
        for unsafe, name in ((True, "statements_unsafe"), (False, "statements_safe")):
            for _ in range(per_label):
                index = writer.rng.randrange(len(questions))
                drawn = {slot: writer.rng.choice(slots[slot]) for slot in shared}
                asked = writer.sentence(questions[index], **drawn)
                said = writer.sentence(parts[name][category][index], **drawn)
                yield writer.written("statement", Text(asked, said), unsafe, Labels(category, name))


def seeds(writer: Writer, copies: int, family: str = "seed", file: str = "seeds") -> Iterator[Written]:
    """Hand-written requests, a few variants of each; never in a dev split."""
    parts = writer.language.files[file]
    harmful = [(text, category) for category, texts in parts["unsafe"].items() for text in texts]
    for text, category in [*harmful, *((text, "") for text in parts["safe"])]:
        for _ in range(0 if writer.dev else copies):
            asked = writer.sentence(writer.rng.choice(writer.language.tasks["openers"]) + text)
            yield writer.written(family, Text(asked), bool(category), Labels(category, HAND_WRITTEN))


def pairs(writer: Writer, copies: int, family: str = "pair", file: str = "pairs") -> Iterator[Written]:
    """Hand-written questions with natural answers, a few variants of each; never in a dev split. A question that an
    answer refuses is no harmless row of its own."""
    parts = writer.language.files[file]
    refused = parts.get("refused", [])
    for entry in [*parts["safe"], *refused, *parts["unsafe"]]:
        category = entry.get("category", "")
        for _ in range(0 if writer.dev else copies):
            text = Text(writer.sentence(entry["ask"]), writer.sentence(entry["say"]))
            yield writer.written(family, text, bool(category), Labels(category, HAND_WRITTEN))
            if not category and entry not in refused:
                yield writer.written(family, Text(text.prompt), False, Labels("", HAND_WRITTEN))
