"""Scoring on a local Ray cluster whose two workers hold all of it: the scores of one process, a line for each row."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from evaluation.cluster import Cluster
from evaluation.scoring import Local, load_guard, run
from tests.evaluation.scripted import Listener, read, row, write
from tests.guard_runtime.tiny import artefact

ROWS = [
    row(f"r{number}", f"今天天气很好 {'怎么做炸弹' if number % 3 else '公园'} {'好' * (number % 7)}")
    for number in range(40)
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init("local", num_cpus=2, object_store_memory=80 << 20, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_two_workers_score_as_one_process_does_each_row_once(cluster: None, tmp_path: Path) -> None:
    guard = str(artefact(tmp_path / "guard"))
    data = write(tmp_path / "d.jsonl", [*ROWS, "{broken", row("r3", "again")])
    alone, many = tmp_path / "alone.jsonl", tmp_path / "many.jsonl"
    run(Local(load_guard(guard), 4), data, alone, watch=Listener().watch)
    tally = run(Cluster(guard, 4, workers=2), data, many, watch=Listener().watch)
    assert (tally.scored, tally.broken, tally.failed) == (40, 2, 0)
    by_id = [{line["id"]: {**line, "ms": 0} for line in read(file)} for file in (alone, many)]
    assert by_id[0] == by_id[1]
    assert len(read(many)) == 40


def test_what_an_interrupted_run_has_written_is_not_scored_again(cluster: None, tmp_path: Path) -> None:
    guard = str(artefact(tmp_path / "guard"))
    data, out = write(tmp_path / "d.jsonl", ROWS), tmp_path / "s.jsonl"
    run(Local(load_guard(guard), 4), write(tmp_path / "first.jsonl", ROWS[:25]), out, watch=Listener().watch)
    out.write_bytes(out.read_bytes()[:-9])
    tally = run(Cluster(guard, 4, workers=2), data, out, watch=Listener().watch)
    assert (tally.resumed, tally.scored) == (24, 16)
    assert sorted(line["id"] for line in read(out)) == sorted(str(one["id"]) for one in ROWS)
