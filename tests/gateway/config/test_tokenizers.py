"""A model's tokenizer in config.yaml: token ids are turned back into text, and none of them is lost on the way."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from gateway.config.loader import load_config
from gateway.errors import BadRequest, ConfigError
from gateway.judging.judge import Judge
from gateway.wiring import gateway_of
from guard_runtime.verdict import CATEGORIES

POLICY = "refusal: {zh: 抱歉, en: Sorry}\nrules:\n" + "".join(
    f"  {category}: {{prompt: [{{at: 0.8, do: block}}], response: [{{at: 0.8, do: block}}]}}\n"
    for category in CATEGORIES
)
CONFIG = """
guards: [{{kind: scripted}}]
upstreams: {{up: {{kind: scripted}}}}
models: {{demo: {{upstream: up, tokenizer: {tokenizer}}}}}
tenants: {{a: {{policy: base, key_variable: K}}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/base.yaml").write_text(POLICY, "utf-8")
    (tmp_path / "config.yaml").write_text(CONFIG.format(tokenizer="tokenizer.json"), "utf-8")
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "how": 1, "to": 2, "steal": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<|system|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def read(folder: Path, ids: list[int]) -> str:
    gateway = gateway_of(load_config(folder / "config.yaml", {}), Judge([]), "0")
    (completions,) = [dialect for dialect in gateway.runtime.dialects if dialect.name == "completions"]
    conversation = completions.read_request({"model": "demo", "prompt": ids})
    return conversation.turns[-1].text


def test_token_ids_are_read_as_the_text_they_are_control_tokens_too(folder: Path) -> None:
    assert read(folder, [1, 2, 3]) == "how to steal"
    assert read(folder, [4, 3]) == "<|system|> steal"


@pytest.mark.parametrize("ids", [[1, 99], [1, -1], [1, 2**40]])
def test_an_id_that_the_tokenizer_lacks_is_refused_and_not_dropped(folder: Path, ids: list[int]) -> None:
    with pytest.raises(BadRequest, match="a token id that this model does not have"):
        read(folder, ids)


def test_a_tokenizer_that_is_missing_or_broken_stops_the_start_by_name(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}", "utf-8")
    with pytest.raises(ConfigError, match=r"model demo: .* is no tokenizer.json"):
        read(folder, [1])
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"model demo: its tokenizer .* cannot be read"):
        read(folder, [1])
