"""The commands `requests`, `injections` and `build-requests`."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import anyio

from evaluation.requests import dev_set, injections, page, summary
from evaluation.requests.harness import Harness, harness_of
from evaluation.requests.outcome import Outcome
from evaluation.requests.rows import RequestRow, request_rows
from evaluation.scoring import Watch


def arguments(commands: Any) -> None:
    """Adds the three commands to the harness's own."""
    for name, run in (("requests", _requests), ("injections", _injections)):
        command = commands.add_parser(name, help=f"{name}, judged as the gateway judges them")
        command.add_argument("--data", type=Path, required=True)
        command.add_argument("--config", type=Path, help="by default the guards that ship and the preset balanced")
        command.add_argument("--tenant", help="whose policy; the only one by default")
        command.add_argument("--sample", type=int, default=0, help="so many rows, drawn by chance; 0 is all")
        command.add_argument("--seed", type=int, default=0)
        command.set_defaults(run=run)
        if name == "requests":
            command.add_argument("--out", type=Path, help="folder for report.json and report.html (holds content)")
            command.add_argument("--stream", action="store_true", help="replay each reply as a stream too")
            command.add_argument("--gate", action="store_true", help="exit with 1 when a threshold is missed")
    build = commands.add_parser("build-requests", help="the dev set of requests")
    build.add_argument("--genres", type=Path, required=True, help="folder with genres_dev.jsonl and its neighbours")
    build.add_argument("--rows", type=Path, action="append", default=[], help="a folder of further written rows")
    build.add_argument("--out", type=Path, required=True)
    build.add_argument("--injections", type=Path, help="where the hosts for `injections` go")
    build.add_argument("--seed", type=int, default=0)
    build.set_defaults(run=_build)


async def judged(harness: Harness, rows: Sequence[RequestRow], watch: Watch, *, stream: bool) -> list[Outcome]:
    """The outcomes of all rows, one row after the other, guards started once."""
    found: list[Outcome] = []
    async with harness.running():
        with watch.progress(len(rows)) as bar:
            for row in rows:
                found += await harness.outcomes(row, stream=stream)
                bar.update(1)
    return found


def _requests(options: argparse.Namespace, watch: Watch) -> int:
    harness = harness_of(options.config, options.tenant, os.environ)
    rows = _sampled(request_rows(options.data, harness.read_body), options)
    outcomes = anyio.run(lambda: judged(harness, rows, watch, stream=options.stream))
    print(summary.text(outcomes, harness.described))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        content = json.dumps(summary.plain(outcomes, harness.described), ensure_ascii=False, indent=1)
        (options.out / "report.json").write_text(content + "\n", encoding="utf-8")
        (options.out / "report.html").write_text(page.html(outcomes, harness.described), encoding="utf-8")
    missed = summary.misses(outcomes) if options.gate else []
    print(*missed, sep="\n")
    return 1 if missed else 0


def _injections(options: argparse.Namespace, watch: Watch) -> int:
    harness = harness_of(options.config, options.tenant, os.environ)
    hosts = _sampled(injections.hosts(options.data, harness.read_body), options)
    outcomes = anyio.run(lambda: judged(harness, [host.row for host in hosts], watch, stream=False))
    print(injections.table(list(zip(hosts, outcomes, strict=True))))
    return 0


def _sampled(rows: list[Any], options: argparse.Namespace) -> list[Any]:
    if not 0 < options.sample < len(rows):
        return rows
    return Random(options.seed).sample(rows, options.sample)


def _build(options: argparse.Namespace, watch: Watch) -> int:
    made = dev_set.build(options.genres, options.rows, options.seed)
    dev_set.write(made.requests, options.out)
    print(f"{options.out}: {len(made.requests)} requests")
    if options.injections:
        dev_set.write(made.injections, options.injections)
        print(f"{options.injections}: {len(made.injections)} hosts")
    return 0
