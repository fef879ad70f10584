"""A local checkpoint folder, opened without running a line of its code."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import GenerationConfig, PreTrainedModel

from guard_runtime.errors import ArtefactRefused

_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
_CONFIGS = ("config.json", "tokenizer_config.json", "generation_config.json")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`model` in fp32 with plain attention, `tokenizer` as JSON, `stop`: the tokens that end an answer."""

    folder: Path
    model: PreTrainedModel
    tokenizer: str
    stop: tuple[int, ...]

    def covers(self, tokens: Iterable[int]) -> None:
        """Raises `ArtefactRefused` unless each of these is a row of the model's embedding."""
        rows, highest = self.model.get_input_embeddings().weight.shape[0], max(tokens, default=0)
        if highest >= rows:
            raise ArtefactRefused(
                f"the tokenizer has token {highest}, the model {rows} embeddings: not of one checkpoint"
            )


def encodes(folder: Path) -> bool:
    """Whether config.json says that this is an encoder with a label for each output."""
    if not (folder / "config.json").is_file():
        return False
    made = _json(folder / "config.json").get("architectures")
    return isinstance(made, list) and any(str(name).endswith("ForSequenceClassification") for name in made)


def opened(folder: Path, loader: Any, *, known: bool = False) -> Checkpoint:
    """Loads it with `loader`, one of transformers' AutoModel classes. Raises `ArtefactRefused` for anything but a whole
    local folder with safetensors and no code of its own; `known`: what that code would do is written out here, so that
    it may lie there, and is not run either."""
    if not folder.is_dir():
        raise ArtefactRefused(f"{folder}: not a local folder; checkpoints are never fetched")
    configs = {name: _json(folder / name) for name in _CONFIGS if (folder / name).is_file()}
    if "config.json" not in configs:
        raise ArtefactRefused(f"{folder}: no config.json")
    for name, content in configs.items():
        if "auto_map" in content and not known:
            raise ArtefactRefused(
                f"{folder / name}: auto_map asks for code of the checkpoint's own to be run; it is not"
            )
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
        found = f"only {', '.join(pickles)}, and a pickle runs code when it is read" if pickles else "no weights"
        raise ArtefactRefused(f"{folder}: {found}; convert it to safetensors")
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise ArtefactRefused(f"{folder}: no tokenizer.json (save the fast tokenizer with transformers first)")
    model = _model(folder, loader)
    return Checkpoint(folder, model, tokenizer.read_text("utf-8"), _stop(model, configs))


def _model(folder: Path, loader: Any) -> PreTrainedModel:
    try:
        model, found = loader.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as exc:
        raise ArtefactRefused(f"{folder}: the checkpoint cannot be loaded: {exc}") from exc
    if found["missing_keys"] or found["mismatched_keys"]:
        lost = sorted(map(str, (*found["missing_keys"], *found["mismatched_keys"])))
        raise ArtefactRefused(f"{folder}: weights that are not there: {', '.join(lost[:3])} ({len(lost)} in all)")
    wrong = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if wrong:
        raise ArtefactRefused(f"{folder}: weights that are not finite numbers: {', '.join(wrong[:3])}")
    opened_model: PreTrainedModel = model.eval()
    return opened_model


def _stop(model: PreTrainedModel, configs: dict[str, dict[str, Any]]) -> tuple[int, ...]:
    generation = GenerationConfig.from_dict(configs.get("generation_config.json", {}))
    found = [generation.eos_token_id, model.config.eos_token_id]
    tokens: set[int] = set()
    for item in found:
        tokens.update(item if isinstance(item, list) else [] if item is None else [item])
    return tuple(sorted(tokens))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as exc:
        raise ArtefactRefused(f"{path}: {exc}") from exc
    if not isinstance(content, dict):
        raise ArtefactRefused(f"{path}: not a JSON object")
    return content
