"""From rows to batches: text to tokens as the guard artefact says, rows of like length together."""

import random
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from guard_runtime.conversation import Source
from guard_runtime.guards.classifier import MAX_WINDOWS, OVERLAP
from guard_runtime.text.normalise import normalise
from guard_runtime.text.windows import Slice, windows
from training.data.rows import CATEGORIES, Row
from training.learning.frame import Frame, Ids
from training.recipe import Mix

START, PAD, END = 0, 1, 2
CHARACTERS_PER_TOKEN = 12
CONTEXT_SHARE = 0.4
SPOKEN_CHARACTERS = 8_000
HELD_SHARE, HELD_TOKENS = 0.7, 60
"""A window holds a span that has this share of its tokens, or this many."""


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
    """Token ids of each row: `<s> p </s>`, or `<s> p </s></s> r </s>`, each text behind its source's token where the
    tokenizer has any; long ones keep head and tail of each part."""
    frame = Frame.of(tokenizer)
    prompts = tokenizer.encode_batch([cleaned(row.prompt, max_tokens) for row in rows], add_special_tokens=False)
    answers = tokenizer.encode_batch([cleaned(row.response, max_tokens) for row in rows], add_special_tokens=False)
    return [
        _join(p.ids, a.ids if row.response else None, max_tokens, (frame.sources[Source.USER], frame.sources[row.kind]))
        for p, a, row in zip(prompts, answers, rows, strict=True)
    ]


def encode_windows(tokenizer: Tokenizer, rows: Sequence[Row], max_tokens: int) -> list[tuple[int, ...]]:
    """Token ids as `encode`, but of a long text one window as serving lays them, drawn by the row's id; of a row with a
    span, one that holds it. Safe and unsafe alike: when only safe texts were cut so, the guard learned that a text
    without a cut is safe (gptfuzz dev AUROC 0.92 to 0.85)."""
    frame = Frame.of(tokenizer)
    whole = encode(tokenizer, rows, max_tokens)
    for place, row in enumerate(rows):
        if len(whole[place]) == max_tokens:
            source = frame.sources[row.kind]
            if row.response:
                question = tokenizer.encode(normalise(row.prompt).text, add_special_tokens=False).ids
                kept = question[-(max_tokens // 3) :]
                context = (START, *frame.sources[Source.USER], *kept, END, END, *source)
            else:
                context = (START, *source)
            whole[place] = _window(context, _read(tokenizer, row), max_tokens, random.Random(row.id))
    return whole


@dataclass(frozen=True, slots=True)
class _Text:
    """The tokens of a long text, and the places of those that a row's span holds: all of them where it has none."""

    ids: Sequence[int]
    span: Slice


def _read(tokenizer: Tokenizer, row: Row) -> _Text:
    if row.span is None:
        ids = tokenizer.encode(normalise(row.spoken[:SPOKEN_CHARACTERS]).text, add_special_tokens=False).ids
        return _Text(ids, (0, len(ids)))
    start, end = row.span
    texts = (row.prompt[max(0, start - SPOKEN_CHARACTERS) : start], row.prompt[start:end], row.prompt[end:])
    pieces = [normalise(text[:SPOKEN_CHARACTERS]).text for text in texts]
    before, held, after = (tokenizer.encode(piece, add_special_tokens=False).ids for piece in pieces)
    return _Text([*before, *held, *after], (len(before), len(before) + len(held)))


def _window(context: tuple[int, ...], text: _Text, max_tokens: int, chance: random.Random) -> tuple[int, ...]:
    """One window over the text, behind what stands before it."""
    size = max_tokens - len(context) - 1
    laid = windows(len(text.ids), size=size, overlap=min(OVERLAP, size // 4), limit=MAX_WINDOWS).slices
    held = [min(end, text.span[1]) - max(start, text.span[0]) for start, end in laid]
    enough = min(HELD_SHARE * (text.span[1] - text.span[0]), *([HELD_TOKENS, max(held)] if held else []))
    start, end = chance.choice([slice_ for slice_, tokens in zip(laid, held, strict=True) if tokens >= enough])
    return (*context, *text.ids[start:end], END)


def _join(prompt: list[int], answer: list[int] | None, max_tokens: int, sources: tuple[Ids, Ids]) -> Ids:
    """`sources`: what stands before a question, and before the text itself."""
    asked, own = sources
    if answer is None:
        room = max_tokens - 2 - len(own)
        return (START, *own, *_ends(prompt, room), END)
    room = max_tokens - 4 - len(asked) - len(own)
    context = max(int(room * CONTEXT_SHARE), room - len(answer))
    kept = prompt[-context:] if prompt else []
    return (START, *asked, *kept, END, END, *own, *_ends(answer, room - len(kept)), END)


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
