"""A tokenizer wrapper: text from users never yields control tokens, only our own prompts do."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from guard_runtime.errors import ArtefactRefused, GuardFailed
from guard_runtime.generative.prompt import Probe, Segment, Slot


class SafeTokenizer:
    """A `tokenizers` file, read so that text from users yields text tokens only.

    Every added token that is not white space counts as a control token, also those the file does not call special
    (`<think>`, `<tool_call>`): a word that looks like one is split into ordinary pieces. Safe to share by threads.

    Raises `ArtefactRefused` when the file is no tokenizer.
    """

    def __init__(self, tokenizer_json: str) -> None:
        try:
            content = json.loads(tokenizer_json)
            added = [_control(token) for token in content.get("added_tokens", ())]
            content["truncation"] = content["padding"] = None
            self._tokenizer = Tokenizer.from_str(json.dumps({**content, "added_tokens": added}))
        except Exception as exc:  # `tokenizers` raises bare Exception for a malformed file
            raise ArtefactRefused(f"the tokenizer file cannot be read: {exc}") from exc
        self._tokenizer.encode_special_tokens = True
        names = [token["content"] for token in added if token["special"]]
        ids = ((name, self._tokenizer.token_to_id(name)) for name in names)
        self.controls: Mapping[str, int] = {name: number for name, number in ids if number is not None}
        self._control_ids = frozenset(self.controls.values())
        names.sort(key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else re.compile("(?!)")

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def text(self, words: str) -> list[int]:
        """The tokens of untrusted text. Raises `GuardFailed` if one of them is a control token."""
        try:
            tokens = list(self._tokenizer.encode(words, add_special_tokens=False).ids)
        except (TypeError, UnicodeError) as exc:
            raise GuardFailed("the text is not valid Unicode (a lone surrogate)") from exc
        if not self._control_ids.isdisjoint(tokens):
            raise GuardFailed("a control token was read out of text: this tokenizer file is not safe to use")
        return tokens

    def offsets(self, words: str) -> list[tuple[int, int]]:
        """Where each token of a text stands in it, in characters."""
        try:
            return list(self._tokenizer.encode(words, add_special_tokens=False).offsets)
        except (TypeError, UnicodeError) as exc:
            raise GuardFailed("the text is not valid Unicode (a lone surrogate)") from exc

    def text_of(self, token: int) -> str:
        """The text of one token."""
        return str(self._tokenizer.decode([token], skip_special_tokens=False))

    def spelled(self, tokens: Sequence[int]) -> str:
        """The text of tokens, control tokens left out."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))

    def pieces(self, trusted: str) -> Iterator[int | str]:
        """Our own words, cut at the control tokens in them: ids and the text between."""
        for piece in self._split.split(trusted):
            if piece:
                yield self.controls.get(piece, piece)

    def tokens(self, segments: Sequence[Segment], words: Mapping[Slot, str]) -> list[int]:
        """A prompt in tokens. Text between two control tokens is read in one go, ours and theirs together, so that the
        tokens are those of the whole prompt even where the border between the two falls inside one."""
        tokens: list[int] = []
        run: list[str] = []
        for segment in segments:
            pieces = self.pieces(segment.text) if segment.slot is None else (segment.fill(words),)
            for piece in pieces:
                if isinstance(piece, int):
                    tokens += self._run(run)
                    tokens.append(piece)
                    run = []
                else:
                    run.append(piece)
        return tokens + self._run(run)

    def _run(self, run: Sequence[str]) -> list[int]:
        return self.text("".join(run)) if run else []

    def head(self, probe: Probe) -> list[int]:
        """The tokens before the first slot: the same for every text, but for the last one or two, which may merge with
        the words that follow."""
        ours: list[Segment] = []
        for segment in probe.segments:
            if segment.slot is not None:
                break
            ours.append(segment)
        return self.tokens(ours, {})


def _control(token: Mapping[str, Any]) -> dict[str, Any]:
    return {**token, "special": bool(str(token["content"]).strip())}


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with together."""
    shorter = min(len(one), len(other))
    for place in range(shorter):
        if one[place] != other[place]:
            return place
    return shorter
