"""The base weights come out of the file as they went in."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training import tiny
from training.data.rows import BadInput
from training.learning import model as models
from training.learning import weights


def test_tensors_are_read_within_four_bits_of_what_was_written(tmp_path: Path) -> None:
    read = weights.read_base(tiny.base_file(tmp_path / "tiny.bin"))
    for name, value in tiny.tensors().items():
        assert np.abs(read.tensors[name].reshape(value.shape) - value).max() < 0.08, name
    assert read.pieces[5][0] == tiny.PIECES[5][0]
    assert read.shape.layers == tiny.LAYERS


def test_the_encoder_computes_what_the_chosen_layers_say(tmp_path: Path) -> None:
    read = weights.read_base(tiny.base_file(tmp_path / "tiny.bin"))
    whole = weights.encoder(read, range(3), range(len(tiny.PIECES))).eval()
    last = weights.encoder(read, (0, 2), range(len(tiny.PIECES))).eval()
    ids = torch.tensor([[0, 5, 6, 2]])
    with torch.no_grad():
        states = whole(ids, output_hidden_states=True).hidden_states
        cut = last(ids, output_hidden_states=True).hidden_states
    assert torch.allclose(states[1], cut[1], atol=1e-5)
    assert not torch.allclose(states[2], cut[2], atol=1e-3)


def test_pruning_keeps_seen_pieces_and_every_piece_keeps_its_own_vector(base: Path, tmp_path: Path) -> None:
    tokenizer = models.load_tokenizer(base)
    read = weights.read_base(tmp_path / "tiny.bin")
    words = models.load(base).encoder.embeddings.word_embeddings.weight.detach().numpy()
    old = read.tensors["emb.word"].reshape(-1, tiny.HIDDEN)
    assert tokenizer.encode("坏人", add_special_tokens=False).tokens == ["▁", "坏", "人"]
    for index, (piece, _) in enumerate(tiny.PIECES):
        kept = tokenizer.token_to_id(piece)
        if kept is not None:
            assert np.array_equal(words[kept], old[index]), piece


def test_pairs_are_laid_out_as_the_artefact_contract_says(base: Path) -> None:
    tokens = models.load_tokenizer(base).encode("好", "坏").tokens
    assert tokens == ["<s>", "▁", "好", "</s>", "</s>", "▁", "坏", "</s>"]


def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"GGUF....")
    with pytest.raises(BadInput, match=r"x\.bin.*E5S1"):
        weights.read_base(tmp_path / "x.bin")
