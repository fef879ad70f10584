"""Generative guards on the numpy twin, for tests."""

import functools

from export.render import Renderer, Template
from guard_runtime.artefacts.manifest import Calibration
from guard_runtime.conversation import Direction
from guard_runtime.generative.decoder import Decoder
from guard_runtime.generative.families.published import FAMILIES
from guard_runtime.generative.greedy import GreedyDecoder
from guard_runtime.generative.prefill import LIMITS, PrefillLimits
from guard_runtime.generative.prompt import Probes, label_tokens
from guard_runtime.generative.tokenizer import SafeTokenizer
from guard_runtime.guards.generative import Contract, GenerativeModel
from guard_runtime.text.language import Language
from tests.guard_runtime.generative.qwen import TEMPLATE, tokenizer_json
from tests.guard_runtime.generative.templates import TEMPLATES
from tests.guard_runtime.generative.twin import SHAPE, Twin, TwinHead

CALIBRATION: dict[Direction, dict[Language, Calibration]] = {
    direction: {"zh": Calibration(1.0, 0.0), "en": Calibration(1.0, 0.0)} for direction in Direction
}
END = 151645
VOCABULARY_SIZE = 151_700


@functools.cache
def qwen(*, numbers: bool = False) -> SafeTokenizer:
    return SafeTokenizer(tokenizer_json(numbers=numbers))


def vocabulary(family: str) -> SafeTokenizer:
    return qwen(numbers=family.startswith("llama"))


@functools.cache
def probes(family: str) -> Probes:
    template = Template(TEMPLATES.get(family, TEMPLATE), {})
    return Renderer(FAMILIES[family], template, vocabulary(family)).probes()


def guard(
    family: str = "libra_guard", *, limits: PrefillLimits = LIMITS, head: dict[int, float] | None = None, seed: int = 0
) -> tuple[GenerativeModel, Twin]:
    """A guard of this family; with `head`, one that looks after its format, these tokens favoured."""
    asked = probes(family)
    twin = Twin(label_tokens(asked), VOCABULARY_SIZE, seed)
    decoder = Decoder(twin, SHAPE)
    greedy = None if head is None else GreedyDecoder(decoder, TwinHead(twin, head), frozenset({END}))
    published = FAMILIES[family]
    contract = Contract(family, asked, CALIBRATION, published.json_key, published.rationale)
    return GenerativeModel(contract, vocabulary(family), decoder, greedy, limits), twin
