"""How texts fit into a decoder's prefills: a passage in windows, and rows in batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from guard_runtime.errors import GuardFailed
from guard_runtime.generative.decoder import Decoder, Reading, Row
from guard_runtime.generative.prompt import Segment, words
from guard_runtime.generative.tokenizer import Vocabulary
from guard_runtime.guard import Passage
from guard_runtime.text.windows import Slice, Windows, windows
from guard_runtime.verdict import Unread, UnreadReason


@dataclass(frozen=True, slots=True)
class Limits:
    """`tokens` in one prefill, our own words included; neighbouring windows share `overlap` tokens; of more than
    `windows` the middle ones are reported as unread. A batch holds at most `rows` rows and `area` padded tokens.
    `memory` bytes of keys and values are kept for streams. Below `health`, the probability that one of the labels
    comes next, the answer is written out and parsed.

    On a CPU a batch buys nothing (8 x 128 tokens cost 8 x), and int8 scales are taken over the whole batch, so that one
    caller's text would move another's score: hence one row.
    """

    tokens: int = 4_096
    overlap: int = 128
    windows: int = 8
    rows: int = 1
    area: int = 16_384
    memory: int = 268_435_456
    health: float = 0.95


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Laid:
    """A passage in windows, [start, end) in characters; its question, cut to what fits; and what no window holds."""

    passage: Passage
    context: str | None
    slices: tuple[Slice, ...]
    unread: tuple[Unread, ...] = ()

    @property
    def windows(self) -> tuple[Passage, ...]:
        passage = self.passage
        return tuple(replace(passage, text=passage.text[start:end], context=self.context) for start, end in self.slices)


def laid_out(
    passage: Passage, prompts: Sequence[Sequence[Segment]], vocabulary: Vocabulary, limits: Limits = LIMITS
) -> Laid:
    """A passage in windows each of which fits into any of these prompts. Raises `GuardFailed` where a prompt leaves no
    room for text."""
    context = _fitting(passage.context, vocabulary, limits)
    spare = limits.tokens - max(_overhead(prompt, passage, context, vocabulary) for prompt in prompts)
    if spare < 2 * limits.overlap:
        raise GuardFailed(f"{limits.tokens - spare} tokens of prompt leave no room in {limits.tokens}")
    offsets = vocabulary.offsets(passage.text)
    laid = _laid(len(offsets), spare, limits)
    if len(laid.slices) == 1:
        return Laid(passage, context, ((0, len(passage.text)),))
    slices = tuple((offsets[start][0], offsets[end - 1][1]) for start, end in laid.slices)
    if laid.unread is None:
        return Laid(passage, context, slices)
    lost = offsets[laid.unread[1] - 1][1] - offsets[laid.unread[0]][0]
    return Laid(passage, context, slices, (Unread(passage.path, UnreadReason.TOO_LONG, lost),))


def _overhead(prompt: Sequence[Segment], passage: Passage, context: str | None, vocabulary: Vocabulary) -> int:
    """Tokens of the prompt without the text, and two that the borders may cost."""
    return len(vocabulary.tokens(prompt, words(Passage(passage.direction, "", context)))) + 2


def _fitting(context: str | None, vocabulary: Vocabulary, limits: Limits) -> str | None:
    """The question's end, in at most a fourth of the room: as a prompt, all of it has been judged already."""
    if context is None:
        return None
    offsets = vocabulary.offsets(context)
    room = limits.tokens // 4
    return context if len(offsets) <= room else context[offsets[-room][0] :]


def _laid(length: int, size: int, limits: Limits) -> Windows:
    """Windows that keep their places while a text grows, so that the keys of all but the last stay good; one for a text
    without a token."""
    stride = size - limits.overlap
    count = max(1, -(-(length - limits.overlap) // stride))
    if count > limits.windows:
        return windows(length, size=size, overlap=limits.overlap, limit=limits.windows)
    return Windows(tuple((n * stride, min(n * stride + size, length)) for n in range(count)))


def read_all(decoder: Decoder, rows: Sequence[Row], limits: Limits = LIMITS) -> list[Reading]:
    """Rows of like length together, within the limits of a batch; answers in the order asked."""
    found: dict[int, Reading] = {}
    for batch in _batches(rows, limits):
        found.update(zip(batch, decoder.read([rows[place] for place in batch]), strict=True))
    return [found[place] for place in range(len(rows))]


def _batches(rows: Sequence[Row], limits: Limits) -> Iterator[list[int]]:
    batch: list[int] = []
    for place in sorted(range(len(rows)), key=lambda n: len(rows[n].tokens)):
        area = (len(batch) + 1) * len(rows[place].tokens)
        if batch and (len(batch) == limits.rows or area > limits.area):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
