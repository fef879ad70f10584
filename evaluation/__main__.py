"""The command line of the harness: `python -m evaluation COMMAND`; `--help` lists the commands."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from tqdm import tqdm

from evaluation import libra_test, page, report, robustness, scoring
from evaluation.cluster import Cluster
from evaluation.datasets import BadData, Share
from evaluation.requests import commands as requests
from evaluation.scoring import Bar, Watch
from guard_runtime.errors import ArtefactRefused
from guard_runtime.onnx.devices import Device, Placement


def _bar(total: int) -> AbstractContextManager[Bar]:
    bar: AbstractContextManager[Bar] = tqdm(total=total, unit=" rows", file=sys.stderr)
    return bar


WATCH = Watch(_bar, partial(print, file=sys.stderr))


def main(given: Sequence[str] | None = None, watch: Watch = WATCH) -> int:
    """Runs one command. Exits with 2 and one message when a guard or a data file cannot be used."""
    options = _parser().parse_args(given)
    try:
        return int(options.run(options, watch) or 0)
    except (BadData, ArtefactRefused) as exc:
        print(exc, file=sys.stderr)
        return 2


def _score(options: argparse.Namespace, watch: Watch) -> None:
    share = Share(options.machine_rank, options.machine_num)
    tally = scoring.run(_engine(options), options.data, options.out, watch=watch, share=share)
    unscored = f"{tally.broken} broken, {tally.failed} failed"
    out = scoring.part(options.out, share)
    print(f"{out}: {tally.scored} rows scored now, {tally.resumed} before; {unscored}")


def _engine(options: argparse.Namespace) -> scoring.Engine:
    if options.engine == "ray":
        return Cluster(options.guard, options.batch, options.device, options.workers)
    return scoring.Local(scoring.load_guard(options.guard, Placement((options.device,))), options.batch)


def _report(options: argparse.Namespace, watch: Watch) -> None:
    made = report.made(options.data, options.scores, options.seed)
    print(report.text(made))
    folder: Path = options.out or options.scores[0].with_suffix("")
    paths = report.save(made, folder)
    html = folder / "report.html"
    html.write_text(page.html(made), encoding="utf-8")
    print("written:", *paths, html)


def _libra_test(options: argparse.Namespace, watch: Watch) -> None:
    share = Share(options.machine_rank, options.machine_num)
    judge = libra_test.Judge(scoring.load_guard(options.base_model), options.batch_size, watch)
    judge.run(options.data_path, options.out_path, share)
    judged = sorted(options.out_path.glob(f"*-of-{options.machine_num}.jsonl"))
    if len(judged) < options.machine_num:
        print(f"{len(judged)} of {options.machine_num} machines have written so far", file=sys.stderr)
    print(libra_test.shown(libra_test.table(judged)))


def _robustness(options: argparse.Namespace, watch: Watch) -> None:
    guard = scoring.load_guard(options.guard)
    rows = robustness.chosen(options.data, options.rows, options.seed, watch)
    found = list(robustness.Bench(guard, options.batch, watch).results(rows, options.seed))
    print(robustness.shown(found))
    if options.out:
        robustness.save(found, options.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evaluation", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    score = commands.add_parser("score", help="one line of scores for every row")
    score.add_argument("--guard", required=True, help="a guard that ships, or an artefact's folder")
    score.add_argument("--data", type=Path, required=True)
    score.add_argument("--out", type=Path, required=True, help="rows it holds already are not scored again")
    score.add_argument("--batch", type=_positive, default=16)
    score.add_argument("--device", type=Device, default=Device.CPU, choices=[Device.CPU, Device.CUDA])
    score.add_argument("--engine", default="local", choices=["local", "ray"], help="this process, or a Ray cluster")
    score.add_argument("--workers", type=int, default=0, help="actors; by default one for each core or GPU of Ray's")
    libra_test.share_arguments(score)
    score.set_defaults(run=_score)
    shown = commands.add_parser("report", help="figures of a score file: text, JSON, CSV and a page")
    shown.add_argument("--data", type=Path, required=True)
    shown.add_argument("--scores", type=Path, required=True, nargs="+", help="one file, or every machine's")
    shown.add_argument("--out", type=Path, help="folder; by default named after the score file")
    shown.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    shown.set_defaults(run=_report)
    libra = commands.add_parser("libra-test", help="Libra-Test, with the switches of Libra's inference script")
    libra_test.arguments(libra)
    libra.set_defaults(run=_libra_test)
    robust = commands.add_parser("robustness", help="every perturbation at three strengths")
    robust.add_argument("--guard", required=True, help="a guard that ships, or an artefact's folder")
    robust.add_argument("--data", type=Path, required=True)
    robust.add_argument("--rows", type=_positive, default=300, help="at most so many of each label")
    robust.add_argument("--batch", type=_positive, default=16)
    robust.add_argument("--seed", type=int, default=0)
    robust.add_argument("--out", type=Path, help="JSON file for the results")
    robust.set_defaults(run=_robustness)
    requests.arguments(commands)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
