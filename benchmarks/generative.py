"""What a generative guard costs on one core: a check as published, in one prefill, and along a stream.

Milliseconds are CPU time of this process, which runs on one thread: what else the machine does hardly shows in them.
"""

import argparse
import json
import logging
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from export.quantize import Precision, quantize
from export.score_graph import write_head_graph, write_score_graph
from guard_runtime.generative.decoder import Decoder, DecoderShape, KVCache, KVCacheStore, Row
from guard_runtime.generative.greedy import GreedyDecoder
from guard_runtime.onnx.session import Graph

HEAD, TAIL = 142, 12
"""Libra's instruction before the question, and its words after the answer, in Qwen2.5's tokens."""

LABELS = (16530, 99464)

SHAPES = {
    "qwen2.5-0.5b": {
        "vocab_size": 151_936,
        "hidden_size": 896,
        "intermediate_size": 4_864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
    },
    "tiny": {
        "vocab_size": 151_936,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}


@dataclass(frozen=True, slots=True)
class Setting:
    shape: str
    layers: int
    check: int
    written: int
    answer: int
    window: int
    repeats: int
    folder: Path

    @property
    def called(self) -> str:
        return f"{self.shape}-{self.layers}-layers" if self.layers else self.shape


@dataclass(frozen=True, slots=True)
class Guards:
    fp32: Decoder
    int8: Decoder
    greedy: GreedyDecoder


def build(setting: Setting) -> Guards:
    """Exports the shape with random weights: time does not depend on what a weight says."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    paths = {name: setting.folder / f"{setting.called}.{name}.onnx" for name in ("fp32", "int8", "head")}
    sizes = SHAPES[setting.shape] | ({"num_hidden_layers": setting.layers} if setting.layers else {})
    config = Qwen2Config(**sizes, tie_word_embeddings=True, max_position_embeddings=32_768)
    if not all(path.is_file() for path in paths.values()):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        write_score_graph(model, LABELS, paths["fp32"])
        with tempfile.TemporaryDirectory(dir=setting.folder) as scratch:
            plain = Path(scratch) / "plain.onnx"
            write_score_graph(model, LABELS, plain, bytewise=True)
            quantize(plain, paths["int8"], Precision.INT8)
        write_head_graph(model, paths["head"])
        del model
    width = config.hidden_size // config.num_attention_heads
    shape = DecoderShape(config.num_hidden_layers, config.num_key_value_heads, width)
    fp32 = Decoder(Graph(paths["fp32"].read_bytes()), shape)
    int8 = Decoder(Graph(paths["int8"].read_bytes()), shape)
    return Guards(fp32, int8, GreedyDecoder(fp32, Graph(paths["head"].read_bytes()), frozenset()))


def tokens(count: int, seed: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(1_000, 90_000, count)]


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """The median CPU time of `repeats` runs, after one that is not counted."""
    work()
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        taken.append((time.process_time() - started) * 1_000)
    return statistics.median(taken)


def remembered(decoder: Decoder, head: Sequence[int]) -> KVCache:
    (reading,) = decoder.read([Row(head, decoder.empty)])
    return reading.cache


def check_costs(guards: Guards, setting: Setting) -> dict[str, float]:
    """One check of `check` tokens, the instruction among them: ms by way of doing it."""
    row = tokens(setting.check, 1)
    head, rest = row[:HEAD], row[HEAD:]
    full = milliseconds(lambda: guards.fp32.read([Row(row, guards.fp32.empty)]), setting.repeats)
    started = time.process_time()
    guards.greedy.write(row, guards.fp32.empty, setting.written)
    generate = (time.process_time() - started) * 1_000
    known = {decoder: remembered(decoder, head) for decoder in (guards.fp32, guards.int8)}
    return {
        "generate": generate,
        "fp32_full_prefill": full,
        "int8_full_prefill": milliseconds(lambda: guards.int8.read([Row(row, guards.int8.empty)]), setting.repeats),
        "fp32_prefix_cached": milliseconds(lambda: guards.fp32.read([Row(rest, known[guards.fp32])]), setting.repeats),
        "int8_prefix_cached": milliseconds(lambda: guards.int8.read([Row(rest, known[guards.int8])]), setting.repeats),
    }


def stream_costs(decoder: Decoder, setting: Setting) -> tuple[dict[str, float], dict[str, int]]:
    """An answer of `answer` tokens checked every `window`: ms and tokens, going on from what was read, and reading the
    whole again at every check."""
    before, answer, tail = tokens(HEAD + 20, 2), tokens(setting.answer, 3), tokens(TAIL, 4)
    head = remembered(decoder, before)
    checks = [*range(setting.window, setting.answer, setting.window), setting.answer]
    kept = KVCacheStore(1 << 30)
    kept.keep(head)
    spent = {"incremental": 0, "rescoring": 0}
    started = time.process_time()
    for end in checks:
        row = [*before, *answer[:end], *tail]
        cache = kept.recall(row) or decoder.empty
        (reading,) = decoder.read([Row(row[len(cache.tokens) :], cache)])
        spent["incremental"] += len(row) - len(cache.tokens)
        kept.keep(cache.then(reading.cache).first(len(row) - TAIL))
    taken = {"incremental": (time.process_time() - started) * 1_000}
    started = time.process_time()
    for end in checks:
        row = [*before, *answer[:end], *tail]
        decoder.read([Row(row, decoder.empty)])
        spent["rescoring"] += len(row)
    return taken | {"rescoring": (time.process_time() - started) * 1_000}, spent


def report(check: dict[str, float], stream: dict[str, float], spent: dict[str, int], setting: Setting) -> str:
    base = check["fp32_full_prefill"]
    lines = [
        f"{setting.called}, one core of {platform.processor() or platform.machine()}, load {os.getloadavg()[0]:.1f}, "
        f"onnxruntime {onnxruntime.__version__}",
        f"check of {setting.check} tokens ({HEAD} of them the instruction); generate writes {setting.written} tokens",
        *(f"  {name:<20} {ms:9.1f} ms  {ms / base:6.3f} of full fp32" for name, ms in check.items()),
        f"stream of {setting.answer} tokens, a check every {setting.window}, int8",
        *(f"  {name:<20} {ms:9.1f} ms  {spent[name]:6d} tokens" for name, ms in stream.items()),
        f"targets: int8 prefix-cached / fp32 full <= 1/5: {check['int8_prefix_cached'] / base:.3f};  incremental / "
        f"rescoring <= 1/8: {stream['incremental'] / stream['rescoring']:.3f};  int8 prefix-cached / generate <= 1/20: "
        f"{check['int8_prefix_cached'] / check['generate']:.4f}",
    ]
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--shape", choices=sorted(SHAPES), default="qwen2.5-0.5b")
    options.add_argument("--layers", type=int, default=0, help="fewer layers than the shape has, for a quick look")
    options.add_argument("--check", type=int, default=256, help="tokens of a check")
    options.add_argument("--written", type=int, default=128, help="tokens of a written-out answer")
    options.add_argument("--answer", type=int, default=1_000, help="tokens of the streamed answer")
    options.add_argument("--window", type=int, default=32)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--folder", type=Path, help="where exported graphs are kept for the next run")
    options.add_argument("--json", action="store_true", help="end with one line of JSON")
    given = options.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        sizes = (given.check, given.written, given.answer, given.window, given.repeats)
        setting = Setting(given.shape, given.layers, *sizes, folder)
        guards = build(setting)
        check = check_costs(guards, setting)
        stream, spent = stream_costs(guards.int8, setting)
    print(report(check, stream, spent, setting))
    if given.json:
        print(json.dumps({"check_ms": check, "stream_ms": stream, "stream_tokens": spent}))


if __name__ == "__main__":
    main()
