"""The reference pages tell what the code does: generated tables, and what is written by hand beside them."""

import re
from itertools import groupby
from pathlib import Path

import click
import pytest

from gateway.__main__ import COMMANDS, main
from gateway.policy.loader import load_policies
from tests.clients.table import CHINESE_PAGE, PAGE, in_chinese, table
from tests.docs.generated import page, written
from tests.docs.pages import LANGUAGES, ROOT, blocks
from tests.docs.tables import tables

PAGES = {
    name: list(group)
    for name, group in groupby(sorted(tables(), key=lambda table: table.page), key=lambda table: table.page)
}
HEADER = re.compile(r'"(x-[a-z-]+)"')


def text(language: str, name: str) -> str:
    return page(language, name).read_text(encoding="utf-8")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", PAGES)
def test_the_tables_of_a_page_are_what_the_code_says(name: str, language: str) -> None:
    """`make reference` writes them anew."""
    assert text(language, name) == written(text(language, name), PAGES[name], language)


def test_a_key_without_words_would_be_seen() -> None:
    found = PAGES["config"][0]
    with pytest.raises(LookupError, match="missing or too many"):
        list(type(found)(found.page, found.name, found.columns, (*found.rows, ("new_key", "-", "-"))).lines("en"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_header_and_error_code_is_in_the_page(language: str) -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "gateway").rglob("*.py")]
    headers = {name for source in sources for name in HEADER.findall(source)}
    codes = {code for source in sources for code in re.findall(r'code = "([a-z_]+)"', source)}
    assert {"x-request-id", "x-libragate-dropped"} <= headers
    assert "upstream_auth" in codes
    page_text = text(language, "http-api")
    assert [word for word in sorted(headers | codes) if f"`{word}" not in page_text] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_command_is_in_the_page(language: str) -> None:
    context = click.Context(main)
    for name in COMMANDS:
        command = main.get_command(context, name)
        leaves = list(command.commands) if isinstance(command, click.Group) else [""]
        for leaf in leaves:
            assert f"## `{f'libragate {name} {leaf}'.strip()}`" in text(language, "cli")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_policy_that_ships_is_in_the_page_and_commented_in_both_languages(language: str) -> None:
    for path in (ROOT / "policies").glob("*.yaml"):
        assert f"`{path.name}`" in text(language, "policy")
        comments = re.findall(r"#(.*)", path.read_text(encoding="utf-8"))
        assert any(re.search("[一-鿿]", comment) for comment in comments)
        assert any(re.search("[a-z]{4}", comment) for comment in comments)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_policy_in_the_page_is_one_that_loads(language: str, tmp_path: Path) -> None:
    (example,) = (block for block in blocks(page(language, "policy")) if block.language == "yaml")
    (tmp_path / "base.yaml").write_bytes((ROOT / "policies/base.yaml").read_bytes())
    (tmp_path / "shop.yaml").write_text(example.text, encoding="utf-8")
    assert load_policies(tmp_path).mistakes == ()


def test_what_clients_see_is_the_same_in_both_languages() -> None:
    clients = re.findall(r"<!-- (?!end of )(.+?) -->", PAGE.read_text(encoding="utf-8"))
    assert clients
    for client in clients:
        assert table(CHINESE_PAGE, client) == in_chinese(table(PAGE, client))
