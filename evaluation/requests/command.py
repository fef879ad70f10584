"""`python -m evaluation requests`."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import anyio
import orjson

from evaluation.requests.figures import figures_json, figures_of, figures_text
from evaluation.requests.harness import Harness, harness_of
from evaluation.requests.outcome import Outcome
from evaluation.requests.page import page_html
from evaluation.requests.rows import RequestRow, request_rows
from evaluation.scoring import Bar, Watch


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="JSONL of labelled requests")
    parser.add_argument("--config", type=Path, help="a config.yaml; by default the preset balanced, guards that ship")
    parser.add_argument("--tenant", help="whose policy; the only one by default")
    parser.add_argument("--out", type=Path, help="folder for requests.json, requests.txt and requests.html")
    parser.add_argument("--stream", action="store_true", help="judge each reply as a stream too")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, watch: Watch) -> None:
    """Raises `BadData` and `ArtefactRefused`."""
    harness = harness_of(options.config, options.tenant, os.environ)
    rows = request_rows(options.data, harness.read_body)
    with watch.progress(len(rows)) as bar:
        outcomes = anyio.run(_outcomes, harness, rows, options.stream, bar)
    figures = figures_of(outcomes)
    text = "\n".join([*(f"{name}: {value}" for name, value in harness.described.items()), figures_text(figures)])
    print(text)
    if options.out is None:
        return
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "requests.txt").write_text(text + "\n", encoding="utf-8")
    content = {**harness.described, **figures_json(figures)}
    (folder / "requests.json").write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    (folder / "requests.html").write_text(page_html(figures, outcomes), encoding="utf-8")
    print("written:", folder)


async def _outcomes(harness: Harness, rows: Sequence[RequestRow], stream: bool, bar: Bar) -> list[Outcome]:
    outcomes: list[Outcome] = []
    async with harness.running():
        for row in rows:
            outcomes += await harness.outcomes(row, stream=stream)
            bar.update(1)
    return outcomes
