"""`python -m tests.simulation --streams 50000`: many worlds; what fails is printed and kept in tests/seeds.txt."""

import argparse
import collections
import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.simulation.run import Stuck, Violation, run
from tests.simulation.world import world

SEEDS = Path(__file__).parent.parent / "seeds.txt"
BATCH = 250


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--streams", type=int, default=50_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.streams)
    began = time.perf_counter()
    ended: collections.Counter[str] = collections.Counter()
    failed: dict[int, str] = {}
    for done, (endings, failures) in enumerate(_batches(seeds, options.jobs), 1):
        ended.update(endings)
        failed.update(failures)
        count = min(done * BATCH, len(seeds))
        rate = count / (time.perf_counter() - began)
        if done % 8 == 0 or count == len(seeds):
            _say(f"{count:>7,} of {len(seeds):,} streams, {rate:,.0f} a second, {len(failed)} failed")
    _say(", ".join(f"{how} {number:,}" for how, number in ended.most_common()))
    _keep(failed)
    return 1 if failed else 0


def _batches(seeds: range, jobs: int) -> Iterator[tuple[list[str], dict[int, str]]]:
    batches = [seeds[at : at + BATCH] for at in range(0, len(seeds), BATCH)]
    if jobs == 1:
        yield from map(_batch, batches)
        return
    with multiprocessing.Pool(jobs) as pool:
        yield from pool.imap_unordered(_batch, batches)


def _batch(seeds: Iterable[int]) -> tuple[list[str], dict[int, str]]:
    """How each world ended, and what was wrong with those that failed. The collector runs once, at the end: tasks and
    scopes refer to each other in circles, and looking for them all the time costs a third of the speed."""
    gc.disable()
    endings, failures = [], {}
    for seed in seeds:
        try:
            endings.append(run(world(seed)).ended)
        except (Violation, Stuck) as exc:
            failures[seed] = f"{type(exc).__name__}: {exc}"
    gc.enable()
    gc.collect()
    return endings, failures


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _keep(failed: dict[int, str]) -> None:
    for seed, what in sorted(failed.items()):
        _say(f"seed {seed}: {what}")
    known = kept_seeds()
    with SEEDS.open("a") as file:
        file.writelines(f"{seed}  # {what}\n" for seed, what in sorted(failed.items()) if seed not in known)


def kept_seeds() -> list[int]:
    """Every seed that ever failed."""
    lines = SEEDS.read_text().splitlines() if SEEDS.exists() else []
    return [int(line.split("#")[0]) for line in lines if line.split("#")[0].strip()]


if __name__ == "__main__":
    sys.exit(main())
