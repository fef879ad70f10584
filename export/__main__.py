"""`python -m export MODEL_DIR --family libra_guard --out ARTEFACT --precision int8 --target cpu`."""

import logging
import sys
from pathlib import Path

import click

from export.folder import Order
from export.quantize import Precision
from export.to_onnx import export
from guard_runtime.errors import ArtefactRefused
from guard_runtime.generative.families.published import FAMILIES
from guard_runtime.guards.classifier import FAMILY as CLASSIFIER

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The artefact's folder; must not exist yet."
)
@click.option(
    "--family",
    type=click.Choice([CLASSIFIER, *sorted(FAMILIES)]),
    help="How the guard is asked; needed but for a sequence classifier.",
)
@click.option("--precision", default="int8", type=click.Choice([p.value for p in Precision]), show_default=True)
@click.option("--target", default="cpu", type=click.Choice(["cpu", "cuda", "tensorrt"]), show_default=True)
@click.option("--name", default="", help="The guard's name; the folder's by default.")
@click.option("--version", default="0.1.0", show_default=True)
@click.option(
    "--max-tokens",
    default=0,
    type=click.IntRange(0, 8_192),
    help="In one prefill (4,096 by default) or one window of an encoder (512).",
)
@click.option("--labels", type=_FILE, help="YAML: what an encoder's labels mean, reference/export.md.")
@click.option("--calibration", type=_FILE, help="JSON: {direction: {language: {temperature, bias}}}.")
@click.option("--rows", type=_FILE, help="JSON lines with prompt, response and, for AUROC, unsafe.")
@click.option("--head/--no-head", default=True, help="Keep the whole head, for format health and explanations.")
def main(checkpoint: Path, out: Path, precision: str, family: str | None, **options: object) -> None:
    """Turn a local checkpoint into a guard artefact, and check it against the checkpoint."""
    logging.disable(logging.WARNING)
    order = Order(checkpoint, out, family or "", precision=Precision(precision), **options)  # type: ignore[arg-type]
    try:
        found = export(order)
    except ArtefactRefused as exc:
        print(f"refused: {exc}", file=sys.stderr)
        sys.exit(2)
    form = "" if found.in_form is None else f", in form {found.in_form:.4f}"
    print(
        f"{out}: agreement {found.agreement:.4f} on {found.rows} rows, p99 |dp| {found.p99:.4f}, "
        f"worst {found.worst:.4f}{form}"
    )
    if found.auroc_artefact is not None:
        print(f"AUROC: checkpoint {found.auroc_checkpoint:.4f}, artefact {found.auroc_artefact:.4f}")
    if not found.verified:
        print("UNVERIFIED: below 99 % agreement; the runtime refuses this artefact unless it is allowed by name")
        sys.exit(1)


if __name__ == "__main__":
    main()
