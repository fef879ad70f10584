"""From a folder on disk to a guard that reads conversations."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from guard_runtime.artefacts.artefact import Artefact
from guard_runtime.guard import Model
from guard_runtime.guards.classifier import DEFAULT_OPTIONS as ONE_BY_ONE
from guard_runtime.guards.classifier import Classifier, ClassifierOptions
from guard_runtime.guards.passage_guard import PassageGuard
from guard_runtime.loading.options import DEFAULT_OPTIONS, ServingOptions
from guard_runtime.onnx.devices import ON_CPU, Device, Placement
from guard_runtime.serving.batcher import Batcher, QueueLimits
from guard_runtime.serving.verdict_cache import VerdictCache
from guard_runtime.serving.warm_swap import WarmSwap

GPU_BATCH = 32

M = TypeVar("M", bound=Model)


def load_classifier(
    folder: Path,
    *,
    place: Placement = ON_CPU,
    serving: ServingOptions = DEFAULT_OPTIONS,
    options: ClassifierOptions = ONE_BY_ONE,
) -> PassageGuard:
    """The guard in `folder`, self-tested and warm. Raises `ArtefactRefused`; with `options.unverified`, not of one that
    did not agree with the checkpoint it was exported from.

    On a CPU the model gets one text at a time: batches gain nothing there, and the next text need not wait.
    """
    artefact = Artefact.load(folder)
    batch = 1 if place.on_cpu else GPU_BATCH
    options = replace(options, max_rows=batch, threads=options.threads if place.on_cpu else 1)
    classifier, model = placed(lambda where: Classifier(artefact, place=where, options=options), place)
    limits = QueueLimits(queue=serving.max_queue, batch=batch)
    batcher = Batcher(model, name=classifier.name, limits=limits, observer=serving.observer)
    return PassageGuard(classifier, batcher, VerdictCache(serving.cache_bytes, os.urandom(32)))


def placed(make: Callable[[Placement], M], place: Placement) -> tuple[M, M | WarmSwap[M]]:
    """The model that serves now, and the one to ask. They differ only where TensorRT is asked for and less will do: an
    engine takes minutes to build, so the next device serves until it is there."""
    if place.first is not Device.TENSORRT or not place.degrade or len(place.devices) < 2:
        model = make(place)
        return model, model
    now = make(replace(place, devices=place.devices[1:]))
    swap = WarmSwap(now, lambda: make(replace(place, degrade=False)))
    swap.start()
    return now, swap
