"""Qwen2.5's tokenizer as a `tokenizers` file, built from the ranks that the PyPI package dashscope carries."""

import base64
import functools
import importlib.metadata
import json
from pathlib import Path

_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
NOT_CALLED_SPECIAL = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
)
"""Control words of Qwen2.5 and Qwen3 that their own tokenizer files do not mark as special."""

TEMPLATE = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}"
    "{%- else %}{{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    "<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}{%- if (message.role == 'user') or (message.role == 'assistant') %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""Qwen2.5-Instruct's header, without its tool branches."""


def _letters() -> dict[int, str]:
    """GPT-2's printable stand-in for every byte."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {byte: chr(byte) for byte in kept}
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + len(letters) - len(kept))
    return letters


@functools.cache
def tokenizer_json(*, numbers: bool = False) -> str:
    """With `numbers`, 10 to 14 are one token each, as in Llama 3's vocabulary."""
    letters = _letters()
    ranks: dict[bytes, int] = {}
    resource = importlib.metadata.distribution("dashscope").locate_file("dashscope/resources/qwen.tiktoken")
    for line in Path(str(resource)).read_bytes().splitlines():
        word, _, rank = line.partition(b" ")
        ranks[base64.b64decode(word)] = int(rank)
    if numbers:
        ranks = {word: rank for word, rank in ranks.items() if rank < len(ranks) - 5}

    def spelled(word: bytes) -> str:
        return "".join(letters[byte] for byte in word)

    merges = []
    for word in sorted(ranks, key=ranks.__getitem__):
        splits = [(word[:cut], word[cut:]) for cut in range(1, len(word))]
        pairs = [(one, two) for one, two in splits if one in ranks and two in ranks]
        merges += [[spelled(a), spelled(b)] for a, b in sorted(pairs, key=lambda p: (ranks[p[0]], ranks[p[1]]))]
    vocabulary = {spelled(word): rank for word, rank in ranks.items()}
    if numbers:
        vocabulary |= {str(number): len(ranks) + number - 10 for number in range(10, 15)}
        merges += [list(str(number)) for number in range(10, 15)]
    pattern = _PATTERN.replace("\\p{N}|", "\\p{N}{1,3}|") if numbers else _PATTERN
    size = len(vocabulary)
    added = dict(enumerate((*SPECIAL, *NOT_CALLED_SPECIAL), size))
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [_added(token, word, special=word in SPECIAL) for token, word in added.items()],
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
                    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
                ],
            },
            "post_processor": {
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": False,
                "use_regex": False,
            },
            "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "",
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": vocabulary,
                "merges": merges,
            },
        }
    )


def _added(token: int, word: str, *, special: bool) -> dict[str, object]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token, "content": word, **flags, "special": special}
