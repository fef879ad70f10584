"""From a sequence classifier to a `classifier` artefact: optimum's graph, with our two inputs and nine logits."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import onnx
import torch
from optimum.exporters.onnx import export as export_onnx
from optimum.exporters.tasks import TasksManager
from optimum.onnxruntime import ORTOptimizer
from optimum.onnxruntime.configuration import OptimizationConfig
from optimum.onnxruntime.utils import ORTConfigManager
from tokenizers import Encoding, Tokenizer
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from export.checkpoint import Checkpoint, opened
from export.examples import EXAMPLES
from export.folder import Draft, Order, fresh, refuse_external
from export.labels import Labels, VerdictHead, labels_of
from export.parity import Labelled, Parity, compared, labelled
from export.quantize import Precision, quantize
from guard_runtime.artefacts.artefact import Artefact
from guard_runtime.artefacts.manifest import LABELS, Calibration
from guard_runtime.conversation import Direction
from guard_runtime.errors import ArtefactRefused
from guard_runtime.generative.scoring import probability
from guard_runtime.guard import Passage
from guard_runtime.guards.classifier import (
    CONTEXT_CHARACTERS,
    FAMILY,
    Classifier,
    ClassifierOptions,
    context_tokens,
    readings,
)
from guard_runtime.text.language import language_of
from guard_runtime.text.normalise import normalise

OPSET = 18
MAX_TOKENS = 512
INPUTS = ("input_ids", "attention_mask")
OPTIONAL = frozenset({*INPUTS, "token_type_ids"})
QUANTISED = ("MatMul", "Attention", "Gather")
"""Products, those inside fused attention, and the embedding: most of a multilingual encoder's bytes."""


def export(order: Order) -> Parity:
    """Writes the artefact whole or not at all: see `export.to_onnx.export`."""
    if order.target == "tensorrt" and order.precision in (Precision.INT8, Precision.INT4):
        raise ArtefactRefused(f"TensorRT takes no {order.precision} graph of ours: use fp16")
    checkpoint = opened(order.checkpoint, AutoModelForSequenceClassification)
    labels = labels_of(checkpoint.model.config, order.labels)
    frame = Frame.of(checkpoint, labels)
    with fresh(order.out) as folder:
        fused = _write_graph(order, checkpoint, Reading(labels, frame), folder)
        (folder / "tokenizer.json").write_text(checkpoint.tokenizer, "utf-8")
        refuse_external(folder, order.precision)
        section = {**frame.stored(), "labels": labels.stored(), "fused": fused, "target": order.target}
        facts = {
            "family": FAMILY,
            "opset": _opset(folder / "model.onnx"),
            "labels": list(LABELS),
            "max_tokens": min(order.max_tokens or MAX_TOKENS, _longest(checkpoint)),
            "encoder": {**section, "verified": False, "parity": None},
        }
        draft = Draft.of(order, folder, "encoder", facts)
        model = Classifier(Artefact.load(folder), tested=False)
        found = _parity(Reference(checkpoint, labels, draft), model, order)
        draft.finish(found, model)
        Classifier(Artefact.load(folder), options=ClassifierOptions(unverified=True))
    return found


@dataclass(frozen=True, slots=True)
class Frame:
    """The tokens around and between texts, as the checkpoint's tokenizer lays them. `between`: () where an answer is
    shown alone. `typed`: the second text's tokens are of type 1."""

    start: tuple[str, ...]
    between: tuple[str, ...]
    end: tuple[str, ...]
    padding: str
    unknown: str | None
    ids: Mapping[str, int]
    typed: bool

    @classmethod
    def of(cls, checkpoint: Checkpoint, labels: Labels) -> "Frame":
        tokenizer = Tokenizer.from_str(checkpoint.tokenizer)
        alone, pair = _parts(tokenizer.encode("a")), _parts(tokenizer.encode("a", "a"))
        if len(alone) != 2 or len(pair) != 3 or (pair[0], pair[2]) != (alone[0], alone[1]):
            raise ArtefactRefused(
                f"{checkpoint.folder}: tokenizer.json lays {alone} around a text, {pair} around a pair"
            )
        names = AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
        if names.pad_token is None:
            raise ArtefactRefused(f"{checkpoint.folder}: its tokenizer has no token for padding")
        between = pair[1] if labels.pair else ()
        used = ((token, tokenizer.token_to_id(token)) for token in {*alone[0], *alone[1], *between, names.pad_token})
        ids = {token: number for token, number in used if number is not None}
        typed = labels.pair and 1 in names("a", "a").get("token_type_ids", [])
        return cls(alone[0], between, alone[1], names.pad_token, names.unk_token, ids, typed)

    def stored(self) -> dict[str, Any]:
        return {
            "start": list(self.start),
            "between": list(self.between),
            "end": list(self.end),
            "padding": self.padding,
            "unknown": self.unknown,
            "pair": bool(self.between),
        }


def _parts(encoding: Encoding) -> list[tuple[str, ...]]:
    """The special tokens before, between and after the texts."""
    parts: list[list[str]] = [[] for _ in range(encoding.n_sequences + 1)]
    seen = 0
    for token, text in zip(encoding.tokens, encoding.sequence_ids, strict=True):
        if text is None:
            parts[seen].append(token)
        else:
            seen = text + 1
    return [tuple(part) for part in parts]


class Reading:
    """What stands around the checkpoint in the graph: token types before it, our logits behind it."""

    def __init__(self, labels: Labels, frame: Frame) -> None:
        self._head = VerdictHead(labels)
        self._between = [frame.ids[token] for token in frame.between]
        self._typed = frame.typed

    @contextmanager
    def of(self, model: PreTrainedModel) -> Iterator[PreTrainedModel]:
        """The same model, whose `forward` takes INPUTS and gives our logits while this lasts."""
        plain = model.forward
        typed = self._typed and "token_type_ids" in signature(plain).parameters

        def forward(input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
            more = {"token_type_ids": self._types(input_ids)} if typed else {}
            found = plain(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **more)
            return {"logits": self._head(found.logits)}

        model.forward = forward
        try:
            yield model
        finally:
            del model.forward

    def _types(self, input_ids: Tensor) -> Tensor:
        """1 from the first token of the second text on: behind as many separators as stand between the two."""
        separators = (input_ids == self._between[-1]).long()
        before = separators.cumsum(1) - separators
        return (before >= self._between.count(self._between[-1])).long()


def _write_graph(order: Order, checkpoint: Checkpoint, reading: Reading, folder: Path) -> bool:
    """Writes model.onnx; True where its operators are fused."""
    model = checkpoint.model
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        plain = Path(scratch) / "model.onnx"
        if order.precision is Precision.FP16:
            model.half()
        try:
            with reading.of(model), torch.no_grad():
                export_onnx(model, _config(model), plain, opset=OPSET)
        finally:
            model.float()
        fused = _fusable(order, model)
        if fused:
            settings = OptimizationConfig(optimization_level=1, use_raw_attention_mask=True)
            ORTOptimizer([plain], model.config).optimize(settings, Path(scratch), file_suffix="fused")
            plain = Path(scratch) / "model_fused.onnx"
        quantize(plain, folder / "model.onnx", order.precision, QUANTISED)
    return fused


def _fusable(order: Order, model: PreTrainedModel) -> bool:
    """Fused operators are ONNX Runtime's own: TensorRT has none of them, those of fp16 run on a GPU alone (so that
    parity could not be measured here), and int4 does not reach into them."""
    known = model.config.model_type in ORTConfigManager._conf
    return known and order.target != "tensorrt" and order.precision in (Precision.FP32, Precision.INT8)


def _config(model: PreTrainedModel) -> Any:
    """Optimum's description of the architecture, with our two inputs."""
    kind = model.config.model_type
    try:
        made = TasksManager.get_exporter_config_constructor(
            "onnx", model=model, task="text-classification", library_name="transformers"
        )(model.config)
    except (KeyError, ValueError) as exc:
        raise ArtefactRefused(f"architecture {kind}: optimum exports no classifier of it: {exc}") from exc
    axes = made.inputs
    if not set(INPUTS) <= set(axes) <= OPTIONAL:
        raise ArtefactRefused(f"architecture {kind} takes {', '.join(axes)}: not an encoder of one text")
    return type("TwoInputs", (type(made),), {"inputs": {name: axes[name] for name in INPUTS}})(
        model.config, task="text-classification"
    )


def _opset(path: Path) -> int:
    found = onnx.load(str(path)).opset_import
    return next(int(entry.version) for entry in found if entry.domain in ("", "ai.onnx"))


def _longest(checkpoint: Checkpoint) -> int:
    """Positions the model has; RoBERTa's family counts them from behind the padding's."""
    config = checkpoint.model.config
    positions = int(getattr(config, "max_position_embeddings", MAX_TOKENS))
    table = getattr(getattr(checkpoint.model.base_model, "embeddings", None), "position_embeddings", None)
    behind = getattr(table, "padding_idx", None)
    return positions if behind is None else positions - behind - 1


class Reference:
    """The checkpoint itself in fp32, on what its own tokenizer makes of a text: no window, no padding, no batch."""

    def __init__(self, checkpoint: Checkpoint, labels: Labels, draft: Draft) -> None:
        self._model = checkpoint.model
        self._tokenizer = AutoTokenizer.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=False
        )
        self._labels = labels
        self._fits: Mapping[Direction, Mapping[Any, Calibration]] = draft.calibration
        self._most = draft.manifest.max_tokens

    def risk(self, passage: Passage) -> float | None:
        """The highest p(unsafe) of the passage's readings; None where one of them is longer than the model takes."""
        found = readings(passage.text)
        fit = self._fits[passage.direction][language_of(found[0])]
        risks = [self._risk(reading, self._question(passage), fit) for reading in found]
        return None if None in risks else max(risk for risk in risks if risk is not None)

    def _question(self, passage: Passage) -> str | None:
        if passage.direction is Direction.PROMPT or not self._labels.pair:
            return None
        return normalise((passage.context or "")[-CONTEXT_CHARACTERS:]).text

    def _risk(self, text: str, question: str | None, fit: Calibration) -> float | None:
        texts = [text] if question is None else [question, text]
        read = self._tokenizer(*texts, return_tensors="pt")
        room = context_tokens(self._most)
        if read["input_ids"].shape[1] > self._most or len(self._tokenizer.tokenize(question or "")) > room:
            return None
        taken = {name: value for name, value in read.items() if name in signature(self._model.forward).parameters}
        with torch.no_grad():
            logits = self._model(**taken).logits[0].double()
        return probability(self._margin(logits), fit.temperature, fit.bias)

    def _margin(self, logits: Tensor) -> float:
        harmful = self._labels.harmful()
        if not self._labels.exclusive:
            return float(logits[harmful].max())
        return float(torch.logit(torch.softmax(logits, 0)[harmful].sum(), eps=1e-15))


def _parity(reference: Reference, model: Classifier, order: Order) -> Parity:
    """On the rows that the checkpoint takes in one piece: longer ones it cannot read at all."""
    rows = [Labelled(passage) for passage in EXAMPLES]
    if order.rows is not None:
        rows += labelled(order.rows)
    pairs = [(row, risk) for row in rows if (risk := reference.risk(row.passage)) is not None]
    if not pairs:
        raise ArtefactRefused("no row is short enough for the checkpoint: nothing to compare")
    ours = [verdict.risk for row, _ in pairs for verdict in model.predict([row.passage])]
    return compared(ours, [risk for _, risk in pairs], [row.unsafe for row, _ in pairs])
