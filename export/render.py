"""A checkpoint's chat template, rendered once, in a sandbox, into the segments the manifest stores."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from guard_runtime.conversation import Direction
from guard_runtime.errors import ArtefactRefused
from guard_runtime.generative.families.family import ANSWER, QUESTION, Family, Kinds, Message, Question, Word
from guard_runtime.generative.prompt import WHITESPACE, Branch, Label, Probe, Probes, Segment, Slot
from guard_runtime.generative.token_heads import Heads, TokenHead
from guard_runtime.generative.tokenizer import SafeTokenizer, common_prefix

_MARKS: Mapping[str, Slot] = {QUESTION: Slot.QUESTION, ANSWER: Slot.ANSWER}
_BORDER = re.compile("(" + "|".join(map(re.escape, _MARKS)) + ")")
_BLANKS = "\n \t \n"
_RIGHT: Mapping[str, str] = {_BLANKS: "", _BLANKS[:-1]: "\n", "": WHITESPACE}
_LEFT: Mapping[str, str] = {_BLANKS: "", _BLANKS[1:]: "\n", "": WHITESPACE}
"""What is left of blanks on either side of a word, and which characters a template took if so."""

_RAISED = (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError)
_VERBATIM = "'\"<&>\\{{ x }}%"


class Template:
    """One checkpoint's chat template. Rendering it runs the checkpoint's code: in a sandbox, at export only."""

    def __init__(self, source: str, variables: Mapping[str, Any]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _no_clock
        environment.filters["tojson"] = _tojson
        self._variables = dict(variables)
        try:
            self._template = environment.from_string(source)
        except TemplateError as exc:
            raise ArtefactRefused(f"the chat template is not valid: {exc}") from exc

    def render(self, messages: list[dict[str, Any]], variables: Mapping[str, Any]) -> str:
        try:
            rendered: str = self._template.render({**self._variables, "messages": messages, **variables})
            return rendered
        except _RAISED as exc:
            raise ArtefactRefused(f"the chat template raised: {exc}") from exc


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _no_clock(_format: str) -> str:
    raise TemplateError("it asks for today's date: a prompt that changes with the day cannot be stored")


def _tojson(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def template_of(checkpoint: Path) -> Template:
    """The chat template of a local checkpoint folder: `chat_template.jinja`, or the key of `tokenizer_config.json`."""
    config = _json(checkpoint / "tokenizer_config.json")
    alone = checkpoint / "chat_template.jinja"
    source = alone.read_text("utf-8") if alone.is_file() else config.get("chat_template")
    if isinstance(source, list):
        source = next((item["template"] for item in source if item.get("name") == "default"), None)
    if not isinstance(source, str):
        raise ArtefactRefused(f"{checkpoint}: no chat template in chat_template.jinja or tokenizer_config.json")
    named = {key: _content(config.get(key)) for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
    return Template(source, {key: value for key, value in named.items() if value is not None})


def _content(token: object) -> str | None:
    return str(token["content"]) if isinstance(token, Mapping) else None if token is None else str(token)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise ArtefactRefused(f"{path}: {exc}") from exc
    if not isinstance(content, dict):
        raise ArtefactRefused(f"{path}: not a JSON object")
    return content


class Renderer:
    """A family's prompts for one checkpoint."""

    def __init__(self, family: Family, template: Template | None, tokenizer: SafeTokenizer) -> None:
        if template is None and not family.wrapper:
            raise ArtefactRefused(f"family {family.name} needs the checkpoint's chat template")
        self._family = family
        self._template = template
        self._tokenizer = tokenizer

    def probes(self) -> Probes:
        """Every question of the family, in segments, with its labels resolved to single tokens."""
        return {
            direction: tuple(self._probe(direction, question) for question in questions)
            for direction, questions in self._family.questions.items()
        }

    def heads(self) -> Heads:
        """Every head of a family that classifies tokens: its outputs one after the other in the family's order."""
        found: dict[Direction, TokenHead] = {}
        first = 0
        for direction, head in self._family.heads.items():
            question = self._family.questions[direction][0]
            segments = self._segments(direction, question)
            self._check_verbatim(direction, question, segments)
            judged = self._judged(direction, segments)
            found[direction] = TokenHead(judged, first, head.risks, self._family.risky, head.kinds, head.run)
            first = found[direction].end
        return found

    def _judged(self, direction: Direction, segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
        """The prompt as far as it is judged: to the answer's end, or to the token that closes the user's turn."""
        if direction is Direction.RESPONSE:
            slots = [place for place, segment in enumerate(segments) if segment.slot is Slot.ANSWER]
            return segments[: slots[-1] + 1]
        closing = segments[-1].text
        ends = [closing.find(name) + len(name) for name in self._tokenizer.controls if name in closing]
        if segments[-1].slot is not None or not ends:
            raise ArtefactRefused("the chat template closes the user's turn with no control token")
        return (*segments[:-1], Segment(closing[: min(ends)]))

    def text(self, direction: Direction, question: Question, words: Mapping[str, str]) -> str:
        """The prompt as the template renders it with these words in place of the marks, the forced prefix included."""
        family = self._family
        messages = [_filled(message, words) for message in family.messages[direction]]
        if self._template is None or family.wrapper:
            return family.wrapper.replace("{content}", messages[0].content) + family.forced
        rendered = self._rendered(messages, question)
        lines = "\n\n"
        if family.forced == lines and rendered.endswith(lines):
            return rendered
        return rendered + family.forced

    def _rendered(self, messages: list[Message], question: Question) -> str:
        assert self._template is not None  # noqa: S101 - the caller looked
        variables = {"add_generation_prompt": self._family.generation_prompt, **question.variables}
        plain = [{"role": m.role.value, "content": m.content} for m in messages]
        parts = [{"role": m.role.value, "content": [{"type": "text", "text": m.content}]} for m in messages]
        try:
            rendered = self._template.render(plain, variables)
        except ArtefactRefused:
            return self._template.render(parts, variables)
        if all(m.content.strip() in rendered for m in messages):
            return rendered
        return self._template.render(parts, variables)

    def _probe(self, direction: Direction, question: Question) -> Probe:
        segments = self._segments(direction, question)
        self._check_verbatim(direction, question, segments)
        kinds = self._family.kinds.get(direction)
        return Probe(
            name=question.name,
            segments=segments,
            forced=self._family.forced,
            labels=self._labels(segments[-1].text, self._family.words),
            risky=self._family.risky,
            categories=question.categories,
            branch=None if kinds is None else self._branch(segments, kinds),
        )

    def _segments(self, direction: Direction, question: Question) -> tuple[Segment, ...]:
        rendered = _BORDER.split(self.text(direction, question, {}))
        blank = _BORDER.split(self.text(direction, question, {mark: f"{_BLANKS}{mark}{_BLANKS}" for mark in _MARKS}))
        if len(rendered) < 3 or rendered[1::2] != blank[1::2]:
            raise ArtefactRefused(f"the chat template leaves the {direction.value} out")
        sides = [_kept(plain, wide) for plain, wide in zip(rendered[::2], blank[::2], strict=True)]
        segments = []
        for place, piece in enumerate(rendered):
            if piece in _MARKS:
                left, right = sides[place // 2][1], sides[place // 2 + 1][0]
                segments.append(Segment("", _MARKS[piece], _LEFT[left], _RIGHT[right]))
            elif piece:
                segments.append(Segment(piece))
        return tuple(segments)

    def _check_verbatim(self, direction: Direction, question: Question, segments: tuple[Segment, ...]) -> None:
        """The template may strip the words, and do nothing else to them: escaped or rewritten words would be read
        otherwise than the checkpoint learnt."""
        words = {mark: f"{_VERBATIM}{slot.value}" for mark, slot in _MARKS.items()}
        expected = self.text(direction, question, words)
        ours = "".join(segment.fill({slot: words[mark] for mark, slot in _MARKS.items()}) for segment in segments)
        if ours != expected:
            raise ArtefactRefused("the chat template rewrites the words it is given: it cannot be stored")

    def _labels(self, before: str, words: tuple[Word, ...]) -> tuple[Label, ...]:
        return tuple(Label(word.name, self._first_token(before, word), word.text) for word in words)

    def _branch(self, segments: tuple[Segment, ...], kinds: Kinds) -> Branch:
        tail = segments[-1].text
        before = self._ours(tail)
        after = self._ours(tail + kinds.forced)
        if after[: len(before)] != before:
            raise ArtefactRefused(f"{kinds.forced!r} melts into the tokens before it: it needs keys of its own")
        labels = self._labels(tail + kinds.forced, kinds.words)
        return Branch(tuple(after[len(before) :]), labels, kinds.categories)

    def _first_token(self, before: str, word: Word) -> int:
        """The one token that decides for a word. Loud where it is not one token, or where the forced prefix and the
        word are read as other tokens together than apart."""
        prefix, whole = self._ours(before), self._ours(before + word.text)
        if common_prefix(prefix, whole) != len(prefix) or len(whole) == len(prefix):
            raise ArtefactRefused(f"label {word.text!r} melts into the forced prefix: it is not one token here")
        token = whole[len(prefix)]
        expected = word.expected
        if expected is not None and self._tokenizer.text_of(token) != expected:
            found = self._tokenizer.text_of(token)
            raise ArtefactRefused(f"label {word.text!r} begins with {found!r}, not {expected!r}, in this tokenizer")
        return token

    def _ours(self, text: str) -> list[int]:
        return self._tokenizer.tokens((Segment(text),), {})


def _filled(message: Message, words: Mapping[str, str]) -> Message:
    content = message.content
    for mark, text in words.items():
        content = content.replace(mark, text)
    return Message(message.role, content)


def _kept(plain: str, blank: str) -> tuple[str, str]:
    """What of the blanks around two marks is left between them: behind the first mark, and before the second. `plain`
    is what the template itself says there."""
    for right in _RIGHT:
        for left in _LEFT:
            if blank == right + plain + left:
                return right, left
    raise ArtefactRefused("the chat template rewrites the blanks around the words it is given: it cannot be stored")
