"""The guard is told what a text is: tokens of their own, before the text, at the end of the vocabulary."""

from pathlib import Path

import pytest
import torch

from guard_runtime.conversation import Source
from tests.training import tiny
from training.data.rows import BadInput, read_rows
from training.learning import distil
from training.learning import model as models
from training.learning.batches import collate, encode, encode_windows, examples
from training.learning.frame import TOKENS, Frame, add_sources
from training.recipe import Mix


def test_a_guard_gets_the_tokens_it_lacks_once_and_reads_other_texts_as_before(base: Path) -> None:
    guard, tokenizer = models.load(base).eval(), models.load_tokenizer(base)
    ids, mask = torch.tensor([[0, 5, 6, 2]]), torch.ones(1, 4, dtype=torch.long)
    before, size = guard(ids, mask), tokenizer.get_vocab_size()
    assert not Frame.of(tokenizer).told and Frame.of(tokenizer).manifest == {}
    for _ in range(2):
        add_sources(guard, tokenizer)
        words = guard.encoder.embeddings.word_embeddings.weight
        assert len(words) == guard.encoder.config.vocab_size == tokenizer.get_vocab_size() == size + 6
        assert torch.equal(guard(ids, mask), before)
    frame = Frame.of(tokenizer)
    assert frame.sources[Source.TOOL_RESULT] == frame.sources[Source.DOCUMENT] == (size + 5,)
    assert frame.manifest["frame"]["sources"] == TOKENS


def test_a_grown_guard_is_saved_and_loaded(base: Path, tmp_path: Path) -> None:
    guard, tokenizer = models.load(base), models.load_tokenizer(base)
    add_sources(guard, tokenizer)
    models.save(guard, tokenizer, tmp_path / "grown")
    loaded = models.load(tmp_path / "grown").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in guard.state_dict().items())
    assert Frame.of(models.load_tokenizer(tmp_path / "grown")).told


def test_a_tokenizer_with_some_of_the_tokens_is_refused(base: Path) -> None:
    tokenizer = models.load_tokenizer(base)
    tokenizer.add_special_tokens(["<|user|>"])
    with pytest.raises(BadInput, match="assistant"):
        Frame.of(tokenizer)


def test_each_text_stands_behind_the_token_of_its_source(base: Path, tmp_path: Path) -> None:
    guard, tokenizer = models.load(base), models.load_tokenizer(base)
    add_sources(guard, tokenizer)
    first = guard.encoder.config.vocab_size - 6
    said = [
        tiny.row(0),
        tiny.row(1, kind="code"),
        tiny.row(2, direction="response", response="花"),
        tiny.row(3, kind="system", prompt="花" * 90),
    ]
    rows = read_rows(tiny.write(tmp_path / "rows.jsonl", said))
    for read in (encode, encode_windows):
        asked, code, answer, system = read(tokenizer, rows, 24)
        assert asked[:2] == (0, first) and code[:2] == (0, first + 5)
        assert answer[:2] == (0, first) and answer[answer.index(2) + 2] == first + 1
        assert system[:2] == (0, first + 2) and len(system) <= 24


def test_of_a_text_with_an_order_inside_a_window_that_holds_it_trains(base: Path, tmp_path: Path) -> None:
    tokenizer = models.load_tokenizer(base)
    prompt = "花" * 60 + "坏坏坏" + "花" * 60
    said = [tiny.row(n, prompt=prompt, span=[60, 63], kind="document", label="unsafe") for n in range(12)]
    cut = encode_windows(tokenizer, read_rows(tiny.write(tmp_path / "rows.jsonl", said)), 24)
    bad = tokenizer.token_to_id("坏")
    assert all(tokens.count(bad) == 3 and len(tokens) <= 24 for tokens in cut)


def test_a_teacher_without_the_frame_speaks_to_the_rows_it_is_to_teach_only(base: Path, tmp_path: Path) -> None:
    rows = read_rows(tiny.write(tmp_path / "rows.jsonl", [tiny.row(0), tiny.row(1, source="new", kind="system")]))
    recipe = tiny.recipe(sources=True, matching={"taught": ["tiny"]})
    school = distil.School((base,), base, tmp_path / "student")
    student = distil.distilled(school, rows, recipe)
    assert student.encoder.config.vocab_size == models.load(base).encoder.config.vocab_size + 6
    found = examples(models.load_tokenizer(tmp_path / "student"), rows, 16, Mix())
    with torch.inference_mode():
        assert student(*(getattr(collate(found), name) for name in ("input_ids", "attention_mask"))).isfinite().all()
