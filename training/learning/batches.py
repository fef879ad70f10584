"""From rows to batches: text to tokens as the guard artefact says, rows of like length together."""

import random
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from guard_runtime.guards.classifier import MAX_WINDOWS, OVERLAP
from guard_runtime.text.normalise import normalise
from guard_runtime.text.windows import windows
from training.data.rows import CATEGORIES, Row
from training.recipe import Mix

START, PAD, END = 0, 1, 2
CHARACTERS_PER_TOKEN = 12
CONTEXT_SHARE = 0.4
SPOKEN_CHARACTERS = 8_000


@dataclass(frozen=True, slots=True)
class Example:
    """A row as the model sees it. `targets` is `unsafe`, then eight categories, which `knows_categories` masks."""

    tokens: tuple[int, ...]
    targets: tuple[float, ...]
    knows_categories: bool
    weight: float
    index: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of one pass: tokens and mask [rows, tokens], targets [rows, 9], the rest [rows]."""

    input_ids: Tensor
    attention_mask: Tensor
    targets: Tensor
    knows_categories: Tensor
    weights: Tensor
    indices: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        return Batch(*(getattr(self, name).to(device) for name in self.__slots__))


def cleaned(text: str, max_tokens: int) -> str:
    """NFKC of as much text as `max_tokens` could ever hold: head and tail, for NFKC of endless text is slow."""
    limit = max_tokens * CHARACTERS_PER_TOKEN
    if len(text) > 2 * limit:
        text = text[:limit] + text[-limit:]
    return unicodedata.normalize("NFKC", text)


def encode(tokenizer: Tokenizer, rows: Sequence[Row], max_tokens: int) -> list[tuple[int, ...]]:
    """Token ids of each row: `<s> p </s>`, or `<s> p </s></s> r </s>`; long ones keep head and tail of each part."""
    prompts = tokenizer.encode_batch([cleaned(row.prompt, max_tokens) for row in rows], add_special_tokens=False)
    answers = tokenizer.encode_batch([cleaned(row.response, max_tokens) for row in rows], add_special_tokens=False)
    return [
        _join(p.ids, a.ids if row.response else None, max_tokens)
        for p, a, row in zip(prompts, answers, rows, strict=True)
    ]


def encode_windows(tokenizer: Tokenizer, rows: Sequence[Row], max_tokens: int) -> list[tuple[int, ...]]:
    """Token ids as `encode`, but of a long text one window as serving lays them, drawn by the row's id. Safe and unsafe
    alike: when only safe texts were cut so, the guard learned that a text without a cut is safe (gptfuzz dev AUROC
    0.92 to 0.85)."""
    whole = encode(tokenizer, rows, max_tokens)
    for place, row in enumerate(rows):
        spoken = row.response or row.prompt
        if len(whole[place]) == max_tokens:
            ids = tokenizer.encode(normalise(spoken[:SPOKEN_CHARACTERS]).text, add_special_tokens=False).ids
            question = (
                tokenizer.encode(normalise(row.prompt).text, add_special_tokens=False).ids if row.response else []
            )
            whole[place] = _window(question, ids, max_tokens, random.Random(row.id))
    return whole


def _window(question: list[int], ids: list[int], max_tokens: int, chance: random.Random) -> tuple[int, ...]:
    """One window over `ids`, behind the end of the question it answers where there is one."""
    context = (START, *question[-(max_tokens // 3) :], END, END) if question else (START,)
    size = max_tokens - len(context) - 1
    laid = windows(len(ids), size=size, overlap=min(OVERLAP, size // 4), limit=MAX_WINDOWS)
    start, end = chance.choice(laid.slices)
    return (*context, *ids[start:end], END)


def _join(prompt: list[int], answer: list[int] | None, max_tokens: int) -> tuple[int, ...]:
    if answer is None:
        room = max_tokens - 2
        return (START, *_ends(prompt, room), END)
    room = max_tokens - 4
    context = max(int(room * CONTEXT_SHARE), room - len(answer))
    kept = prompt[-context:] if prompt else []
    return (START, *kept, END, END, *_ends(answer, room - len(kept)), END)


def _ends(tokens: list[int], room: int) -> list[int]:
    """All tokens where they fit; otherwise the first two thirds of the room and the last third."""
    if len(tokens) <= room:
        return tokens
    tail = room // 3
    return tokens[: room - tail] + tokens[-tail:]


def examples(tokenizer: Tokenizer, rows: Sequence[Row], max_tokens: int, mix: Mix) -> list[Example]:
    """Rows as examples, in the same order, `index` counting them."""
    read = encode_windows if mix.windows else encode
    return [
        Example(
            tokens=tokens,
            targets=(float(row.unsafe), *(float(c in row.categories) for c in CATEGORIES)),
            knows_categories=row.unsafe and bool(row.categories),
            weight=row.weight * mix.weights.get(row.source, 1.0) * (mix.weak if row.quality == "weak" else 1.0),
            index=index,
        )
        for index, (row, tokens) in enumerate(zip(rows, read(tokenizer, rows, max_tokens), strict=True))
    ]


def sampled(rows: Iterable[Row], mix: Mix, seed: int) -> list[Row]:
    """At most `cap` rows of each source, language, direction and label, drawn by `seed`, in the file's order."""
    groups: dict[tuple[str, str, str, bool], list[tuple[int, Row]]] = {}
    for place, row in enumerate(rows):
        groups.setdefault((row.source, row.lang, row.direction, row.unsafe), []).append((place, row))
    kept: list[tuple[int, Row]] = []
    for key in sorted(groups):
        cap = mix.caps.get(key[0], mix.cap)
        drawn = groups[key]
        kept += drawn if len(drawn) <= cap else random.Random(f"{seed} {key}").sample(drawn, cap)
    return [row for _, row in sorted(kept, key=lambda pair: pair[0])]


def steps(found: Sequence[Example], rows_per_step: int, tokens_per_pass: int, seed: int) -> list[list[list[Example]]]:
    """One epoch in the order of `seed`: each step's rows drawn at random, cut into passes of like length."""
    order = list(found)
    random.Random(seed).shuffle(order)
    groups = [order[start : start + rows_per_step] for start in range(0, len(order), rows_per_step)]
    return [list(passes(group, tokens_per_pass)) for group in groups]


def passes(group: Iterable[Example], tokens_per_pass: int) -> Iterator[list[Example]]:
    """Examples by length, cut so that no padded batch exceeds `tokens_per_pass` (one row may alone)."""
    current: list[Example] = []
    for example in sorted(group, key=lambda e: (len(e.tokens), e.index)):
        if current and len(example.tokens) * (len(current) + 1) > tokens_per_pass:
            yield current
            current = []
        current.append(example)
    if current:
        yield current


def collate(group: Sequence[Example]) -> Batch:
    """Right-padded tensors of a pass."""
    width = max(len(example.tokens) for example in group)
    ids = torch.full((len(group), width), PAD)
    mask = torch.zeros((len(group), width), dtype=torch.long)
    for row, example in enumerate(group):
        ids[row, : len(example.tokens)] = torch.tensor(example.tokens)
        mask[row, : len(example.tokens)] = 1
    return Batch(
        ids,
        mask,
        torch.tensor([example.targets for example in group]),
        torch.tensor([float(example.knows_categories) for example in group]),
        torch.tensor([example.weight for example in group]),
        torch.tensor([example.index for example in group]),
    )
