"""An encoder with one output per label: the embedded guard, and any other artefact of its family."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Regex, Tokenizer
from tokenizers.normalizers import Replace
from tokenizers.normalizers import Sequence as Sequences

from guard_runtime.artefacts.artefact import Artefact, self_test
from guard_runtime.artefacts.manifest import Calibration, Manifest
from guard_runtime.conversation import Direction, Source
from guard_runtime.errors import ArtefactRefused, GuardFailed, InvalidVerdict
from guard_runtime.guard import OperatingPoints, Passage
from guard_runtime.onnx.devices import ON_CPU, Device, Placement
from guard_runtime.onnx.session import Logits, Session
from guard_runtime.onnx.tensorrt import Profile, classifier_profile, refuse_unsuited
from guard_runtime.text.encodings import decoded_runs
from guard_runtime.text.language import language_of
from guard_runtime.text.normalise import VERSION, compatible, normalise
from guard_runtime.text.windows import Slice, windows
from guard_runtime.verdict import CATEGORIES, Coverage, Unread, UnreadReason, Verdict

FAMILY = "classifier"

CONTEXT_TOKENS = 96
"""Of a question, the tokens at its end that stand before each window of the answer."""

CONTEXT_CHARACTERS = 1_536
OVERLAP = 48
"""Tokens that neighbouring windows share, at most a quarter of a window."""

MAX_WINDOWS = 64
MAX_UNKNOWN_SHARE = 0.3
MIN_UNKNOWN = 16
"""Fewer letters than these cannot make a text unreadable."""

SAME_LENGTH = 1.1
"""Rows go in one batch when the longest is at most this much longer than the shortest: padding is work for nothing."""

_CONTROLS = frozenset({"<s>", "</s>", "<pad>", "<unk>", "<mask>"})

REMEMBERED = 64
"""Short texts whose tokens are kept."""

WARM_UP = (16, 128)

Ids = tuple[int, ...]

_FRAME: Mapping[str, Any] = MappingProxyType(
    {"start": ["<s>"], "between": ["</s>", "</s>"], "end": ["</s>"], "padding": "<pad>", "unknown": "<unk>"}
)


@dataclass(frozen=True, slots=True)
class _Row:
    """One input of the model, and the passage it belongs to."""

    passage: int
    ids: Ids
    calibration: Calibration


@dataclass(frozen=True, slots=True)
class _Specials:
    """The ids this guard's input is built with. `between`: what stands between a question and its answer, () where an
    answer is read alone. `unknown`: -1 for a tokenizer that knows every character. `sources`: what stands before a
    text of each source, () where the guard's frame does not tell them apart."""

    start: Ids
    between: Ids
    end: Ids
    padding: int
    unknown: int
    sources: Mapping[Source, Ids]

    @classmethod
    def of(cls, tokenizer: Tokenizer, manifest: Manifest) -> "_Specials":
        """As the manifest says; without its section as libra-mini's, whose tokenizer has no words but its own."""
        encoder = manifest.encoder
        if encoder is None:
            plain = [token.content for token in tokenizer.get_added_tokens_decoder().values() if not token.special]
            if plain:
                raise ArtefactRefused(f"tokenizer.json adds words that are not special: {', '.join(plain)}")
            encoder = _FRAME
        try:
            parts = [list(encoder[part]) for part in ("start", "between", "end")]
            rare = [encoder["padding"], *([] if encoder["unknown"] is None else [encoder["unknown"]])]
            used = dict.fromkeys((*parts[0], *parts[1], *parts[2], *rare))
            found = ((token, tokenizer.token_to_id(token)) for token in used)
            ids = {token: number for token, number in found if number is not None}
        except (KeyError, TypeError) as exc:
            raise ArtefactRefused(f"the manifest's encoder section cannot be read: {exc!r}") from exc
        if len(ids) < len(used):
            raise ArtefactRefused(f"tokenizer.json lacks one of {', '.join(used)}")
        start, between, end = (tuple(ids[token] for token in part) for part in parts)
        sources = _source_ids(tokenizer, manifest.frame)
        return cls(start, between, end, ids[rare[0]], ids[rare[1]] if len(rare) > 1 else -1, sources)


def _source_ids(tokenizer: Tokenizer, frame: Mapping[Source, str] | None) -> Mapping[Source, Ids]:
    """Of special tokens alone: an ordinary one could be written in a text."""
    if frame is None:
        return dict.fromkeys(Source, ())
    special = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    lacking = sorted(set(frame.values()) - set(special))
    if lacking:
        raise ArtefactRefused(f"tokenizer.json has no special token {', '.join(lacking)}, which the frame names")
    return {source: (special[token],) for source, token in frame.items()}


class Classifier:
    """A `Model`: every passage is read as it came, normalised, and with hidden text decoded; the worst reading counts.

    `max_rows` inputs of like length go through the model together. On a CPU that buys nothing, and int8 scales are
    taken over the whole batch, so one caller's text would move another's score: hence 1. Raises `ArtefactRefused` when
    the artefact does not score its golden rows as it should, or did not agree with the checkpoint it was exported from
    and `unverified` does not allow it. `tested` is for export, which has yet to measure both.
    """

    def __init__(
        self,
        artefact: Artefact,
        *,
        place: Placement = ON_CPU,
        max_rows: int = 1,
        unverified: bool = False,
        tested: bool = True,
    ) -> None:
        self.manifest: Manifest = artefact.manifest
        if self.manifest.family != FAMILY:
            raise ArtefactRefused(f"{self.manifest.name}: family {self.manifest.family} is not a {FAMILY}")
        if tested and not unverified:
            _refuse_unverified(self.manifest)
        self.name = self.manifest.name
        self.version = f"{self.manifest.version}+{artefact.digest[:8]}.n{VERSION}"
        self.operating_points: OperatingPoints = self.manifest.operating_points
        self._max_rows = max_rows
        self._tokenizer = _tokenizer(artefact.tokenizer)
        self._remembered = lru_cache(REMEMBERED)(self._encode)
        self._specials = _Specials.of(self._tokenizer, self.manifest)
        longest = self.manifest.max_tokens
        self._session = Session(artefact.model, place, profile=self._profile(place), longest=longest)
        if self._session.device is Device.CPU and not place.on_cpu:
            self._max_rows = 1  # a GPU was asked for, and less had to do
        self._session.warm_up([min(length, self.manifest.max_tokens) for length in WARM_UP])
        self.golden_difference = self_test(self.manifest, self) if tested else 0.0

    def predict(self, batch: Sequence[Passage]) -> Sequence[Verdict]:
        """Raises `GuardFailed` when the model fails, `InvalidVerdict` when what it says is no probability."""
        read = [self._read(number, passage) for number, passage in enumerate(batch)]
        scores = np.zeros((len(batch), len(CATEGORIES)))
        for together in self._micro_batches(row for rows, _ in read for row in rows):
            for row, score in zip(together, self._scores(together), strict=True):
                np.maximum(scores[row.passage], score, out=scores[row.passage])
        return [
            Verdict(self.name, dict(zip(CATEGORIES, map(float, scores[number]), strict=True)), (), coverage)
            for number, (_, coverage) in enumerate(read)
        ]

    def _profile(self, place: Placement) -> Profile | None:
        if Device.TENSORRT not in place.devices:
            return None
        refuse_unsuited(self.name, self.manifest.precision, self.manifest.opset)
        return classifier_profile(self._max_rows, self.manifest.max_tokens)

    def _read(self, number: int, passage: Passage) -> tuple[list[_Row], Coverage]:
        found = readings(passage.text)
        calibration = self.manifest.calibration[passage.direction][language_of(found[0])]
        context = self._context(passage)
        rows: dict[Ids, None] = {}
        unread: list[Unread] = []
        for reading in found:
            encoding = self._tokens(reading)
            gap = self._lay_windows(encoding.ids, context, rows)
            if reading is found[0]:
                unread += self._unread(passage, reading, encoding, gap)
        coverage = Coverage(1, len(passage.text), len(rows), sum(map(len, rows)), 0, tuple(unread))
        return [_Row(number, ids, calibration) for ids in rows], coverage

    def _tokens(self, text: str) -> Encoding:
        """A question is read once as the prompt, and again before each window of its answer."""
        return self._remembered(text) if len(text) <= CONTEXT_CHARACTERS else self._encode(text)

    def _encode(self, text: str) -> Encoding:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _context(self, passage: Passage) -> Ids:
        """What stands before the text: for an answer the end of the question too, where the guard reads both."""
        specials = self._specials
        source = specials.sources[passage.source]
        if passage.direction is Direction.PROMPT or not specials.between:
            return (*specials.start, *source)
        question = normalise((passage.context or "")[-CONTEXT_CHARACTERS:]).text
        ids = self._tokens(question).ids[-context_tokens(self.manifest.max_tokens) :]
        return (*specials.start, *specials.sources[Source.USER], *ids, *specials.between, *source)

    def _lay_windows(self, ids: Sequence[int], context: Ids, rows: dict[Ids, None]) -> Slice | None:
        """Adds the windows over these tokens to `rows`; returns the tokens that none of them holds."""
        size = self.manifest.max_tokens - len(context) - len(self._specials.end)
        laid = windows(len(ids), size=size, overlap=min(OVERLAP, size // 4), limit=MAX_WINDOWS)
        for start, end in laid.slices or ((0, 0),):
            rows[(*context, *ids[start:end], *self._specials.end)] = None
        return laid.unread

    def _unread(self, passage: Passage, text: str, encoding: Encoding, gap: Slice | None) -> Iterator[Unread]:
        if gap is not None:
            places = encoding.offsets
            yield Unread(passage.path, UnreadReason.TOO_LONG, places[gap[1]][0] - places[gap[0]][0])
        unknown = self._unknown_letters(text, encoding)
        if unknown >= MIN_UNKNOWN and unknown > MAX_UNKNOWN_SHARE * sum(map(str.isalpha, text)):
            yield Unread(passage.path, UnreadReason.UNKNOWN_TOKENS, unknown)

    def _unknown_letters(self, text: str, encoding: Encoding) -> int:
        """Letters that the tokenizer does not know. Characters are counted, not tokens: it folds a run of any length
        into one unknown token (docs/faults.md, L). Emoji and signs are no letters."""
        if self._specials.unknown not in encoding.ids:
            return 0
        places = zip(encoding.ids, encoding.offsets, strict=True)
        return sum(sum(map(str.isalpha, text[a:b])) for token, (a, b) in places if token == self._specials.unknown)

    def _micro_batches(self, rows: Iterable[_Row]) -> Iterator[list[_Row]]:
        batch: list[_Row] = []
        for row in sorted(rows, key=lambda row: len(row.ids)):
            if batch and (len(batch) == self._max_rows or len(row.ids) > SAME_LENGTH * len(batch[0].ids)):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _scores(self, rows: Sequence[_Row]) -> npt.NDArray[np.float64]:
        """Scores [rows, categories]."""
        longest = max(len(row.ids) for row in rows)
        ids = np.full((len(rows), longest), self._specials.padding, dtype=np.int64)
        mask = np.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row.ids)] = row.ids
            mask[number, : len(row.ids)] = 1
        logits = self._session.run(ids, mask)
        if logits.shape != (len(rows), 1 + len(CATEGORIES)):
            raise GuardFailed(f"{self.name}: logits of shape {logits.shape} for {len(rows)} rows")
        if not np.isfinite(logits).all():
            raise InvalidVerdict(f"{self.name}: the model's output is not finite")
        return scores_of(logits, [row.calibration for row in rows])


def context_tokens(longest: int) -> int:
    """Tokens of a question that a guard which takes inputs of `longest` tokens reads before its answer."""
    return min(CONTEXT_TOKENS, longest // 3)


def readings(text: str) -> tuple[str, ...]:
    """The text normalised, as it came, and what it hides. Different texts only; the normalised one first."""
    normal = normalise(text).text
    hidden = (*decoded_runs(text), *(decoded_runs(normal) if normal != text else ()))
    return tuple(dict.fromkeys((normal, compatible(text), *(normalise(found).text for found in hidden))))


def _tokenizer(content: bytes) -> Tokenizer:
    """The tokenizer in this file, reading control tokens in a text as text (docs/faults.md, M)."""
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as exc:  # `tokenizers` raises bare Exception for a malformed file
        raise ArtefactRefused(f"tokenizer.json cannot be read: {exc}") from exc
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    # A Unigram vocabulary holds its control tokens as ordinary pieces too, so in a text they are cut in two.
    tokens = _CONTROLS | {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    spelt = [Replace(Regex(_spelt(first, tokens)), f"{first} ") for first in sorted({token[0] for token in tokens})]
    tokenizer.normalizer = Sequences([*([] if tokenizer.normalizer is None else [tokenizer.normalizer]), *spelt])
    return tokenizer


def _spelt(first: str, tokens: Iterable[str]) -> str:
    """A control token's first character, where the rest of one follows."""
    rests = sorted(_escaped(token[1:]) for token in tokens if token[0] == first and len(token) > 1)
    return f"{_escaped(first)}(?={'|'.join(rests)})"


def _escaped(text: str) -> str:
    """`re.escape` would escape characters that this regex dialect (Oniguruma) reads otherwise."""
    return re.sub(r"[^\w\s]", lambda found: f"\\{found[0]}", text)


def _refuse_unverified(manifest: Manifest) -> None:
    if manifest.encoder is not None and manifest.encoder.get("verified") is not True:
        raise ArtefactRefused(
            f"{manifest.name}: the {manifest.precision} graph does not agree with its checkpoint "
            f"({manifest.encoder.get('parity')}): export it in a higher precision, or allow it by name with "
            "`unverified: true`"
        )


def scores_of(logits: Logits, calibrations: Sequence[Calibration]) -> npt.NDArray[np.float64]:
    """Logits [rows, unsafe + categories] -> scores [rows, categories]: `p * p_c / max(p_1..p_8)` (docs/artefact.md)."""
    wide = logits.astype(np.float64)
    bias = np.array([calibration.bias for calibration in calibrations])
    temperature = np.array([calibration.temperature for calibration in calibrations])
    unsafe = np.exp(_log_sigmoid((wide[:, 0] - bias) / temperature))
    shares = _log_sigmoid(wide[:, 1:])
    scores: npt.NDArray[np.float64] = unsafe[:, None] * np.exp(shares - shares.max(axis=1, keepdims=True))
    return scores


def _log_sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """log(1 / (1 + exp(-x))), for any finite x."""
    result: npt.NDArray[np.float64] = -np.logaddexp(0, -x)
    return result
