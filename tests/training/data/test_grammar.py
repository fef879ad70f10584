"""The element grammars: both languages, every sub-category, both labels alike, the second dev split apart."""

import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tests.training.data.rows import row, write
from training.data import heldout
from training.data.families import Writer, Written, adverts, pairs
from training.data.grammar import LANGS, expand, held, load
from training.data.leaks import Leaks
from training.data.rows import BadInput, read_rows
from training.data.synthesize import Amounts, Grammar, main, rows

LITTLE = Amounts().scaled(0.02)
LANGUAGES = {code: load(code) for code in LANGS}
TEXTS = list(Grammar(dict.fromkeys(LANGS, LITTLE), seed=1).texts())


@pytest.mark.parametrize("code", LANGS)
def test_every_one_of_the_39_subcategories_has_harmful_and_harmless_behaviours_and_topics(code: str) -> None:
    language = LANGUAGES[code]
    kinds = Counter((element.subcategory, element.unsafe) for element in language.behaviours)
    assert len({subcategory for subcategory, _ in kinds}) == 39
    assert all(kinds[subcategory, label] >= 5 for subcategory, _ in kinds for label in (True, False))
    assert {element.subcategory for element in language.topics} == {subcategory for subcategory, _ in kinds}


def test_harmful_and_harmless_texts_are_about_equal_in_number_in_every_family_of_prompts() -> None:
    labels: dict[str, Counter[bool]] = defaultdict(Counter)
    for text in TEXTS:
        labels[text.family][text.unsafe] += 1
    for family in ("request", "advert", "contrast", "attack", "answer", "statement"):
        counts = labels[family]
        assert 0.4 < counts[True] / counts[False] < 2.5, family


def test_the_same_seed_gives_the_same_texts_and_another_seed_others() -> None:
    amounts = {code: Amounts().scaled(0.002) for code in LANGS}
    one, two, three = (list(Grammar(amounts, seed).texts()) for seed in (1, 1, 2))
    assert one == two != three


def test_elements_of_the_second_dev_split_are_in_no_training_text(tmp_path: Path) -> None:
    kept_out = [e.text for code in LANGS for e in LANGUAGES[code].behaviours if e.held and "{" not in e.text]
    kept_out = [text for text in kept_out if "[" not in text and len(text) > 8]
    assert len(kept_out) > 20
    trained = "\n".join(text.prompt for text in TEXTS)
    assert not [text for text in kept_out if text in trained]
    dev = "\n".join(text.prompt for text in Grammar(dict.fromkeys(LANGS, LITTLE), 1, dev=True).texts())
    assert [text for text in kept_out if text in dev]


def test_a_question_that_an_answer_refuses_is_no_harmless_row() -> None:
    for code in LANGS:
        writer = Writer(LANGUAGES[code], random.Random(1))
        prompts = {text.prompt.lower() for text in pairs(writer, 20, "turn", "conversations") if not text.response}
        wanted = ("meth", "kill myself", "ricin") if code == "en" else ("炸弹", "伪造公章", "我想死")
        assert prompts and not [text for text in prompts if any(word in text for word in wanted)]


def test_safe_answers_are_mostly_no_refusals_and_some_unsafe_ones_open_with_one() -> None:
    refusals = ("抱歉", "对不起", "不能", "无法", "I can't", "I cannot", "I'm sorry", "Sorry")
    answers = [text for text in TEXTS if text.family == "answer"]

    def share(unsafe: bool) -> float:
        chosen = [any(word in text.response[:40] for word in refusals) for text in answers if text.unsafe is unsafe]
        return sum(chosen) / len(chosen)

    assert share(unsafe=False) < 0.5
    assert 0.02 < share(unsafe=True) < 0.5


def test_chinese_shops_schools_and_employers_leave_contacts_as_harmful_adverts_do() -> None:
    texts = list(adverts(Writer(LANGUAGES["zh"], random.Random(3)), 240))
    kinds = Counter(text.subcategory for text in texts if text.unsafe)
    assert {"Gambling", "Pornography", "Financial Crimes", "Illegal Services", "Baiting"} == set(kinds)
    assert len({text.prompt for text in texts}) > 0.95 * len(texts)

    def share(*kinds: str) -> float:
        spelled = ("微", "薇", "V", "vx", "扣", "群", "私", "Q")
        chosen = [any(word in text.prompt for word in spelled) for text in texts if text.subcategory in kinds]
        return sum(chosen) / len(chosen)

    assert share("Shops", "Courses", "Jobs") > 0.6 * share(*kinds)


def test_choices_and_slots_expand_until_none_is_left() -> None:
    text = expand("[a|b {x}]!", {"x": ["[c|c]"]}, random.Random(0))
    assert text in ("a!", "b c!")


@pytest.mark.parametrize("template", ["{nobody}", "{x}"])
def test_an_unknown_slot_and_an_endless_template_are_refused_by_name(template: str) -> None:
    with pytest.raises(BadInput, match="elements"):
        expand(template, {"x": ["{x}{x}"]}, random.Random(0))


def test_a_text_is_held_out_by_its_own_words_alone() -> None:
    assert 0.05 < sum(held(str(number)) for number in range(800)) / 800 < 0.2


def test_elements_that_name_an_unknown_subcategory_or_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="taxonomy"):
        load("zh", tmp_path)


def test_no_row_repeats_another_or_comes_near_a_test_row() -> None:
    texts = [
        Written("request", "zh", text, "", False, (), "x")
        for text in ("怎么做一个好吃的蛋糕啊", "今天出门要不要带伞呢")
    ]
    leaks = Leaks(["怎么做一个好吃的蛋糕啊？"])
    kept = list(rows([*texts, *texts], leaks))
    assert [found["prompt"] for found in kept] == ["今天出门要不要带伞呢"]
    assert leaks.hits == 2


def test_the_command_writes_rows_that_training_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    write(tests / "test_a.jsonl", [row("t", "今天天气怎么样，适合出去玩吗")])
    out, dev = tmp_path / "s.jsonl", tmp_path / "d.jsonl"
    assert main(["--out", str(out), "--dev", str(dev), "--tests", str(tests), "--scale", "0.004"]) == 0
    trained = read_rows(out)
    assert {found.lang for found in trained} == set(LANGS)
    assert {found.direction for found in trained} == {"prompt", "response"}
    assert not {found.id for found in trained} & {found.id for found in read_rows(dev)}
    assert "syn_request" in capsys.readouterr().out


def test_a_folder_without_tests_ends_the_command_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "s.jsonl"), "--tests", str(tmp_path)]) == 2
    assert "no test_*.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "s.jsonl").exists()


def test_everyday_questions_of_the_dev_halves_are_no_training_texts(tmp_path: Path) -> None:
    assert heldout.main(["--out", str(tmp_path)]) == 0
    near, far = (
        {found.prompt for found in read_rows(tmp_path / f"everyday_{half}.jsonl")} for half in ("dev", "heldout")
    )
    assert len(near) > 100 and len(far) > 100 and not near & far
    assert not (near | far) & {text.prompt for text in TEXTS}
