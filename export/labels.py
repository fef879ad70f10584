"""Which of a checkpoint's labels mean harm, and of what kind: as its config.json says, or the operator's file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from guard_runtime.errors import ArtefactRefused
from guard_runtime.verdict import CATEGORIES, Category

LEAST = 1e-6
"""A share of nought, and of one, as a logit: 13.8 to either side."""

_C = Category
SAFE = frozenset(
    {"safe", "benign", "clean", "harmless", "legit", "neutral", "non-toxic", "none", "normal", "not-toxic", "ok"}
    | {"安全", "正常", "无害"}
)
UNSAFE: Mapping[str, tuple[Category, ...]] = MappingProxyType(
    {
        **{category.value.replace("_", "-"): (category,) for category in CATEGORIES},
        **dict.fromkeys(("unsafe", "harmful", "harm", "不安全", "有害"), CATEGORIES),
        **dict.fromkeys(("injection", "jailbreak", "prompt-injection"), (_C.PROMPT_ATTACK,)),
        **dict.fromkeys(
            ("hate", "hateful", "hate-speech", "insult", "obscene", "offensive"), (_C.HATE_SPEECH_AND_ABUSE,)
        ),
        **dict.fromkeys(("abusive", "severe-toxic", "toxic", "toxicity"), (_C.HATE_SPEECH_AND_ABUSE,)),
        **dict.fromkeys(("identity-attack", "identity-hate"), (_C.BIAS_AND_DISCRIMINATION, _C.HATE_SPEECH_AND_ABUSE)),
        **dict.fromkeys(("crime", "gambling", "porn", "sexual", "violence"), (_C.ILLEGAL_ACTIVITIES_AND_CRIME,)),
        **dict.fromkeys(("self-harm", "suicide"), (_C.PHYSICAL_AND_MENTAL_HEALTH,)),
        "threat": (_C.ILLEGAL_ACTIVITIES_AND_CRIME, _C.HATE_SPEECH_AND_ABUSE),
        "privacy": (_C.PRIVACY_AND_PROPERTY,),
    }
)
"""What published checkpoints call their outputs (Jigsaw's six, prompt-injection detectors, our own). A name that is
not here needs `--labels`: a guess would be a guard that allows the wrong things."""

_KEYS = frozenset({"kind", "answers", "safe", "unsafe"})
_KINDS = {"one_of": True, "any_of": False}
_ANSWERS = {"alone": False, "after_question": True}
_PROBLEMS = {"single_label_classification": True, "multi_label_classification": False}


@dataclass(frozen=True, slots=True)
class Labels:
    """`names`: the logits in order. `unsafe`: those that mean harm, with their categories; the others mean none.
    `exclusive`: one of them holds (softmax), else each for itself (sigmoid). `pair`: an answer is shown after its
    question, not alone."""

    names: tuple[str, ...]
    unsafe: Mapping[str, tuple[Category, ...]]
    exclusive: bool
    pair: bool = False

    def stored(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "unsafe": {name: [category.value for category in found] for name, found in self.unsafe.items()},
            "kind": "one_of" if self.exclusive else "any_of",
        }

    def harmful(self, category: Category | None = None) -> list[int]:
        """Places of the labels that mean harm, or harm of one category."""
        return [
            place
            for place, name in enumerate(self.names)
            if name in self.unsafe and (category is None or category in self.unsafe[name])
        ]


def labels_of(config: Any, file: Path | None) -> Labels:
    """A checkpoint's labels. Raises `ArtefactRefused` unless it is certain what each of them means."""
    names = tuple(str(config.id2label[place]) for place in sorted(config.id2label))
    if len(set(names)) != len(names):
        raise ArtefactRefused(f"labels {', '.join(names)}: two outputs have one name")
    said = {} if file is None else _file(file)
    exclusive = _KINDS[said["kind"]] if "kind" in said else _exclusive(config, len(names))
    unsafe = _known(names) if file is None else _told(names, said, file)
    if not unsafe or (exclusive and len(unsafe) == len(names)):
        raise ArtefactRefused(f"labels {', '.join(names)}: at least one must mean harm, and of a choice one no harm")
    return Labels(names, MappingProxyType(unsafe), exclusive, _ANSWERS[said.get("answers", "alone")])


def _exclusive(config: Any, count: int) -> bool:
    """As transformers' text-classification pipeline reads it: softmax over several labels unless told otherwise."""
    problem = getattr(config, "problem_type", None)
    if problem is None:
        return count > 1
    if problem not in _PROBLEMS:
        raise ArtefactRefused(f"config.json: problem_type {problem} gives no probabilities")
    return _PROBLEMS[problem] and count > 1


def _known(names: Sequence[str]) -> dict[str, tuple[Category, ...]]:
    plain = {name: name.strip().lower().replace("_", "-").replace(" ", "-") for name in names}
    strange = [name for name in names if plain[name] not in SAFE and plain[name] not in UNSAFE]
    if strange:
        raise ArtefactRefused(
            f"labels {', '.join(strange)}: what they mean is not known here: say it with --labels FILE.yaml "
            "(safe: [...], unsafe: {label: [categories]}, reference/export.md)"
        )
    return {name: UNSAFE[plain[name]] for name in names if plain[name] in UNSAFE}


def _told(names: Sequence[str], said: Mapping[str, Any], file: Path) -> dict[str, tuple[Category, ...]]:
    safe, unsafe = said.get("safe", []), said.get("unsafe", {})
    if not isinstance(safe, list) or not isinstance(unsafe, dict):
        raise ArtefactRefused(f"{file}: safe is a list of labels, unsafe maps labels to lists of categories")
    named = [*map(str, safe), *map(str, unsafe)]
    if sorted(named) != sorted(names):
        raise ArtefactRefused(f"{file}: names {', '.join(named)}; the checkpoint's labels are {', '.join(names)}")
    return {str(name): _categories(found, file) for name, found in unsafe.items()}


def _categories(found: object, file: Path) -> tuple[Category, ...]:
    """[] is harm of a kind that nobody says: it counts for all."""
    if not isinstance(found, list) or any(category not in tuple(CATEGORIES) for category in found):
        raise ArtefactRefused(f"{file}: {found} is no list of categories; they are {', '.join(CATEGORIES)}")
    return tuple(map(Category, found)) or CATEGORIES


def _file(file: Path) -> dict[str, Any]:
    try:
        said = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as exc:
        raise ArtefactRefused(f"{file}: {exc}") from exc
    if not isinstance(said, dict) or not set(said) <= _KEYS:
        raise ArtefactRefused(f"{file}: must be a mapping with {', '.join(sorted(_KEYS))}")
    for key, allowed in (("kind", _KINDS), ("answers", _ANSWERS)):
        if said.get(key, next(iter(allowed))) not in allowed:
            raise ArtefactRefused(f"{file}: {key} is one of {', '.join(allowed)}")
    return said


class VerdictHead(nn.Module):
    """A checkpoint's logits [B, labels] -> ours, float32 [B, 1 + categories], as reference/artefact.md reads them: the
    sigmoid of the first is P(harm), the others' sigmoids stand to each other as the categories' parts in it."""

    def __init__(self, labels: Labels) -> None:
        super().__init__()
        self._labels = labels
        self._harmless = [place for place, name in enumerate(labels.names) if name not in labels.unsafe]

    def forward(self, logits: Tensor) -> Tensor:
        wide = logits.float()
        if not self._labels.exclusive:
            return torch.stack([_highest(wide, places) for places in self._places()], 1)
        harm = torch.logsumexp(wide[:, self._labels.harmful()], 1)
        unsafe = harm - torch.logsumexp(wide[:, self._harmless], 1)
        parts = [_share(wide, places, harm) for places in self._places()[1:]]
        return torch.stack([unsafe, *parts], 1)

    def _places(self) -> list[list[int]]:
        return [self._labels.harmful(category) for category in (None, *CATEGORIES)]


def _highest(logits: Tensor, places: Iterable[int]) -> Tensor:
    chosen = [logits[:, place] for place in places]
    return torch.stack(chosen, 1).amax(1) if chosen else torch.logit(torch.full_like(logits[:, 0], LEAST))


def _share(logits: Tensor, places: list[int], harm: Tensor) -> Tensor:
    if not places:
        return torch.logit(torch.full_like(harm, LEAST))
    part = torch.exp(torch.logsumexp(logits[:, places], 1) - harm)
    kept = part.clamp(LEAST, 1 - LEAST)
    return torch.log(kept) - torch.log(1 - kept)
