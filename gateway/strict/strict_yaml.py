"""A YAML file read strictly: each key and value with its place, and each mistake with its line."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import yaml

MAX_BYTES = 262_144
MAX_DEPTH = 20
MAX_NUMBER = 64
MAX_VALUES = 20_000
MAX_MISTAKES = 100

Keys = tuple[str | int, ...]

_PARSER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

# The core schema of YAML 1.2.2, §10.3.2. PyYAML's own reading is YAML 1.1, where `off` is False and 1:30 is 90.
_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN = re.compile(r"\.(nan|NaN|NAN)")

# Control characters, the three line breaks that editors do not count, and the marks that turn text around on screen.
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_TAB = re.compile(r"^ *\t", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column count from 1, in characters, as editors show them."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong and where. `keys` leads to the value; `advice` says what to do about it."""

    place: Place
    keys: Keys
    what: str
    advice: str

    def __str__(self) -> str:
        path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.keys).lstrip(".")
        return f"{self.place} {path}".rstrip() + f": {self.what} -- {self.advice}"


@dataclass(frozen=True, slots=True)
class YamlFile:
    """What a file says. `mistakes` holds what YAML itself forbids or we do; `data` is then as much as could be read."""

    name: str
    data: object = None
    key_places: Mapping[Keys, Place] = field(default_factory=dict)
    value_places: Mapping[Keys, Place] = field(default_factory=dict)
    mistakes: tuple[Mistake, ...] = ()

    def key_place(self, keys: Keys) -> Place:
        """Where the key stands, or the innermost key around it."""
        return self._nearest(keys, self.key_places)

    def value_place(self, keys: Keys) -> Place:
        return self._nearest(keys, self.value_places)

    def _nearest(self, keys: Keys, places: Mapping[Keys, Place]) -> Place:
        while keys and keys not in places:
            keys = keys[:-1]
        return places.get(keys, Place(self.name, 1, 1))

    def over(self, parent: "YamlFile") -> "YamlFile":
        """This file laid over its parent: mappings are merged key by key, everything else, lists too, is replaced.
        Every place still says which of the two files it is in."""
        return YamlFile(
            self.name,
            _merged(parent.data, self.data),
            {**self._kept(parent.key_places), **self.key_places},
            {**self._kept(parent.value_places), **self.value_places},
        )

    def _kept(self, places: Mapping[Keys, Place]) -> dict[Keys, Place]:
        """A parent's places, without those inside what this file replaces."""
        replaced = frozenset(_leaves(self.data, ()))
        return {
            keys: place
            for keys, place in places.items()
            if not any(keys[:length] in replaced for length in range(1, len(keys)))
        }


def _leaves(data: object, keys: Keys) -> Iterator[Keys]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _leaves(value, (*keys, key))
    else:
        yield keys


def _merged(parent: object, child: object) -> object:
    if isinstance(parent, dict) and isinstance(child, dict):
        return parent | {key: _merged(parent.get(key), value) for key, value in child.items()}
    return child


def read(path: Path, name: str | None = None) -> YamlFile:
    """`name` is what mistakes call the file. What is wrong with it, unreadable included, is in its `mistakes`."""
    name = name or str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as exc:
        return _refused(name, f"cannot be read ({exc.strerror})", "is it there, and may you read it?")
    if len(content) > MAX_BYTES:
        return _refused(name, "is larger than 256 kB", "split it into several files")
    return parse(content, name)


def parse(content: bytes, name: str) -> YamlFile:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        return _refused(name, "is not UTF-8", "save the file as UTF-8", line)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if unseen := _UNSEEN.search(text):
        what = f"has the invisible character U+{ord(unseen[0]):04X}"
        return YamlFile(name, mistakes=(Mistake(_place_of(name, text, unseen.start()), (), what, "remove it"),))
    if tab := _TAB.search(text):
        place = _place_of(name, text, tab.end() - 1)
        return YamlFile(name, mistakes=(Mistake(place, (), "a tab indents this line", "use spaces"),))
    return _Reader(name).read(text)


def _refused(name: str, what: str, advice: str, line: int = 1) -> YamlFile:
    return YamlFile(name, mistakes=(Mistake(Place(name, line, 1), (), what, advice),))


def _place_of(name: str, text: str, offset: int) -> Place:
    return Place(name, text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


class _Mark(Protocol):
    line: int
    column: int


_Items = dict[str, object] | list[object]


@dataclass(slots=True)
class _Open:
    """A mapping or a list whose end has not come yet. `key` is the mapping's key that waits for its value."""

    keys: Keys
    items: _Items
    key: str = ""
    has_key: bool = False


class _Stop(Exception):
    """What follows in this file cannot be read."""


class _Reader:
    """Builds the data from the parser's events. Its stack is its own, so that depth cannot overrun Python's."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stack: list[_Open] = []
        self._root: object = None
        self._documents = 0
        self._keys: dict[Keys, Place] = {}
        self._values: dict[Keys, Place] = {}
        self._mistakes: list[Mistake] = []

    def read(self, text: str) -> YamlFile:
        try:
            for event in self._events(text):
                self._take(event)
                self._bound(event)
            if not isinstance(self._root, dict):
                self._blame((), Place(self._name, 1, 1), "does not hold a mapping", "write `key: value` lines")
        except _Stop:
            pass
        return YamlFile(self._name, self._root, self._keys, self._values, tuple(self._mistakes))

    def _events(self, text: str) -> Iterator[yaml.Event]:
        try:
            yield from yaml.parse(text, Loader=_PARSER)
        except yaml.MarkedYAMLError as exc:
            place = self._at(exc.problem_mark or exc.context_mark)
            self._blame((), place, f"is not YAML: {exc.problem or exc.context}", "check indentation and quotes here")
            raise _Stop from exc

    def _bound(self, event: yaml.Event) -> None:
        if len(self._values) > MAX_VALUES:
            raise self._stop(event, f"holds more than {MAX_VALUES:,} values", "split it into several files")
        if len(self._mistakes) >= MAX_MISTAKES:
            raise self._stop(
                event, f"has {MAX_MISTAKES} mistakes up to here", "mend these first: the rest was not read"
            )

    def _take(self, event: yaml.Event) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise self._stop(event, "a second document begins", "keep one document in a file: remove the `---`")
                if event.version or event.tags:
                    self._blame((), Place(self._name, 1, 1), "has a % directive", "remove it")
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.MappingStartEvent():
                self._begin(event, {})
            case yaml.SequenceStartEvent():
                self._begin(event, [])
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._stack.pop()

    def _alias(self, event: yaml.AliasEvent) -> None:
        if self._waits_for_key():
            raise self._stop(event, "an alias stands for a key", "write the key out")
        keys = self._add(None, event)
        self._blame(keys, self._at(event.start_mark), f"*{event.anchor} is an alias", "write the value out")

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        if self._waits_for_key():
            self._key(event)
            return
        plain = event.implicit[0]
        too_long = plain and len(event.value) > MAX_NUMBER and _is_number(event.value)
        keys = self._add(_value(event.value) if plain and not too_long else event.value, event)
        self._refuse_marks(event, keys)
        if too_long:
            what = f"is a number of {len(event.value)} digits"
            self._blame(keys, self._at(event.start_mark), what, "quote it if it is text")

    def _key(self, event: yaml.ScalarEvent) -> None:
        top = self._stack[-1]
        top.key, top.has_key = event.value, True
        keys, place = (*top.keys, event.value), self._at(event.start_mark)
        self._refuse_marks(event, keys)
        if event.value == "<<":
            self._blame(keys, place, "<< merges another mapping", "write the keys out")
        elif keys in self._keys:
            self._blame(keys, place, f"is written twice, first in line {self._keys[keys].line}", "remove one of them")
        elif not event.value:
            self._blame(keys, place, "the key is empty", "give it a name")
        self._keys.setdefault(keys, place)

    def _begin(self, event: yaml.CollectionStartEvent, items: _Items) -> None:
        if self._waits_for_key():
            raise self._stop(event, "a key is itself a list or a mapping", "use a plain word as the key")
        if len(self._stack) >= MAX_DEPTH:
            raise self._stop(event, f"is nested more than {MAX_DEPTH} deep", "nothing here needs that: flatten it")
        keys = self._add(items, event)
        self._refuse_marks(event, keys)
        self._stack.append(_Open(keys, items))

    def _waits_for_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1].items, dict) and not self._stack[-1].has_key

    def _add(self, value: object, event: yaml.Event) -> Keys:
        if not self._stack:
            keys: Keys = ()
            self._root = value
        else:
            top = self._stack[-1]
            if isinstance(top.items, list):
                keys = (*top.keys, len(top.items))
                top.items.append(value)
                self._keys[keys] = self._at(event.start_mark)
            else:
                keys = (*top.keys, top.key)
                top.items[top.key] = value
                top.has_key = False
        self._values[keys] = self._at(event.start_mark)
        return keys

    def _refuse_marks(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, keys: Keys) -> None:
        place = self._at(event.start_mark)
        if event.anchor is not None:
            self._blame(keys, place, f"&{event.anchor} is an anchor", "remove it; write values out where they are used")
        if event.tag is not None:
            self._blame(keys, place, f"has the tag {event.tag}", "remove it; quote the value if it is text")

    def _at(self, mark: "_Mark | None") -> Place:
        return Place(self._name, mark.line + 1, mark.column + 1) if mark else Place(self._name, 1, 1)

    def _blame(self, keys: Keys, place: Place, what: str, advice: str) -> None:
        self._mistakes.append(Mistake(place, keys, what, advice))

    def _stop(self, event: yaml.Event, what: str, advice: str) -> _Stop:
        keys = self._stack[-1].keys if self._stack else ()
        self._blame(keys, self._at(event.start_mark), what, advice)
        return _Stop()


def _is_number(text: str) -> bool:
    return any(form.fullmatch(text) for form in (_INT, _OCTAL, _HEX, _FLOAT))


def _value(text: str) -> object:
    """What an unquoted scalar means. `text` is at most MAX_NUMBER long where it is a number: beyond 4,300 digits int()
    raises, and on the way there its time is quadratic."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    for form, base in ((_INT, 10), (_OCTAL, 8), (_HEX, 16)):
        if form.fullmatch(text):
            return int(text, base) if base == 10 else int(text[2:], base)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITY.fullmatch(text) or _NAN.fullmatch(text):
        return float(text.replace(".", ""))
    return text
