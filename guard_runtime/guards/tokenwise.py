"""A guard that judges every token with heads of its own: an answer that grows costs its new tokens only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from guard_runtime.artefacts.manifest import Calibration
from guard_runtime.conversation import Direction
from guard_runtime.errors import ArtefactRefused, GuardFailed
from guard_runtime.generative.decoder import Decoder, KVCache, KVCacheStore, Row
from guard_runtime.generative.prefill import LIMITS, PrefillLimits, WindowedPassage, read_all, split_into_windows
from guard_runtime.generative.prompt import words
from guard_runtime.generative.scoring import together
from guard_runtime.generative.token_heads import Heads, TokenHead, scores
from guard_runtime.generative.tokenizer import SafeTokenizer, common_prefix
from guard_runtime.guard import OperatingPoints, Passage
from guard_runtime.text.language import Language, language_of
from guard_runtime.verdict import Category, Coverage, Verdict


@dataclass(frozen=True, slots=True)
class TokenContract:
    """What a tokenwise guard reads in each direction, and how its logits become probabilities."""

    name: str
    heads: Heads
    calibration: Mapping[Direction, Mapping[Language, Calibration]]
    version: str = "0"
    operating_points: OperatingPoints = field(default_factory=dict)


@dataclass(slots=True)
class Work:
    """Counts for the metrics: texts read, tokens read, and tokens spared by cache."""

    checks: int = 0
    tokens: int = 0
    spared: int = 0


class TokenwiseModel:
    """Blocking; for one thread. Raises `ArtefactRefused` where a direction has no head.

    What it read it remembers, keys and verdicts, under a budget of bytes: a text is read again from the first token
    that is another than last time. No tokens of ours follow an answer, so all that was read stays valid.
    """

    def __init__(
        self, contract: TokenContract, tokenizer: SafeTokenizer, decoder: Decoder, limits: PrefillLimits = LIMITS
    ) -> None:
        if missing := sorted(set(Direction) - set(contract.heads)):
            raise ArtefactRefused(f"{contract.name}: no head for a {missing[0].value}")
        self.name = contract.name
        self.version = contract.version
        self.operating_points = contract.operating_points
        self._contract = contract
        self._tokenizer = tokenizer
        self._decoder = decoder
        self.limits = limits
        self.work = Work()
        self.caches = KVCacheStore(limits.cache_bytes)

    def predict(self, batch: Sequence[Passage]) -> Sequence[Verdict]:
        """One verdict for each passage. Raises `GuardFailed` rather than guess."""
        laid = [self._laid(passage) for passage in batch]
        texts = [self._tokens(window) for one in laid for window in one.windows]
        caches = iter(self._read(texts))
        return [self._verdict(one, [next(caches) for _ in one.windows]) for one in laid]

    def counts(self) -> Mapping[str, int]:
        """Its work, as the metrics show it."""
        return {name: getattr(self.work, name) for name in Work.__slots__} | {"evicted": self.caches.evicted}

    @property
    def forced(self) -> "TokenwiseModel":
        """Itself: it has no form that it could lose. See `GenerativeModel.forced`."""
        return self

    def masses(self, passage: Passage) -> list[float]:
        """None: see `forced`."""
        return []

    def _head(self, direction: Direction) -> TokenHead:
        return self._contract.heads[direction]

    def _laid(self, passage: Passage) -> WindowedPassage:
        return split_into_windows(passage, [self._head(passage.direction).segments], self._tokenizer, self.limits)

    def _tokens(self, window: Passage) -> tuple[int, ...]:
        return tuple(self._tokenizer.tokens(self._head(window.direction).segments, words(window)))

    def _read(self, texts: Sequence[tuple[int, ...]]) -> list[KVCache]:
        """What was read of each text, logits of every token among it: only what no cache holds is read now."""
        known = [self.caches.recall(tokens) or self._decoder.empty for tokens in texts]
        unread = [n for n, (tokens, cache) in enumerate(zip(texts, known, strict=True)) if cache.tokens != tokens]
        rows = [Row(texts[n][len(known[n].tokens) :], known[n]) for n in unread]
        self.work.checks += len(texts)
        self.work.tokens += sum(len(row.tokens) for row in rows)
        self.work.spared += sum(len(cache.tokens) for cache in known)
        for n, reading in zip(unread, read_all(self._decoder, rows, self.limits), strict=True):
            known[n] = known[n].then(reading.cache)
            self.caches.keep(known[n])
        return known

    def _verdict(self, laid: WindowedPassage, caches: Sequence[KVCache]) -> Verdict:
        windows = laid.windows
        window_scores = [self._scores(window, laid, cache) for window, cache in zip(windows, caches, strict=True)]
        length = sum(len(cache.tokens) for cache in caches)
        coverage = Coverage(1, len(laid.passage.text), len(window_scores), length, 0, laid.unread)
        return Verdict(self._contract.name, together(window_scores), (), coverage)

    def _scores(self, window: Passage, laid: WindowedPassage, cache: KVCache) -> dict[Category, float]:
        direction = laid.passage.direction
        head = self._head(direction)
        if len(cache.logits) != len(cache.tokens):
            raise GuardFailed(f"{self.name}: {len(cache.logits)} verdicts for {len(cache.tokens)} tokens")
        logits = cache.logits[self._first(head, window, cache) :]
        return scores(head, logits, self._contract.calibration[direction][language_of(laid.passage.text)])

    def _first(self, head: TokenHead, window: Passage, cache: KVCache) -> int:
        """The first token that counts: the last one of a prompt; of an answer the first that holds something of it."""
        if not head.every:
            return len(cache.tokens) - 1
        before = self._tokenizer.tokens(head.segments[:-1], words(window))
        return common_prefix(before, cache.tokens)
