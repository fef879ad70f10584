"""How texts fit into a decoder's prefills: a passage is split into windows, and rows into batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from guard_runtime.errors import GuardFailed
from guard_runtime.generative.decoder import Decoder, Reading, Row
from guard_runtime.generative.prompt import Segment, words
from guard_runtime.generative.tokenizer import SafeTokenizer
from guard_runtime.guard import Passage
from guard_runtime.text.windows import Slice, Windows, windows
from guard_runtime.verdict import Unread, UnreadReason


@dataclass(frozen=True, slots=True)
class PrefillLimits:
    """`tokens` in one prefill, our own words included; neighbouring windows share `overlap` tokens; of more than
    `windows` the middle ones are reported as unread. A batch holds at most `rows` rows and `area` padded tokens.
    `cache_bytes` of keys and values are kept for streams. Below `health`, the probability that one of the labels
    comes next, the answer is written out and parsed.

    On a CPU a batch buys nothing (8 x 128 tokens cost 8 x), and int8 scales are taken over the whole batch, so that one
    caller's text would move another's score: hence one row.
    """

    tokens: int = 4_096
    overlap: int = 128
    windows: int = 8
    rows: int = 1
    area: int = 16_384
    cache_bytes: int = 268_435_456
    health: float = 0.95


LIMITS = PrefillLimits()


@dataclass(frozen=True, slots=True)
class WindowedPassage:
    """A passage in windows, [start, end) in characters; its question, cut to what fits;
    and what fits into no window."""

    passage: Passage
    context: str | None
    slices: tuple[Slice, ...]
    unread: tuple[Unread, ...] = ()

    @property
    def windows(self) -> tuple[Passage, ...]:
        passage = self.passage
        return tuple(replace(passage, text=passage.text[start:end], context=self.context) for start, end in self.slices)


def split_into_windows(
    passage: Passage, prompts: Sequence[Sequence[Segment]], tokenizer: SafeTokenizer, limits: PrefillLimits = LIMITS
) -> WindowedPassage:
    """Splits a passage into windows that fit the context length together with any of these prompts. Raises
    `GuardFailed` where a prompt leaves no room for text."""
    context = _fitting(passage.context, tokenizer, limits)
    spare = limits.tokens - max(_overhead(prompt, passage, context, tokenizer) for prompt in prompts)
    if spare < 2 * limits.overlap:
        raise GuardFailed(f"{limits.tokens - spare} tokens of prompt leave no room in {limits.tokens}")
    offsets = tokenizer.offsets(passage.text)
    tokens = _token_windows(len(offsets), spare, limits)
    if len(tokens.slices) == 1:
        return WindowedPassage(passage, context, ((0, len(passage.text)),))
    slices = tuple((offsets[start][0], offsets[end - 1][1]) for start, end in tokens.slices)
    if tokens.unread is None:
        return WindowedPassage(passage, context, slices)
    lost = offsets[tokens.unread[1] - 1][1] - offsets[tokens.unread[0]][0]
    return WindowedPassage(passage, context, slices, (Unread(passage.path, UnreadReason.TOO_LONG, lost),))


def _overhead(prompt: Sequence[Segment], passage: Passage, context: str | None, tokenizer: SafeTokenizer) -> int:
    """Tokens of the prompt without the text, and two that the borders may cost."""
    return len(tokenizer.tokens(prompt, words(Passage(passage.direction, "", context)))) + 2


def _fitting(context: str | None, tokenizer: SafeTokenizer, limits: PrefillLimits) -> str | None:
    """The question's end, in at most a fourth of the room: as a prompt, all of it has been judged already."""
    if context is None:
        return None
    offsets = tokenizer.offsets(context)
    room = limits.tokens // 4
    return context if len(offsets) <= room else context[offsets[-room][0] :]


def _token_windows(length: int, size: int, limits: PrefillLimits) -> Windows:
    """Windows that keep their places while a text grows, so that the keys of all but the last stay good; one for a text
    without a token."""
    stride = size - limits.overlap
    count = max(1, -(-(length - limits.overlap) // stride))
    if count > limits.windows:
        return windows(length, size=size, overlap=limits.overlap, limit=limits.windows)
    return Windows(tuple((n * stride, min(n * stride + size, length)) for n in range(count)))


def read_all(decoder: Decoder, rows: Sequence[Row], limits: PrefillLimits = LIMITS) -> list[Reading]:
    """Reads rows in batches of similar length, within the limits; the readings are in the order of the rows."""
    readings: dict[int, Reading] = {}
    for batch in _batches(rows, limits):
        readings.update(zip(batch, decoder.read([rows[place] for place in batch]), strict=True))
    return [readings[place] for place in range(len(rows))]


def _batches(rows: Sequence[Row], limits: PrefillLimits) -> Iterator[list[int]]:
    batch: list[int] = []
    for place in sorted(range(len(rows)), key=lambda n: len(rows[n].tokens)):
        area = (len(batch) + 1) * len(rows[place].tokens)
        if batch and (len(batch) == limits.rows or area > limits.area):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
