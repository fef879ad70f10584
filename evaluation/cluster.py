"""Scoring on a Ray cluster: one actor per core or GPU, each with a guard of its own. Needs the extra `ray`."""

import importlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.datasets import BadData, Broken, Sample
from evaluation.scoring import Score, load_guard, scores
from guard_runtime.onnx.devices import Device, Placement

Batch = dict[str, list[str]]


class Scorer:
    """What an actor does: rows in as JSON, scores out as JSON. The guard is loaded once, on the actor's machine."""

    def __init__(self, guard: str, device: Device) -> None:
        self._guard = load_guard(guard, Placement((device,)))

    def __call__(self, batch: Mapping[str, Sequence[str]]) -> Batch:
        rows = [_sample(text) for text in batch["row"]]
        return {"answer": [_written(answer) for answer in scores(self._guard, rows, len(rows))]}


@dataclass(frozen=True, slots=True)
class Cluster:
    """An engine: the cluster that Ray finds (`RAY_ADDRESS`), or this machine. `workers` 0: as many as it has places."""

    guard: str
    batch: int
    device: Device = Device.CPU
    workers: int = 0

    def __call__(self, rows: Sequence[Sample]) -> Iterator[Score | Broken]:
        """Raises BadData where Ray is not installed, or has no place for an actor."""
        try:
            ray, data = importlib.import_module("ray"), importlib.import_module("ray.data")
        except ImportError as exc:
            raise BadData("--engine ray needs Ray: pip install 'libragate[ray]'") from exc
        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or Ray reports its use to its makers
            ray.init(log_to_driver=False)
        kind = "CPU" if self.device is Device.CPU else "GPU"
        places = self.workers or int(ray.cluster_resources().get(kind, 0))
        if not places:
            raise BadData(f"--engine ray: the cluster has no {kind}")
        needs = {"num_cpus": 1} if kind == "CPU" else {"num_gpus": 1}
        given = [{"row": json.dumps(asdict(row), ensure_ascii=False)} for row in rows]
        # Blocks are cut here, not by tasks of Ray's: the actors hold every place, and such a task would wait for ever.
        # Each is a few batches: the rows of a block that a crash loses are scored again.
        blocks = min(len(rows), max(places, len(rows) // (8 * self.batch)))
        answered = data.from_items(given, override_num_blocks=blocks).map_batches(
            Scorer,
            fn_constructor_args=(self.guard, self.device),
            batch_size=self.batch,
            concurrency=min(places, len(rows)),
            **needs,
        )
        for row in answered.iter_rows():
            yield _read(row["answer"])


def _sample(text: str) -> Sample:
    fields: dict[str, Any] = json.loads(text)
    return Sample(**{**fields, "categories": tuple(fields["categories"])})


def _written(answer: Score | Broken) -> str:
    return json.dumps({"broken": isinstance(answer, Broken), **asdict(answer)}, ensure_ascii=False)


def _read(text: str) -> Score | Broken:
    fields: dict[str, Any] = json.loads(text)
    return Broken(**fields) if fields.pop("broken") else Score(**fields)
