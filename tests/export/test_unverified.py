"""An export that really disagrees with its checkpoint is written, says so, and is not served unless allowed by name."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from export.__main__ import main
from export.examples import EXAMPLES
from export.render import Renderer, template_of
from guard_runtime.artefacts.artefact import Artefact
from guard_runtime.conversation import Direction
from guard_runtime.errors import ArtefactRefused
from guard_runtime.generative.families.published import FAMILIES
from guard_runtime.generative.tokenizer import SafeTokenizer
from guard_runtime.loading.generative import generative_model, load_generative
from tests.export.test_greedy import balanced
from tests.export.tiny import checkpoint


@pytest.fixture(scope="module")
def undecided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that is of two minds about every example, so that four bits are too few to tell its verdicts."""
    folder = checkpoint(tmp_path_factory.mktemp("checkpoints") / "undecided")
    tokenizer = SafeTokenizer((folder / "tokenizer.json").read_text("utf-8"))
    (probe,) = Renderer(FAMILIES["libra_guard"], template_of(folder), tokenizer).probes()[Direction.RESPONSE]
    balanced(folder, probe, tokenizer, [passage for passage in EXAMPLES if passage.direction is Direction.RESPONSE])
    return folder


def test_four_bits_that_turn_verdicts_over_are_written_as_unverified_and_refused(
    undecided: Path, tmp_path: Path
) -> None:
    out = tmp_path / "int4"
    order = [str(undecided), "--out", str(out), "--family", "libra_guard", "--precision", "int4", "--no-head"]
    result = CliRunner().invoke(main, order)
    assert result.exit_code == 1, result.output
    assert "UNVERIFIED: below 99 % agreement" in result.output
    artefact = Artefact.load(out)
    stored = artefact.manifest.generative or {}
    assert stored["verified"] is False
    assert stored["parity"]["agreement"] < 0.99
    for load in (generative_model, lambda _: load_generative(out)):
        with pytest.raises(ArtefactRefused, match="does not agree with its checkpoint"):
            load(artefact)
    assert load_generative(out, unverified=True).name == "undecided"
