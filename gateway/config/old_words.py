"""Words of config.yaml that have a newer name: they are still read, and `libragate check` points them out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gateway.strict.strict_yaml import Keys, Mistake, Place, YamlFile

OLD_KEYS: Mapping[str, str] = {"providers": "devices"}
"""Of a guard: in what order devices are tried."""

OLD_KINDS: Mapping[str, str] = {"rules": "personal_data"}
"""Of a guard in the list `guards`; a cascade holds none of these."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """The file in today's words, and a note for each old one. A key that stands there under both names is a mistake of
    the file."""

    file: YamlFile
    notes: tuple[Mistake, ...] = ()


def renewed(file: YamlFile) -> Renewed:
    """What is no list of guards is left as it is, for the schema to find fault with."""
    guards = file.data.get("guards") if isinstance(file.data, dict) else None
    if not isinstance(file.data, dict) or not isinstance(guards, list):
        return Renewed(file)
    changes = [change for n, guard in enumerate(guards) for change in _changes(guard, ("guards", n))]
    new = [_guard(guard, OLD_KINDS) for guard in guards]
    return Renewed(
        replace(
            file,
            data=file.data | {"guards": new},
            key_places=_moved(file.key_places),
            value_places=_moved(file.value_places),
            mistakes=(*file.mistakes, *(change.mistake(file) for change in changes if change.twice)),
        ),
        tuple(change.note(file) for change in changes if not change.twice),
    )


@dataclass(frozen=True, slots=True)
class _Change:
    """An old word at this place. `twice`: the new one stands there too."""

    keys: Keys
    new: str
    twice: bool = False

    def note(self, file: YamlFile) -> Mistake:
        place = file.value_place(self.keys) if self.keys[-1] == "kind" else file.key_place(self.keys)
        return Mistake(place, self.keys, "is an old name, which still works", f"write {self.new}")

    def mistake(self, file: YamlFile) -> Mistake:
        what = f"is the old name of {self.new}, which is there too"
        return Mistake(file.key_place(self.keys), self.keys, what, "keep one of the two")


def _changes(guard: object, keys: Keys) -> Iterator[_Change]:
    if not isinstance(guard, dict):
        return
    kind = guard.get("kind")
    if len(keys) == 2 and isinstance(kind, str) and kind in OLD_KINDS:
        yield _Change((*keys, "kind"), OLD_KINDS[kind])
    for old, new in OLD_KEYS.items():
        if old in guard:
            yield _Change((*keys, old), new, twice=new in guard)
    for member in ("small", "large"):
        yield from _changes(guard.get(member), (*keys, member))


def _guard(guard: object, kinds: Mapping[str, str]) -> object:
    if not isinstance(guard, dict):
        return guard
    words: dict[str, Any] = {}
    for key, value in guard.items():
        if OLD_KEYS.get(key) in guard:
            continue
        words[OLD_KEYS.get(key, key)] = _guard(value, {}) if key in ("small", "large") else value
    if isinstance(words.get("kind"), str):
        words["kind"] = kinds.get(words["kind"], words["kind"])
    return words


def _moved(places: Mapping[Keys, Place]) -> Mapping[Keys, Place]:
    """Where a new word stands, its old one does."""
    moved = {
        tuple(OLD_KEYS.get(step, step) if isinstance(step, str) else step for step in keys): place
        for keys, place in places.items()
        if keys[:1] == ("guards",)
    }
    return {**moved, **places}
