"""A classifier's tokenizer, made so that no text spells one of its control tokens."""

import re
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer
from tokenizers.normalizers import Replace
from tokenizers.normalizers import Sequence as Sequences

from guard_runtime.errors import ArtefactRefused

_CONTROLS = frozenset({"<s>", "</s>", "<pad>", "<unk>", "<mask>"})


def plain_tokenizer(content: bytes) -> Tokenizer:
    """The tokenizer in this file, reading control tokens in a text as text (reference/faults.md, M)."""
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
