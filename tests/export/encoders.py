"""Tiny encoders with a label for each output: transformers folders as their makers would publish them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
)

from export.examples import EXAMPLES

BAD = "坏"
"""What the trained ones look for."""
LETTERS = "今天怎么煮饭公园里有人读书abc"

BERT = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
ROBERTA = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
_SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def tokenizer(architecture: str) -> PreTrainedTokenizerFast:
    """Every character is a word. BERT's frame, or RoBERTa's with its two separators and a Unigram vocabulary."""
    letters = sorted(
        {*map(chr, range(33, 127)), *BAD, *LETTERS, *"".join(p.text + (p.context or "") for p in EXAMPLES)} - {" "}
    )
    names = ROBERTA if architecture == "xlm-roberta" else BERT
    words = [*names.values(), *letters]
    if names is ROBERTA:
        made = Tokenizer(models.Unigram([(word, 0.0) for word in words], unk_id=words.index("<unk>")))
        made.normalizer = normalizers.Replace(Regex(r"\s+"), "")
        frame = ("<s> $A </s>", "<s> $A </s> </s> $B </s>", ("<s>", "</s>"))
    else:
        made = Tokenizer(models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer(lowercase=False)
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Split("", "isolated")]
        )
        frame = ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ("[CLS]", "[SEP]"))
    single, pair, used = frame
    ids = [(token, words.index(token)) for token in used]
    made.post_processor = TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    made.add_special_tokens(list(names.values()))
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def config(architecture: str, size: int, labels: Sequence[str]) -> PretrainedConfig:
    said = {
        "vocab_size": size,
        "max_position_embeddings": 130,
        "initializer_range": 0.4,
        "id2label": dict(enumerate(labels)),
        "pad_token_id": 0 if architecture != "xlm-roberta" else 1,
    }
    match architecture:
        case "bert":
            return BertConfig(**_SIZE, **said)
        case "xlm-roberta":
            return XLMRobertaConfig(**_SIZE, **said, problem_type="multi_label_classification")
        case "modernbert":
            return ModernBertConfig(**_SIZE, **said, local_attention=8, reference_compile=False)
        case "distilbert":
            return DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=64, **said)
    raise ValueError(architecture)


def checkpoint(folder: Path, architecture: str = "bert", labels: Sequence[str] = ("safe", "toxic")) -> Path:
    """Random, its logits spread over either side of a verdict."""
    torch.manual_seed(5)
    reader = tokenizer(architecture)
    model = AutoModelForSequenceClassification.from_config(config(architecture, len(reader), labels))
    return saved(folder, model, reader)


def trained(folder: Path, labels: Sequence[str] = ("harmless", "hate")) -> Path:
    """A BERT that has learned, in a second or two, that texts with `BAD` in them are of the last kind."""
    torch.manual_seed(5)
    reader = tokenizer("bert")
    made = config("bert", len(reader), labels)
    made.initializer_range = 0.1
    model = AutoModelForSequenceClassification.from_config(made).train()
    step = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(80):
        picks = torch.randint(0, len(LETTERS), (32, 20))
        bad = torch.rand(32) < 0.5
        texts = ["".join(LETTERS[int(n)] for n in row) for row in picks]
        texts = [text[: n % 20] + BAD + text[n % 20 :] if bad[n] else text for n, text in enumerate(texts)]
        read = reader(texts, return_tensors="pt", padding=True)
        loss = torch.nn.functional.cross_entropy(model(**read).logits, (bad * (len(labels) - 1)).long())
        loss.backward()
        step.step()
        step.zero_grad()
    return saved(folder, model.eval(), reader)


def saved(folder: Path, model: torch.nn.Module, reader: PreTrainedTokenizerFast) -> Path:
    folder.mkdir(parents=True)
    model.save_pretrained(folder, safe_serialization=True)
    reader.save_pretrained(folder)
    return folder
