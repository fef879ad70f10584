"""An encoder with one output per label: the embedded guard, and any other artefact of its family."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from guard_runtime.artefacts.artefact import Artefact, self_test
from guard_runtime.artefacts.manifest import Calibration, Manifest
from guard_runtime.conversation import Direction, Source
from guard_runtime.errors import ArtefactRefused, GuardFailed, InvalidVerdict
from guard_runtime.guard import OperatingPoints, Passage
from guard_runtime.guards.first_stage import FirstStage
from guard_runtime.guards.first_stage import read as read_first_stage
from guard_runtime.guards.plain_tokenizer import plain_tokenizer
from guard_runtime.onnx.devices import ON_CPU, Device, Placement
from guard_runtime.onnx.session import Logits, Session
from guard_runtime.onnx.tensorrt import Profile, classifier_profile, refuse_unsuited
from guard_runtime.text.encodings import decoded_runs
from guard_runtime.text.language import Language, language_of
from guard_runtime.text.normalise import VERSION, Normalised, compatible, normalise
from guard_runtime.text.windows import Slice, Windows, windows
from guard_runtime.verdict import CATEGORIES, Category, Coverage, Place, SourceScores, Unread, UnreadReason, Verdict

FAMILY = "classifier"

CONTEXT_TOKENS = 96
"""Of a question, the tokens at its end that stand before each window of the answer."""

CONTEXT_CHARACTERS = 1_536
OVERLAP = 48
"""Tokens that neighbouring windows share, at most a quarter of a window."""
OWN_OVERLAP = 16
"""The same for text that the tenant wrote itself: nobody cuts a request in two there."""
_OWN = frozenset({Source.SYSTEM, Source.TOOL_DEFINITION})

MAX_WINDOWS = 64
MAX_UNKNOWN_SHARE = 0.3
MIN_UNKNOWN = 16
"""Fewer letters than these cannot make a text unreadable."""

SAME_LENGTH = 1.1
"""Rows go in one batch when the longest is at most this much longer than the shortest: padding is work for nothing."""

REMEMBERED = 64
"""Short texts whose tokens are kept."""

WARM_UP = (16, 128)

Ids = tuple[int, ...]

_FRAME: Mapping[str, Any] = MappingProxyType(
    {"start": ["<s>"], "between": ["</s>", "</s>"], "end": ["</s>"], "padding": "<pad>", "unknown": "<unk>"}
)


@dataclass(frozen=True, slots=True)
class _Row:
    """One input of the model, the passage it belongs to, and the characters of the passage that it was made from."""

    passage: int
    ids: Ids
    place: Slice
    calibration: Calibration


@dataclass(frozen=True, slots=True)
class _PassageRows:
    """The inputs that a passage is read in. `windows` of them hold its text, normalised, each different one once; the
    others are other readings of it."""

    rows: tuple[_Row, ...]
    windows: int
    coverage: Coverage


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
            numbers = ((token, tokenizer.token_to_id(token)) for token in used)
            ids = {token: number for token, number in numbers if number is not None}
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


@dataclass(frozen=True, slots=True)
class ClassifierOptions:
    """`max_rows`: inputs of like length that go through the model together. `threads`: how many such batches of one
    passage are in the model at the same time, on a CPU. `first_stage`: whether the artefact's first stage, where it has
    one, clears the plainly harmless. `unverified`: whether a graph may run that does not agree with its checkpoint."""

    max_rows: int = 1
    threads: int = 1
    first_stage: bool = True
    unverified: bool = False


DEFAULT_OPTIONS = ClassifierOptions()


class Classifier:
    """A `Model`: every passage is read as it came, normalised, and with hidden text decoded; the worst reading counts.

    On a CPU larger batches buy nothing, and int8 scales are taken over the whole batch, so one caller's text would move
    another's score: hence `max_rows` is 1 there. Raises `ArtefactRefused` when
    the artefact does not score its golden rows as it should, or did not agree with the checkpoint it was exported from
    and `unverified` does not allow it. `tested` is for export, which has yet to measure both.
    """

    def __init__(
        self,
        artefact: Artefact,
        *,
        place: Placement = ON_CPU,
        options: ClassifierOptions = DEFAULT_OPTIONS,
        tested: bool = True,
    ) -> None:
        self.manifest: Manifest = artefact.manifest
        if self.manifest.family != FAMILY:
            raise ArtefactRefused(f"{self.manifest.name}: family {self.manifest.family} is not a {FAMILY}")
        if tested and not options.unverified:
            _refuse_unverified(self.manifest)
        self.name = self.manifest.name
        self.version = f"{self.manifest.version}+{artefact.digest[:8]}.n{VERSION}"
        self.operating_points: OperatingPoints = self.manifest.operating_points
        self.window_penalties = self.manifest.window_penalties
        self._max_rows = options.max_rows
        self._tokenizer = plain_tokenizer(artefact.tokenizer)
        self._remembered = lru_cache(REMEMBERED)(self._encode)
        self._specials = _Specials.of(self._tokenizer, self.manifest)
        longest = self.manifest.max_tokens
        self._session = Session(artefact.model, place, profile=self._profile(place), longest=longest)
        if self._session.device is Device.CPU and not place.on_cpu:
            self._max_rows = 1  # a GPU was asked for, and less had to do
        self._session.warm_up([min(length, self.manifest.max_tokens) for length in WARM_UP])
        self._threads = ThreadPoolExecutor(options.threads, self.name) if options.threads > 1 else None
        self._first_stage: FirstStage | None = None  # the encoder itself is what the golden rows test
        self.golden_difference = self_test(self.manifest, self) if tested else 0.0
        if options.first_stage and self.manifest.first_stage is not None:
            self._first_stage = read_first_stage(artefact.first_stage or b"", self.manifest.first_stage)
            self.version += ".f"

    def predict(self, batch: Sequence[Passage]) -> Sequence[Verdict]:
        """Raises `GuardFailed` when the model fails, `InvalidVerdict` when what it says is no probability."""
        passages = [self._read(number, passage) for number, passage in enumerate(batch)]
        best: list[dict[Category, tuple[float, Slice]]] = [dict.fromkeys(CATEGORIES, (0.0, (0, 0))) for _ in batch]
        batches = tuple(self._micro_batches(row for passage in passages for row in passage.rows))
        run = map if self._threads is None or len(batches) == 1 else self._threads.map
        for rows, scores in zip(batches, run(self._scores, batches), strict=True):
            for row, row_scores in zip(rows, scores, strict=True):
                for category, score in zip(CATEGORIES, map(float, row_scores), strict=True):
                    if score > best[row.passage][category][0]:
                        best[row.passage][category] = (score, row.place)
        return [self._verdict(passage, read, worst) for passage, read, worst in zip(batch, passages, best, strict=True)]

    def _verdict(self, passage: Passage, read: _PassageRows, best: Mapping[Category, tuple[float, Slice]]) -> Verdict:
        scores = {category: score for category, (score, _) in best.items()}
        places = {category: Place(passage.path, start, end, score) for category, (score, (start, end)) in best.items()}
        sources = (SourceScores(passage.source, scores, places, read.windows),)
        return Verdict(self.name, scores, (), read.coverage, sources)

    def _profile(self, place: Placement) -> Profile | None:
        if Device.TENSORRT not in place.devices:
            return None
        refuse_unsuited(self.name, self.manifest.precision, self.manifest.opset)
        return classifier_profile(self._max_rows, self.manifest.max_tokens)

    def _read(self, number: int, passage: Passage) -> _PassageRows:
        """The text normalised, in windows; beside each window that normalising changed, the same stretch as it came;
        and what the text hides, decoded."""
        normal = normalise(passage.text)
        language = language_of(normal.text)
        calibration = self.manifest.calibration_of(passage.direction, passage.source, language)
        context = self._context(passage)
        encoding = self._tokens(normal.text)
        laid = self._windows(len(encoding), context, passage.source)
        rows: dict[Ids, Slice] = {}
        changed: dict[Slice, None] = {}
        for window in laid.slices or ((0, 0),):
            place, differs = _stretch(passage.text, normal, encoding, window)
            rows.setdefault(self._row(encoding.ids, window, context), place)
            if differs:
                changed[place] = None
        windows_of_text = len(rows)
        for place in changed:
            self._add(compatible(passage.text[slice(*place)]), place, context, passage.source, rows)
        for hidden in hidden_texts(passage.text, normal.text):
            self._add(hidden, (0, len(passage.text)), context, passage.source, rows)
        unread = tuple(self._unread(passage, normal.text, encoding, laid.unread))
        made = tuple(
            _Row(number, ids, place, calibration)
            for ids, place in rows.items()
            if not self._clears(ids, passage.source, language)
        )
        tokens = sum(len(row.ids) for row in made)
        coverage = Coverage(1, len(passage.text), len(made), tokens, 0, unread, len(rows) - len(made))
        return _PassageRows(made, windows_of_text, coverage)

    def _clears(self, ids: Ids, source: Source, language: Language) -> bool:
        return self._first_stage is not None and self._first_stage.clears(ids, source, language)

    def _add(self, text: str, place: Slice, context: Ids, source: Source, rows: dict[Ids, Slice]) -> None:
        """Adds the windows over another reading of the characters at `place`."""
        ids = self._tokens(text).ids
        for window in self._windows(len(ids), context, source).slices or ((0, 0),):
            rows.setdefault(self._row(ids, window, context), place)

    def _row(self, ids: Sequence[int], window: Slice, context: Ids) -> Ids:
        return (*context, *ids[slice(*window)], *self._specials.end)

    def _windows(self, tokens: int, context: Ids, source: Source) -> Windows:
        size = self.manifest.max_tokens - len(context) - len(self._specials.end)
        overlap = OWN_OVERLAP if source in _OWN else OVERLAP
        return windows(tokens, size=size, overlap=min(overlap, size // 4), limit=MAX_WINDOWS)

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

    def _unread(self, passage: Passage, text: str, encoding: Encoding, gap: Slice | None) -> Iterator[Unread]:
        if gap is not None:
            places = encoding.offsets
            yield Unread(passage.path, UnreadReason.TOO_LONG, places[gap[1]][0] - places[gap[0]][0])
        unknown = self._unknown_letters(text, encoding)
        if unknown >= MIN_UNKNOWN and unknown > MAX_UNKNOWN_SHARE * sum(map(str.isalpha, text)):
            yield Unread(passage.path, UnreadReason.UNKNOWN_TOKENS, unknown)

    def _unknown_letters(self, text: str, encoding: Encoding) -> int:
        """Letters that the tokenizer does not know. Characters are counted, not tokens: it folds a run of any length
        into one unknown token (reference/faults.md, L). Emoji and signs are no letters."""
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
    return tuple(dict.fromkeys((normal, compatible(text), *hidden_texts(text, normal))))


def hidden_texts(text: str, normal: str) -> tuple[str, ...]:
    """What a text says in an encoding (base64, hex, ...), normalised. `normal` is the text itself, normalised."""
    runs = (*decoded_runs(text), *(decoded_runs(normal) if normal != text else ()))
    return tuple(dict.fromkeys(normalise(run).text for run in runs))


def _stretch(text: str, normal: Normalised, encoding: Encoding, window: Slice) -> tuple[Slice, bool]:
    """The characters of `text` that a window of tokens was made from, and whether normalising changed them (beyond
    what every reading changes)."""
    start, end = window
    if start == end:
        return (0, len(text)), compatible(text) != normal.text
    first, last = encoding.offsets[start][0], encoding.offsets[end - 1][1]
    if first >= last:
        return (0, len(text)), True
    place = normal.span(first, last)
    return place, compatible(text[slice(*place)]) != normal.text[first:last]


def _refuse_unverified(manifest: Manifest) -> None:
    if manifest.encoder is not None and manifest.encoder.get("verified") is not True:
        raise ArtefactRefused(
            f"{manifest.name}: the {manifest.precision} graph does not agree with its checkpoint "
            f"({manifest.encoder.get('parity')}): export it in a higher precision, or allow it by name with "
            "`unverified: true`"
        )


def scores_of(logits: Logits, calibrations: Sequence[Calibration]) -> npt.NDArray[np.float64]:
    """Logits [rows, unsafe + categories] -> scores [rows, categories]: `p * p_c / max(p_1..p_8)` (artefact.md)."""
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
