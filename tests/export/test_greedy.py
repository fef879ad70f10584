"""One forced prefill says what the checkpoint itself writes, greedily and unforced, read as Libra's scorer reads it."""

from collections.abc import Sequence
from pathlib import Path

import json_repair
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from export.render import Renderer, template_of
from export.to_onnx import Order, export
from guard_runtime.artefacts.artefact import Artefact
from guard_runtime.conversation import Direction
from guard_runtime.generative.families.published import FAMILIES
from guard_runtime.generative.prompt import Probe, words
from guard_runtime.generative.tokenizer import SafeTokenizer
from guard_runtime.guard import Passage
from guard_runtime.loading.generative import generative_model
from tests.export.tiny import checkpoint

ROWS = 500
END = 151645
PIECES = (
    *("先洗米", "再加水", "boil it", "，", "。", "\n", "转小火", "twenty minutes", "！", "安全"),
    *("<|im_end|>", '{"答案": "安全"}'),
)


def passages(count: int, seed: int) -> list[Passage]:
    random = np.random.default_rng(seed)
    texts = ["".join(random.choice(PIECES, size=random.integers(1, 10))) for _ in range(2 * count)]
    return [Passage(Direction.RESPONSE, texts[2 * n], texts[2 * n + 1]) for n in range(count)]


def balanced(folder: Path, probe: Probe, tokenizer: SafeTokenizer, rows: Sequence[Passage]) -> None:
    """Moves the two verdict words of a random checkpoint apart until about half of the rows get either."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    safe, unsafe = (label.token for label in probe.labels)
    head = model.get_output_embeddings().weight
    with torch.no_grad():
        prompts = [torch.tensor([tokenizer.tokens(probe.segments, words(row))]) for row in rows]
        states = torch.cat([model.get_decoder()(input_ids=ids).last_hidden_state[:, -1] for ids in prompts])
        middle = states.mean(0)
        shift = (states @ (head[unsafe] - head[safe])).median() * middle / (middle @ middle)
        head[unsafe] -= shift / 2
        head[safe] += shift / 2
    model.save_pretrained(folder, safe_serialization=True)


class Form:
    """What a random checkpoint is let write: Libra-Guard's answer, in which the verdict is its own choice."""

    def __init__(self, probe: Probe, tokenizer: SafeTokenizer) -> None:
        safe, unsafe = (label.token for label in probe.labels)
        before = [[token] for token in tokenizer.text(probe.forced)]
        after = tokenizer.text('",\n')
        self._safe = [*before, [safe, unsafe], after[:1], [END]]
        self._unsafe = [*before, [safe, unsafe], [safe], after[:1], [END]]
        self._places = (len(before), unsafe)

    def allowed(self, written: Sequence[int]) -> list[int]:
        place, unsafe = self._places
        form = self._unsafe if len(written) > place and written[place] == unsafe else self._safe
        return form[len(written)] if len(written) < len(form) else [END]


def greedy(folder: Path, probe: Probe, tokenizer: SafeTokenizer, rows: Sequence[Passage]) -> list[bool | None]:
    """As caskcsg/Libra's script does: left padding, greedy steps on cached keys, the answer repaired as JSON; None for
    no answer."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    form = Form(probe, tokenizer)
    found: list[bool | None] = []
    for start in range(0, len(rows), 50):
        prompts = [tokenizer.tokens(probe.unforced, words(row)) for row in rows[start : start + 50]]
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.no_grad():
            written = model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=12,
                do_sample=False,
                eos_token_id=END,
                pad_token_id=END,
                prefix_allowed_tokens_fn=lambda _, seen, start=longest: form.allowed(seen[start:].tolist()),
            )
        for row in written[:, longest:]:
            answer = json_repair.loads(tokenizer.spelled([int(token) for token in row]))
            value = answer.get("答案") if isinstance(answer, dict) else None
            known = isinstance(value, str) and "安全" in value
            found.append("不安全" in value if known else None)
    return found


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama", "gemma2", "granite"])
def test_the_forced_prefill_gives_the_greedy_verdict_on_500_rows(architecture: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint", architecture)
    tokenizer = SafeTokenizer((folder / "tokenizer.json").read_text("utf-8"))
    (probe,) = Renderer(FAMILIES["libra_guard"], template_of(folder), tokenizer).probes()[Direction.RESPONSE]
    balanced(folder, probe, tokenizer, passages(32, seed=1))
    rows = passages(ROWS, seed=2)
    theirs = greedy(folder, probe, tokenizer, rows)
    export(Order(folder, tmp_path / "artefact", "libra_guard", head=False))
    model = generative_model(Artefact.load(tmp_path / "artefact"))
    ours = [verdict.risk >= 0.5 for verdict in model.predict(rows)]
    assert theirs.count(None) == 0
    assert 0.1 < np.mean(ours) < 0.9
    assert ours == theirs
