"""Tiny random checkpoints with a real tokenizer: transformers folders as their makers would publish them."""

import json
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from tests.guard_runtime.generative.qwen import TEMPLATE, tokenizer_json

VOCABULARY = 151_680
_SIZE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.2,
    "eos_token_id": 151645,
    "bos_token_id": None,
    "pad_token_id": None,
}
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def config(architecture: str) -> PretrainedConfig:
    match architecture:
        case "qwen2":
            return Qwen2Config(**_SIZE)
        case "qwen3":
            return Qwen3Config(**_SIZE, head_dim=8)
        case "llama":
            return LlamaConfig(**_SIZE, rope_scaling={**_LLAMA3, "original_max_position_embeddings": 64})
        case "gemma2":
            return Gemma2Config(**_SIZE, head_dim=8, query_pre_attn_scalar=8, sliding_window=32)
        case "granite":
            multipliers = {"logits_scaling": 4.0, "attention_multiplier": 0.3, "embedding_multiplier": 2.0}
            return GraniteConfig(**_SIZE, **multipliers, residual_multiplier=0.5)
    raise ValueError(architecture)


def checkpoint(folder: Path, architecture: str = "qwen2", *, template: str = TEMPLATE, numbers: bool = False) -> Path:
    torch.manual_seed(7)
    folder.mkdir(parents=True)
    AutoModelForCausalLM.from_config(config(architecture)).save_pretrained(folder, safe_serialization=True)
    (folder / "tokenizer.json").write_text(tokenizer_json(numbers=numbers), "utf-8")
    settings = {"chat_template": template, "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return folder
