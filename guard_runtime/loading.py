"""From a folder on disk to a guard that reads conversations."""

import os
from collections.abc import Sequence
from pathlib import Path

from guard_runtime.artefact import Artefact
from guard_runtime.batcher import Batcher, Limits
from guard_runtime.cache import VerdictCache
from guard_runtime.guards.classifier import Classifier
from guard_runtime.reader import Reader
from guard_runtime.session import CPU

GPU_BATCH = 32


def load_classifier(
    folder: Path,
    *,
    threads: int = 1,
    max_queue: int = 512,
    cache_bytes: int = 16 << 20,
    providers: Sequence[str] = (CPU,),
) -> Reader:
    """The guard in `folder`, self-tested and warm. Raises `ArtefactRefused`.

    On a CPU the model gets one text at a time: batches buy nothing there, and the next text need not wait.
    For metrics set `batcher.observe`, and read `batcher.queued`, `cache.hits` and `cache.misses`.
    """
    batch = 1 if providers[0] == CPU else GPU_BATCH
    classifier = Classifier(Artefact.load(folder), providers=providers, threads=threads, max_rows=batch)
    batcher = Batcher(classifier, name=classifier.name, limits=Limits(queue=max_queue, batch=batch))
    return Reader(classifier, batcher, VerdictCache(cache_bytes, os.urandom(32)))
