"""A generative guard, from its folder on disk to a model that gives verdicts."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guard_runtime.artefact import Artefact, self_test
from guard_runtime.batcher import Batcher
from guard_runtime.batcher import Limits as Queue
from guard_runtime.cache import VerdictCache
from guard_runtime.decoder import Decoder, DecoderShape
from guard_runtime.errors import ArtefactRefused
from guard_runtime.guards.generative import LIMITS, Contract, GenerativeModel, Limits
from guard_runtime.prompt import label_tokens, probes_from_json
from guard_runtime.reader import Reach, Reader
from guard_runtime.session import CPU, Graph
from guard_runtime.tokens import Vocabulary
from guard_runtime.writer import Writer

GPU_ROWS = 32
CHARACTERS_PER_TOKEN = 3
"""At most so many characters are asked about at once: more than fit into one prefill are laid out in windows there."""


def load_generative(
    folder: Path,
    *,
    threads: int = 1,
    providers: Sequence[str] = (CPU,),
    limits: Limits = LIMITS,
    unverified: bool = False,
) -> Reader:
    """The guard in `folder`, self-tested and warm, behind a batcher. Raises `ArtefactRefused`.

    `unverified` serves an artefact that did not agree with its checkpoint when it was exported: for tests only.
    For metrics read `reader.batcher.queued` and the model's `health`.
    """
    model = generative_model(Artefact.load(folder), providers=providers, threads=threads, unverified=unverified)
    batch = 1 if providers[0] == CPU else GPU_ROWS
    batcher = Batcher(model, name=model.name, limits=Queue(batch=batch))
    reach = Reach(section=CHARACTERS_PER_TOKEN * model.limits.tokens * model.limits.windows)
    return Reader(model, batcher, VerdictCache(16 << 20, os.urandom(32)), reach=reach)


def generative_model(
    artefact: Artefact,
    *,
    providers: Sequence[str] = (CPU,),
    threads: int = 1,
    limits: Limits = LIMITS,
    unverified: bool = False,
) -> GenerativeModel:
    """Blocking, for one thread, its golden rows scored again. Raises `ArtefactRefused`."""
    manifest = artefact.manifest
    stored = manifest.generative
    if stored is None:
        raise ArtefactRefused(f"{manifest.name} is a {manifest.family}, not a generative guard")
    if stored.get("verified") is not True and not unverified:
        raise ArtefactRefused(
            f"{manifest.name}: the {manifest.precision} graph does not agree with its checkpoint "
            f"({stored.get('parity')}): export it in a higher precision, or allow it by name with `unverified: true`"
        )
    model = untested(artefact, providers=providers, threads=threads, limits=limits)
    self_test(manifest, model.forced)
    return model


def untested(
    artefact: Artefact, *, providers: Sequence[str] = (CPU,), threads: int = 1, limits: Limits = LIMITS
) -> GenerativeModel:
    """The same, without a look at its golden rows: for export, which measures them."""
    manifest = artefact.manifest
    stored: Mapping[str, Any] = manifest.generative or {}
    probes = probes_from_json(stored.get("prompts"))
    try:
        shape = DecoderShape(**stored["decoder"])
        stop = frozenset(int(token) for token in stored["stop"])
        tokens = tuple(int(token) for token in stored["label_tokens"])
        contract = Contract(
            name=manifest.name,
            probes=probes,
            calibration=manifest.calibration,
            json_key=str(stored["json_key"]),
            rationale=str(stored["rationale"]),
            version=f"{manifest.version}+{artefact.digest[:8]}",
            operating_points=manifest.operating_points,
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise ArtefactRefused(f"{manifest.name}: the manifest's generative section cannot be read: {exc!r}") from exc
    if tokens != label_tokens(probes):
        raise ArtefactRefused(f"{manifest.name}: the graph's label tokens are not those of the prompts, in their order")
    graph = Graph(artefact.model, providers=providers, threads=threads)
    _check_graph(manifest.name, graph, shape)
    decoder = Decoder(graph, shape)
    writer = None
    if artefact.head is not None:
        writer = Writer(decoder, Graph(artefact.head, providers=providers, threads=threads), stop)
    return GenerativeModel(contract, _vocabulary(artefact), decoder, writer, _within(limits, manifest.max_tokens))


def _vocabulary(artefact: Artefact) -> Vocabulary:
    try:
        return Vocabulary(artefact.tokenizer.decode("utf-8"))
    except UnicodeDecodeError as exc:
        raise ArtefactRefused("tokenizer.json is not UTF-8") from exc


def _within(limits: Limits, tokens: int) -> Limits:
    if tokens >= limits.tokens:
        return limits
    kept = {name: getattr(limits, name) for name in Limits.__slots__}
    return Limits(**{**kept, "tokens": tokens})


def _check_graph(name: str, graph: Graph, shape: DecoderShape) -> None:
    kinds = [f"{layer}.{part}" for layer in range(shape.layers) for part in ("key", "value")]
    inputs = {"input_ids", "attention_mask", "position_ids", "last_index", "past_row", *(f"past.{k}" for k in kinds)}
    outputs = {"label_logits", "hidden", *(f"present.{kind}" for kind in kinds)}
    if set(graph.inputs) != inputs or set(graph.outputs) != outputs:
        raise ArtefactRefused(f"{name}: the graph is not a score graph of {shape.layers} layers")
