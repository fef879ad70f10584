"""A generative guard, from its folder on disk to a model that gives verdicts."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from guard_runtime.artefacts.artefact import Artefact, self_test
from guard_runtime.artefacts.manifest import Manifest
from guard_runtime.errors import ArtefactRefused
from guard_runtime.generative.decoder import Decoder, DecoderShape
from guard_runtime.generative.greedy import GreedyDecoder
from guard_runtime.generative.prefill import LIMITS, PrefillLimits
from guard_runtime.generative.prompt import label_tokens, probes_from_json
from guard_runtime.generative.token_heads import heads_from_json, outputs
from guard_runtime.generative.tokenizer import SafeTokenizer
from guard_runtime.guard import Passage
from guard_runtime.guards.explainer import Explainer
from guard_runtime.guards.generative import Contract, GenerativeModel
from guard_runtime.guards.passage_guard import PassageGuard, ReadLimits
from guard_runtime.guards.tokenwise import TokenContract, TokenwiseModel
from guard_runtime.loading.classifier import placed
from guard_runtime.loading.options import DEFAULT_OPTIONS, ServingOptions
from guard_runtime.onnx.devices import ON_CPU, Device, Placement
from guard_runtime.onnx.session import Graph
from guard_runtime.onnx.tensorrt import DecoderSizes, Profile, decoder_profile, refuse_unsuited
from guard_runtime.serving.batcher import Batcher, QueueLimits
from guard_runtime.serving.verdict_cache import VerdictCache
from guard_runtime.serving.warm_swap import WarmSwap

Served = GenerativeModel | TokenwiseModel
"""A guard that writes its verdict, or one that judges every token: a manifest with `heads` is of the second kind."""

GPU_ROWS = 32
WARM_UP = (16, 64, 256, 1_024)
CHARACTERS_PER_TOKEN = 3
"""At most so many characters are asked about at once: more than fit into one prefill are laid out in windows there."""


def limits_on(place: Placement) -> PrefillLimits:
    """One row at a time on a CPU, batches elsewhere."""
    return LIMITS if place.on_cpu else replace(LIMITS, rows=GPU_ROWS)


def load_generative(
    folder: Path,
    *,
    place: Placement = ON_CPU,
    limits: PrefillLimits | None = None,
    serving: ServingOptions = DEFAULT_OPTIONS,
    unverified: bool = False,
) -> PassageGuard:
    """The guard in `folder`, self-tested and warm, behind a batcher. Raises `ArtefactRefused`.

    `unverified` serves an artefact that did not agree with its checkpoint when it was exported: for tests only.
    """
    artefact = Artefact.load(folder)
    bounds = limits or limits_on(place)
    now, model = placed(
        lambda where: generative_model(artefact, place=where, limits=bounds, unverified=unverified), place
    )
    batcher = Batcher(
        model, name=now.name, limits=QueueLimits(serving.max_queue, bounds.rows), observer=serving.observer
    )
    room = now.limits.tokens * now.limits.windows
    read = ReadLimits(section=CHARACTERS_PER_TOKEN * room, before=room // 4)
    explainer = None
    if serving.explain and isinstance(now, GenerativeModel) and now.explains:
        explainer = Explainer(now.name, batcher, partial(_explaining, model))
    cache = VerdictCache(serving.cache_bytes, os.urandom(32))
    return PassageGuard(now, batcher, cache, limits=read, explainer=explainer)


def _explaining(model: Served | WarmSwap[Served], passage: Passage) -> Iterator[str]:
    current = model.current if isinstance(model, WarmSwap) else model
    return current.explaining(passage) if isinstance(current, GenerativeModel) else iter(())


def generative_model(
    artefact: Artefact, *, place: Placement = ON_CPU, limits: PrefillLimits = LIMITS, unverified: bool = False
) -> Served:
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
    make = untested_tokenwise if "heads" in stored else untested
    model: Served = make(artefact, place=place, limits=limits)
    self_test(manifest, model.forced)
    return model


def untested(artefact: Artefact, *, place: Placement = ON_CPU, limits: PrefillLimits = LIMITS) -> GenerativeModel:
    """A guard that writes its verdict, without a look at its golden rows: for export, which measures them."""
    manifest, limits = artefact.manifest, _within(artefact, limits)
    stored: Mapping[str, Any] = manifest.generative or {}
    probes = probes_from_json(stored.get("prompts"))
    try:
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
    decoder = _decoder(artefact, place, limits)
    greedy = None
    if artefact.head is not None:
        greedy = GreedyDecoder(decoder, Graph(artefact.head, _beside(place)), stop)
    return GenerativeModel(contract, _tokenizer(artefact), decoder, greedy, limits)


def untested_tokenwise(
    artefact: Artefact, *, place: Placement = ON_CPU, limits: PrefillLimits = LIMITS
) -> TokenwiseModel:
    """The same of a guard that judges every token."""
    manifest, limits = artefact.manifest, _within(artefact, limits)
    heads = heads_from_json((manifest.generative or {}).get("heads"))
    contract = TokenContract(
        name=manifest.name,
        heads=heads,
        calibration=manifest.calibration,
        version=f"{manifest.version}+{artefact.digest[:8]}",
        operating_points=manifest.operating_points,
    )
    decoder = _decoder(artefact, place, limits, outputs(tuple(heads.values())))
    return TokenwiseModel(contract, _tokenizer(artefact), decoder, limits)


def _within(artefact: Artefact, limits: PrefillLimits) -> PrefillLimits:
    return replace(limits, tokens=min(limits.tokens, artefact.manifest.max_tokens))


def _decoder(artefact: Artefact, place: Placement, limits: PrefillLimits, each: int = 0) -> Decoder:
    """`each`: logits for every token."""
    manifest = artefact.manifest
    try:
        shape = DecoderShape(**(manifest.generative or {})["decoder"])
    except (KeyError, TypeError) as exc:
        raise ArtefactRefused(f"{manifest.name}: the manifest's generative section cannot be read: {exc!r}") from exc
    graph = Graph(artefact.model, place, profile=_profile(manifest, place, shape, limits))
    _check_graph(manifest.name, graph, shape, {"token_logits"} if each else set())
    least = 1 if graph.device is Device.TENSORRT else 0
    decoder = Decoder(graph, shape, least_past=least, outputs=each, hold=graph.held)
    if not place.on_cpu:
        decoder.warm_up([length for length in WARM_UP if length <= limits.tokens], limits.rows)
    return decoder


def _profile(manifest: Manifest, place: Placement, shape: DecoderShape, limits: PrefillLimits) -> Profile | None:
    if Device.TENSORRT not in place.devices:
        return None
    refuse_unsuited(manifest.name, manifest.precision, manifest.opset)
    return decoder_profile(DecoderSizes(shape.layers, shape.heads, shape.width, limits.rows, limits.tokens))


def _beside(place: Placement) -> Placement:
    """Where the head goes: one product, which CUDA does as fast as an engine."""
    rest = tuple(device for device in place.devices if device is not Device.TENSORRT)
    return replace(place, devices=rest or (Device.CUDA,))


def _tokenizer(artefact: Artefact) -> SafeTokenizer:
    try:
        return SafeTokenizer(artefact.tokenizer.decode("utf-8"))
    except UnicodeDecodeError as exc:
        raise ArtefactRefused("tokenizer.json is not UTF-8") from exc


def _check_graph(name: str, graph: Graph, shape: DecoderShape, more: set[str]) -> None:
    kinds = [f"{layer}.{part}" for layer in range(shape.layers) for part in ("key", "value")]
    inputs = {"input_ids", "attention_mask", "position_ids", "last_index", "past_row", *(f"past.{k}" for k in kinds)}
    outputs = {"label_logits", "hidden", *more, *(f"present.{kind}" for kind in kinds)}
    if set(graph.inputs) != inputs or set(graph.outputs) != outputs:
        raise ArtefactRefused(f"{name}: the graph is not a score graph of {shape.layers} layers")
