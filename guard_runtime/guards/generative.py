"""A generative guard whose verdict is one token: one prefill for each text, on top of what was read before."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import json_repair

from guard_runtime.artefacts.manifest import Calibration
from guard_runtime.conversation import Direction
from guard_runtime.errors import ArtefactRefused, GuardFailed
from guard_runtime.generative.decoder import Decoder, KVCache, KVCacheStore, Reading, Row
from guard_runtime.generative.greedy import GreedyDecoder
from guard_runtime.generative.prefill import LIMITS, PrefillLimits, read_all, split_into_windows
from guard_runtime.generative.prompt import Label, Probe, Probes, Segment, label_tokens, words
from guard_runtime.generative.scoring import Logits, label_mass, margin, probability, shares, spread, together, written
from guard_runtime.generative.tokenizer import SafeTokenizer, common_prefix
from guard_runtime.guard import OperatingPoints, Passage
from guard_runtime.text.language import Language, language_of
from guard_runtime.verdict import Category, Coverage, Unread, Verdict

KINDS_FROM = 0.02
"""Below this risk no category is asked for: every score is at most this, whichever it is."""

MAX_WRITTEN = 256
"""Tokens a guard may write out, as Libra's published script allows."""


STEP = 32
"""Tokens read at once for an explanation. A verdict that is asked for meanwhile waits for one such step."""


@dataclass(frozen=True, slots=True)
class Contract:
    """What a guard asks and how its answers are read. `json_key`: where its written-out answer says the verdict, ""
    where it says it in plain words. `rationale`: what it writes between its verdict and its explanation."""

    name: str
    probes: Probes
    calibration: Mapping[Direction, Mapping[Language, Calibration]]
    json_key: str = ""
    rationale: str = ""
    version: str = "0"
    operating_points: OperatingPoints = field(default_factory=dict)


@dataclass(slots=True)
class Health:
    """Counts for the metrics: texts read, answers out of form that were written out, tokens read and tokens spared by
    cache."""

    checks: int = 0
    written: int = 0
    tokens: int = 0
    spared: int = 0


@dataclass(frozen=True, slots=True)
class _Text:
    """One window of a passage, and the rows that ask about it."""

    passage: Passage
    rows: tuple[tuple[Probe, tuple[int, ...]], ...]

    @property
    def common(self) -> int:
        """How many tokens all rows begin with."""
        first = self.rows[0][1]
        return min(common_prefix(first, row) for _, row in self.rows)


@dataclass(frozen=True, slots=True)
class _Question:
    text: int
    probe: Probe
    row: Row


@dataclass(slots=True)
class _Pieces:
    """A passage in windows, and what fits into none."""

    texts: list[_Text] = field(default_factory=list)
    unread: tuple[Unread, ...] = ()


class GenerativeModel:
    """Blocking; for one thread. Raises `ArtefactRefused` where labels, vocabulary and decoder do not fit together."""

    def __init__(
        self,
        contract: Contract,
        tokenizer: SafeTokenizer,
        decoder: Decoder,
        greedy: GreedyDecoder | None = None,
        limits: PrefillLimits = LIMITS,
    ) -> None:
        self.name = contract.name
        self.version = contract.version
        self.operating_points = contract.operating_points
        self._contract = contract
        self._tokenizer = tokenizer
        self._decoder = decoder
        self._greedy = greedy
        self.limits = limits
        self.health = Health()
        self.caches = KVCacheStore(limits.cache_bytes)
        self._tokens = label_tokens(contract.probes)
        self._check_labels()
        self._heads = {
            (direction, probe.name): self._head(probe)
            for direction, probes in contract.probes.items()
            for probe in probes
        }
        self._shortened: dict[tuple[Direction, str, int], KVCache] = {}

    def predict(self, batch: Sequence[Passage]) -> Sequence[Verdict]:
        """One verdict for each passage. Raises `GuardFailed` rather than guess."""
        return self._predict(batch, self._greedy)

    def counts(self) -> Mapping[str, int]:
        """Its health, as the metrics show it."""
        return {name: getattr(self.health, name) for name in Health.__slots__} | {"evicted": self.caches.evicted}

    @property
    def forced(self) -> "Forced":
        """The same guard without a look at its format: its verdict is what the forced prefill says."""
        return Forced(self)

    def masses(self, passage: Passage) -> list[float]:
        """P(one of the labels comes next), for each question about the passage's first window; [] without a head."""
        if self._greedy is None:
            return []
        questions = self._questions(self._pieces(passage).texts[:1])
        logits = self._greedy.logits(self._read([item.row for item in questions]))
        return [label_mass(item.probe.labels, row) for item, row in zip(questions, logits, strict=True)]

    def _predict(self, batch: Sequence[Passage], greedy: GreedyDecoder | None) -> Sequence[Verdict]:
        pieces = [self._pieces(passage) for passage in batch]
        texts = [text for piece in pieces for text in piece.texts]
        scores = iter(self._scores(texts, greedy))
        return [self._verdict(passage, piece, scores) for passage, piece in zip(batch, pieces, strict=True)]

    def explain(self, passage: Passage, limit: int = MAX_WRITTEN) -> str:
        """Why the guard says what it says, in its own words: for the record, after the verdict, never instead of it.
        "" for a family that does not explain. Takes up to `limit` decoding steps."""
        *_, text = self.explaining(passage, limit)
        return text

    @property
    def explains(self) -> bool:
        """Whether it has words for it, and a head to write them with."""
        return bool(self._contract.rationale) and self._greedy is not None

    def explaining(self, passage: Passage, limit: int = MAX_WRITTEN) -> Iterator[str]:
        """`explain`, one decoding step at a time: "" after each, and at the end the whole. Between two steps the model
        may be asked for verdicts."""
        if not self._contract.rationale or self._greedy is None:
            yield ""
            return
        text = self._pieces(passage).texts[0]
        probe, tokens = text.rows[0]
        cache = self._known_part(text, probe, tokens)
        left = tokens[len(cache.tokens) :]
        for start in range(0, len(left), STEP):
            (reading,) = self._read([Row(left[start : start + STEP], cache)])
            cache = cache.then(reading.cache)
            yield ""
        label = max(probe.labels, key=lambda label: self._logits(reading)[label.token])
        chosen = self._tokenizer.text(label.word + self._contract.rationale)
        written = []
        for token in self._greedy.steps(chosen, cache, limit):
            written.append(token)
            yield ""
        yield self._tokenizer.spelled(written).split('"\n}')[0]

    def _verdict(self, passage: Passage, piece: _Pieces, scores: Iterator[dict[Category, float]]) -> Verdict:
        window_scores = [next(scores) for _ in piece.texts]
        length = sum(len(text.rows[0][1]) for text in piece.texts)
        coverage = Coverage(1, len(passage.text), len(window_scores), length, 0, piece.unread)
        return Verdict(self._contract.name, together(window_scores), (), coverage)

    # -- text into rows

    def _pieces(self, passage: Passage) -> _Pieces:
        probes = self._contract.probes.get(passage.direction)
        if not probes:
            raise GuardFailed(f"{self._contract.name} does not judge a {passage.direction.value}")
        laid = split_into_windows(passage, [probe.segments for probe in probes], self._tokenizer, self.limits)
        return _Pieces([self._text(passage, window, probes) for window in laid.windows], laid.unread)

    def _text(self, passage: Passage, window: Passage, probes: Iterable[Probe]) -> _Text:
        filled = words(window)
        return _Text(passage, tuple((p, tuple(self._tokenizer.tokens(p.segments, filled))) for p in probes))

    # -- rows into scores

    def _scores(self, texts: Sequence[_Text], greedy: GreedyDecoder | None) -> list[dict[Category, float]]:
        questions = self._questions(texts)
        readings = self._read([item.row for item in questions])
        scores_of: list[list[dict[Category, float]]] = [[] for _ in texts]
        risks = self._risks(texts, questions, readings)
        if greedy is not None and readings:
            for place, logits in enumerate(greedy.logits(readings)):
                if label_mass(questions[place].probe.labels, logits) < self.limits.health:
                    risks[place] = self._written_out(greedy, questions[place], texts)
        for item, reading, risk in zip(questions, readings, risks, strict=True):
            parts = self._parts(item, reading) if risk >= KINDS_FROM else {}
            scores_of[item.text].append(spread(risk, item.probe.categories, parts))
            self._store(texts[item.text], item, reading)
        self.health.checks += len(texts)
        return [together(scores) for scores in scores_of]

    def _questions(self, texts: Sequence[_Text]) -> list[_Question]:
        """Every row on the cache it goes on from. Rows that begin alike (one text, several questions) are read once
        as far as they agree."""
        caches = [self._known_part(text, *text.rows[0]) for text in texts]
        shared = [place for place, text in enumerate(texts) if len(text.rows) > 1]
        ahead = [place for place in shared if texts[place].common > len(caches[place].tokens)]
        rows = [Row(texts[n].rows[0][1][len(caches[n].tokens) : texts[n].common], caches[n]) for n in ahead]
        for place, reading in zip(ahead, self._read(rows), strict=True):
            caches[place] = caches[place].then(reading.cache)
        return [
            _Question(place, probe, self._row(caches[place], tokens))
            for place, text in enumerate(texts)
            for probe, tokens in text.rows
        ]

    def _row(self, cache: KVCache, tokens: tuple[int, ...]) -> Row:
        known = min(common_prefix(cache.tokens, tokens), len(tokens) - 1)
        return Row(tokens[known:], cache.first(known))

    def _known_part(self, text: _Text, probe: Probe, tokens: tuple[int, ...]) -> KVCache:
        """The longest thing remembered that all rows of a text begin with: an earlier state of the same answer, or the
        instruction. At least one token is left to read."""
        most = min(text.common, len(tokens) - 1)
        head = self._instruction(text.passage.direction, probe, tokens[:most])
        earlier = self.caches.recall(tokens[:most]) if text.passage.direction is Direction.RESPONSE else None
        longest = earlier if earlier is not None and len(earlier.tokens) > len(head.tokens) else head
        self.health.spared += len(longest.tokens)
        return longest

    def _instruction(self, direction: Direction, probe: Probe, tokens: Sequence[int]) -> KVCache:
        head = self._heads[direction, probe.name]
        known = common_prefix(head.tokens, tokens)
        if known == len(head.tokens):
            return head
        key = (direction, probe.name, known)
        if key not in self._shortened:
            self._shortened[key] = head.first(known)
        return self._shortened[key]

    def _risks(
        self, texts: Sequence[_Text], questions: Sequence[_Question], readings: Sequence[Reading]
    ) -> list[float]:
        risks = []
        for item, reading in zip(questions, readings, strict=True):
            passage = texts[item.text].passage
            fit = self._contract.calibration[passage.direction][language_of(passage.text)]
            risks.append(probability(margin(item.probe, self._logits(reading)), fit.temperature, fit.bias))
        return risks

    def _parts(self, item: _Question, reading: Reading) -> Mapping[Category, float]:
        branch = item.probe.branch
        if branch is None:
            return {}
        (kinds,) = self._read([Row(branch.tokens, item.row.cache.then(reading.cache))])
        return shares(branch, self._logits(kinds))

    def _written_out(self, greedy: GreedyDecoder, question: _Question, texts: Sequence[_Text]) -> float:
        """The guard has left its form: it writes its answer out, and the answer is parsed. No answer is a failure."""
        self.health.written += 1
        probe, passage = question.probe, texts[question.text].passage
        tokens = self._tokenizer.tokens(probe.unforced, words(passage))[-self.limits.tokens :]
        answer = self._tokenizer.spelled(greedy.write(tokens, self._decoder.empty, MAX_WRITTEN))
        label = parsed(answer, probe.labels, self._contract.json_key)
        if label is None:
            raise GuardFailed(f"{self._contract.name} neither kept its form nor wrote an answer that can be read")
        return 1.0 if label.name in probe.risky else 0.0

    def _store(self, text: _Text, item: _Question, reading: Reading) -> None:
        probe, tokens = text.rows[0]
        if text.passage.direction is not Direction.RESPONSE or item.probe is not probe:
            return
        tail = len(self._tokenizer.tokens(probe.segments[-1:], {}))
        known = item.row.cache.then(reading.cache)
        self.caches.keep(known.first(min(len(tokens) - tail, text.common)))

    # -- the decoder

    def _read(self, rows: Sequence[Row]) -> list[Reading]:
        self.health.tokens += sum(len(row.tokens) for row in rows)
        return read_all(self._decoder, rows, self.limits)

    def _logits(self, reading: Reading) -> Logits:
        return dict(zip(self._tokens, map(float, reading.labels), strict=True))

    def _head(self, probe: Probe) -> KVCache:
        tokens = self._tokenizer.head(probe)
        if not tokens:
            return self._decoder.empty
        (reading,) = self._decoder.read([Row(tokens, self._decoder.empty)])
        return self._decoder.pinned(reading.cache)

    def _check_labels(self) -> None:
        """Every label is still the token the manifest says, behind the prefix that is forced."""
        for probes in self._contract.probes.values():
            for probe in probes:
                before = self._tokenizer.tokens(probe.segments[-1:], {})
                for label in probe.labels:
                    self._check_label(probe, label, before)

    def _check_label(self, probe: Probe, label: Label, before: list[int]) -> None:
        last = probe.segments[-1].text
        whole = self._tokenizer.tokens((Segment(last + label.word),), {})
        if whole[: len(before)] != before or whole[len(before) : len(before) + 1] != [label.token]:
            raise ArtefactRefused(f"{self._contract.name}: label {label.word!r} is not token {label.token} here")


@dataclass(frozen=True, slots=True)
class Forced:
    """A `Model` that says what a guard's forced prefill says, in form or not: what an artefact is compared by."""

    guard: GenerativeModel

    def predict(self, batch: Sequence[Passage]) -> Sequence[Verdict]:
        return self.guard._predict(batch, None)


def parsed(answer: str, labels: Sequence[Label], json_key: str) -> Label | None:
    """The label a written-out answer gives: under its JSON key where it has one, repaired if need be; None where it
    gives none."""
    if not json_key:
        return written(answer, labels)
    content = json_repair.loads(answer)
    value = content.get(json_key) if isinstance(content, dict) else None
    return written(value, labels) if isinstance(value, str) else None
