"""GuardModel: an encoder, mean pooling over real tokens, one logit for `unsafe` and one for each category."""

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from training.data.rows import CATEGORIES, BadInput

LABELS = ("unsafe", *CATEGORIES)
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class Reading:
    """What the model made of a batch: logits [rows, 9], and the pooled state after each layer, [rows, hidden] each."""

    logits: Tensor
    states: tuple[Tensor, ...]


class GuardModel(nn.Module):
    """A classifier over BERT. `forward` is what ships; `read` adds the states that distillation matches."""

    def __init__(self, encoder: BertModel, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.config.hidden_size, len(LABELS))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """int64 [rows, tokens] twice -> logits float32 [rows, 9], in the order of LABELS."""
        state = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        logits: Tensor = self.head(self.dropout(pooled(state, attention_mask)))
        return logits

    def read(self, input_ids: Tensor, attention_mask: Tensor) -> Reading:
        """Logits, and each layer's pooled state (the embeddings' first)."""
        found = self.encoder(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        states = tuple(pooled(state, attention_mask) for state in found.hidden_states)
        return Reading(self.head(self.dropout(states[-1])), states)


def pooled(state: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean of `state` [rows, tokens, hidden] over the tokens that are not padding."""
    mask = attention_mask.unsqueeze(-1).to(state.dtype)
    return (state * mask).sum(1) / mask.sum(1)


def with_layers(model: BertModel, layers: tuple[int, ...]) -> BertModel:
    """The same encoder with only `layers` (indices into the old ones, in order)."""
    if not all(0 <= layer < model.config.num_hidden_layers for layer in layers):
        raise BadInput(f"layers {list(layers)}: the base model has layers 0 to {model.config.num_hidden_layers - 1}")
    model.encoder.layer = nn.ModuleList(model.encoder.layer[layer] for layer in layers)
    model.config.num_hidden_layers = len(layers)
    return model


def load(folder: Path, dropout: float = 0.0) -> GuardModel:
    """A guard saved by `save`, or a base encoder folder (training/learning/weights.py), which gets a fresh head."""
    if not (folder / WEIGHTS).is_file():
        raise BadInput(f"{folder}: no {WEIGHTS}; make base weights with `python -m training.learning.weights`")
    state = load_file(folder / WEIGHTS)
    if "head.weight" not in state:
        return GuardModel(BertModel.from_pretrained(folder, add_pooling_layer=False), dropout)
    model = GuardModel(BertModel(BertConfig.from_pretrained(folder), add_pooling_layer=False), dropout)
    model.load_state_dict(state)
    return model


def save(model: GuardModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write weights, config and tokenizer so that `load` and `load_tokenizer` read them back."""
    folder.mkdir(parents=True, exist_ok=True)
    model.encoder.config.save_pretrained(folder)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / WEIGHTS)
    tokenizer.save(str(folder / TOKENIZER))


def load_tokenizer(folder: Path) -> Tokenizer:
    """The folder's `tokenizer.json`, without truncation or padding."""
    if not (folder / TOKENIZER).is_file():
        raise BadInput(f"{folder}: no {TOKENIZER}")
    tokenizer: Tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
