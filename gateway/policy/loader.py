"""policies/*.yaml: every file read, laid over its parents, and checked for what no single value shows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

from gateway.policy.policy import Action, Policy
from gateway.policy.schema import PolicyFile, RuleFile, rule_keys
from gateway.strict import strict_yaml
from gateway.strict.messages import check, suggestion
from gateway.strict.strict_yaml import Keys, Mistake, Place, YamlFile
from guard_runtime.conversation import Direction
from guard_runtime.guard import POINTS
from guard_runtime.verdict import CATEGORIES

Files = Mapping[str, YamlFile]

PRESETS = Path(__file__).with_name("presets")
"""The policies that ship ready to use: a tenant names one with `preset:`, a policy extends one by its name."""


@dataclass(frozen=True, slots=True)
class PolicyFolder:
    """`policies` are those of the folder, `presets` those that ship. `names` has the policies that could not be made
    too, so that who names one is not blamed as well."""

    policies: Mapping[str, Policy]
    names: frozenset[str]
    mistakes: tuple[Mistake, ...]
    presets: Mapping[str, Policy] = field(default_factory=dict)


def load_policies(folder: Path, *, needed: bool = True) -> PolicyFolder:
    """Every policy that is sound, and every mistake of the others. Unless `needed`, the folder may be missing or empty:
    the presets are there."""
    mistakes: list[Mistake] = []
    if needed and not folder.is_dir():
        mistakes.append(_blamed(folder, "is not a folder", "make it, with a base.yaml in it"))
    own = {path.stem: strict_yaml.read(path) for path in sorted(folder.glob("*.yaml"))}
    mistakes += [
        _blamed(path, "is not read: it ends in .yml", "name it .yaml") for path in sorted(folder.glob("*.yml"))
    ]
    if needed and folder.is_dir() and not own:
        mistakes.append(_blamed(folder, "has no policy in it", "write a base.yaml"))
    shipped = {path.stem: strict_yaml.read(path) for path in sorted(PRESETS.glob("*.yaml"))}
    for name in sorted(shipped.keys() & own.keys()):
        path = Path(own[name].name)
        mistakes.append(_blamed(path, f"{name} is the name of a preset", "give the policy another name"))
    policies, in_files = _sound({**own, **shipped})
    presets = {name: policy for name, policy in policies.items() if name in shipped}
    policies = {name: policy for name, policy in policies.items() if name not in shipped}
    return PolicyFolder(policies, frozenset(own), (*mistakes, *in_files), presets)


def _sound(files: Files) -> tuple[dict[str, Policy], list[Mistake]]:
    """The policies that can be made, and the mistakes in the others; parents first."""
    policies: dict[str, Policy] = {}
    mistakes: list[Mistake] = []
    for lineage in sorted((_lineage(name, files) for name in files), key=len):
        whole = all(parent in policies for parent in lineage[1:])
        in_file, policy = _draft(lineage, files, whole=whole)
        mistakes.extend(in_file)
        if policy is not None:
            policies[lineage[0]] = policy
    return policies, mistakes


def _blamed(path: Path, what: str, advice: str) -> Mistake:
    return Mistake(Place(str(path), 1, 1), (), what, advice)


def _lineage(name: str, files: Files) -> tuple[str, ...]:
    """The policy, its parent, its parent's parent. Where the chain is broken the last name is no file, or one that came
    before."""
    names = [name]
    while names[-1] in files and names[-1] not in names[:-1] and (parent := _parent(files[names[-1]])) is not None:
        names.append(parent)
    return tuple(names)


def _parent(file: YamlFile) -> str | None:
    """The name that is written; "" where something is written that is no name."""
    if not isinstance(file.data, dict) or "extends" not in file.data:
        return None
    parent = file.data["extends"]
    return parent if isinstance(parent, str) else ""


def _draft(lineage: tuple[str, ...], files: Files, *, whole: bool) -> tuple[tuple[Mistake, ...], Policy | None]:
    """One policy's own mistakes, or the policy. Unless `whole`, its parents are missing or at fault: then only what its
    own file shows is looked at."""
    name, *parents = lineage
    file = files[name]
    for parent in parents if whole else ():
        file = replace(file.over(files[parent]), mistakes=file.mistakes)
    checked = check(PolicyFile, file)
    mistakes = [*file.mistakes, *_broken(lineage, files), *checked.mistakes]
    if whole and checked.content is not None:
        sense = _RuleCheck(checked.content, file, extends=bool(parents))
        mistakes.extend(mistake for mistake in sense.mistakes() if not checked.touches(mistake.keys))
    if mistakes or not whole or checked.content is None:
        return tuple(mistakes), None
    return (), checked.content.policy(name, lambda keys: _line(file.value_place(keys)))


def _line(place: Place) -> str:
    return f"{place.file}:{place.line}"


def _broken(lineage: tuple[str, ...], files: Files) -> Iterator[Mistake]:
    """Blames the file whose own `extends` breaks the chain, or that is part of the circle."""
    name, last = lineage[0], lineage[-1]
    place = files[name].value_place(("extends",))
    if last and last not in files and len(lineage) == 2:
        advice = suggestion(last, files, f"there are {', '.join(files)}")
        yield Mistake(place, ("extends",), f"there is no policy '{last}'", advice)
    elif last == name and len(lineage) > 1:
        what = f"goes round in a circle: {' -> '.join(lineage)}"
        yield Mistake(place, ("extends",), what, "let one of them extend nothing")


@dataclass(frozen=True, slots=True)
class _RuleCheck:
    """Looks for what each value alone does not show. `file` has the parents under it."""

    content: PolicyFile
    file: YamlFile
    extends: bool

    def mistakes(self) -> Iterator[Mistake]:
        yield from self._texts()
        yield from self._stream()
        for category, direction in product(CATEGORIES, Direction):
            rules = self.content.rule_files(category, direction)
            keys = rule_keys(category, direction)
            if not rules:
                advice = "silence would mean allow; to allow, write [{at: 0, do: allow}]"
                yield from self._missing(keys, "has no rule", advice)
            yield from self._rewrites(rules, keys, direction)
            yield from self._unreachable(rules, keys)

    def _missing(self, keys: Keys, what: str, advice: str) -> Iterator[Mistake]:
        """What a parent has stated cannot be missing, but a child may have emptied it."""
        if not self.extends or keys in self.file.key_places:
            yield Mistake(self.file.key_place(keys), keys, what, advice)

    def _texts(self) -> Iterator[Mistake]:
        for language in ("zh", "en"):
            if not getattr(self.content.refusal, language).strip():
                advice = "write the sentence a caller gets instead"
                yield from self._missing(("refusal", language), "is missing", advice)

    def _rewrites(self, rules: list[RuleFile], keys: Keys, direction: Direction) -> Iterator[Mistake]:
        instruction = self.content.regenerate.instruction
        for n, rule in enumerate(rules):
            if "rewrite" not in rule.model_fields_set:
                continue
            if rule.do != "rewrite":
                yield self._at(
                    (*keys, n, "rewrite"), f"has no effect with `do: {rule.do}`", "remove it, or do: rewrite"
                )
            elif rule.rewrite == "regenerate" and direction is Direction.PROMPT:
                what = "regenerate is for answers: a prompt is the caller's own"
                yield self._at((*keys, n, "rewrite"), what, "choose mask or safe_message")
            elif rule.rewrite == "regenerate" and not (instruction.zh.strip() and instruction.en.strip()):
                what = "regenerate needs what to tell the model"
                yield self._at((*keys, n, "rewrite"), what, "write regenerate.instruction.zh and .en")

    def _unreachable(self, rules: list[RuleFile], keys: Keys) -> Iterator[Mistake]:
        for n, rule in enumerate(rules):
            twins = [m for m, other in enumerate(rules[:n]) if other.at == rule.at]
            if twins:
                line = self.file.value_place((*keys, twins[0])).line
                what = f"{rule.at} is used twice, first in line {line}"
                yield self._at((*keys, n, "at"), what, "remove one of the two rules")
            elif (winner := _winner(n, rules)) is not None:
                line = self.file.value_place((*keys, winner)).line
                what = f"this rule never decides: the rule in line {line} fires whenever it would, and does as much"
                yield self._at((*keys, n), what, "raise that threshold, or remove this rule")

    def _stream(self) -> Iterator[Mistake]:
        stream = self.content.stream
        ordered = (("first_window", "window"), ("window", "max_window"), ("idle_timeout", "timeout"))
        for low, high in ordered:
            if getattr(stream, low) > getattr(stream, high):
                name, other = (low, high) if self._own(("stream", low)) else (high, low)
                word = "more" if name == low else "less"
                what = f"{getattr(stream, name):g} is {word} than {other}, which is {getattr(stream, other):g}"
                yield self._at(("stream", name), what, "change one of them")

    def _own(self, keys: Keys) -> bool:
        """Whether this file states the value, and not a parent or the default."""
        return keys in self.file.value_places and self.file.value_place(keys).file == self.file.name

    def _at(self, keys: Keys, what: str, advice: str) -> Mistake:
        return Mistake(self.file.value_place(keys), keys, what, advice)


def _winner(n: int, rules: list[RuleFile]) -> int | None:
    """Which other rule fires at every score the n-th fires at, and is at least as severe. Of rules as severe as each
    other the first that is written decides."""
    for m, other in enumerate(rules):
        if m == n or not _covers(other, rules[n]):
            continue
        mine, theirs = Action[rules[n].do.upper()], Action[other.do.upper()]
        same = (other.do, other.rewrite) == (rules[n].do, rules[n].rewrite)
        if theirs > mine or (theirs == mine and (m < n or same)):
            return m
    return None


def _covers(one: RuleFile, other: RuleFile) -> bool:
    """Whether `one` fires wherever `other` does. A guard's own point and a plain score cannot be compared here, but for
    0, which always fires."""
    if one.at == 0:
        return True
    if isinstance(one.at, str) and isinstance(other.at, str):
        return POINTS.index(one.at) <= POINTS.index(other.at)
    return not isinstance(one.at, str) and not isinstance(other.at, str) and one.at <= other.at
