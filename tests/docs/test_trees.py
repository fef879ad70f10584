"""Both languages have the same pages with the same headings, and every link leads somewhere."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import LANGUAGES, ROOT, headings, pages, without_blocks

HAN = re.compile("[一-鿿]")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
MAX_LINE = 132
"""Lines wrap at about 120. Tables and links cannot wrap."""

ENGLISH = [path.relative_to(ROOT / "docs/en") for path in pages("en")]


def test_both_languages_have_the_same_pages() -> None:
    chinese = {path.relative_to(ROOT / "docs/zh") for path in pages("zh")}
    assert chinese == set(ENGLISH)


@pytest.mark.parametrize("page", ENGLISH, ids=str)
def test_both_languages_of_a_page_have_the_same_headings(page: Path) -> None:
    levels = {language: [level for level, _ in headings(ROOT / "docs" / language / page)] for language in LANGUAGES}
    assert levels["zh"] == levels["en"]
    assert levels["en"].count(1) == 1


@pytest.mark.parametrize("page", ENGLISH, ids=str)
def test_an_english_page_is_english_outside_of_examples(page: Path) -> None:
    if page.name == "glossary.md":
        return
    text = without_blocks((ROOT / "docs/en" / page).read_text(encoding="utf-8"))
    prose = re.sub(r"`[^`]*`|\"[^\"]*\"|“[^”]*”", "", text)
    assert [line for line in prose.splitlines() if HAN.search(line) and not line.startswith("|")] == []


@pytest.mark.parametrize("page", ENGLISH, ids=str)
def test_a_chinese_page_is_chinese(page: Path) -> None:
    text = without_blocks((ROOT / "docs/zh" / page).read_text(encoding="utf-8"))
    paragraphs = [part for part in re.split(r"\n\s*\n", re.sub(r"`[^`]*`|<[^>]*>", "", text)) if part.strip()]
    latin = [part for part in paragraphs if len(re.findall(r"[A-Za-z]{2,}", part)) > 12 and not HAN.search(part)]
    assert latin == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_link_between_pages_leads_somewhere(language: str) -> None:
    lost = []
    for path in pages(language):
        for target in LINK.findall(without_blocks(path.read_text(encoding="utf-8"))):
            file = target.partition("#")[0]
            if "://" not in target and file and not (path.parent / file).is_file():
                lost.append(f"{path.relative_to(ROOT)}: {target}")
    assert lost == []


def test_every_link_of_the_readme_leads_somewhere() -> None:
    targets = LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (ROOT / target).exists()] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_lines_wrap(language: str) -> None:
    long = []
    for path in pages(language):
        text = without_blocks(path.read_text(encoding="utf-8"))
        for line in text.splitlines():
            width = len(line) + len(re.findall("[一-鿿，。：；（）、“”？！《》]", line))
            if width > MAX_LINE and not line.startswith("|") and "](" not in line:
                long.append(f"{path.relative_to(ROOT)}: {line[:60]}")
    assert long == []


def test_the_list_for_language_models_names_every_page_and_no_other() -> None:
    listed = re.findall(r"\]\(en/([^)]+)\)", (ROOT / "docs/llms.txt").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(map(str, ENGLISH))


def test_readme_is_one_screen() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 80
