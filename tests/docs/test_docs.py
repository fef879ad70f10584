"""What can be written is written down: every key, category and command is in docs/."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import BaseModel

from gateway.__main__ import COMMANDS, main
from gateway.commands.terminal import Exit
from gateway.config.schema import ConfigFile
from gateway.policy.loader import load_policies
from gateway.policy.schema import PolicyFile
from guard_runtime.verdict import CATEGORIES

ROOT = Path(__file__).parents[2]


def words(page: str) -> set[str]:
    """Every word that the page sets in code, `like_this` or `like.this`."""
    prose = re.sub(r"```.*?```", "", (ROOT / "docs" / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    code = re.findall(r"`([^`]+)`", prose)
    return {word for text in code for word in re.split(r"[^\w-]+", text)}


def keys(model: type[BaseModel]) -> Iterator[str]:
    """Every key that may stand in the file, and every word that may stand as a value."""
    schema = model.model_json_schema()
    parts: list[dict[str, Any]] = [schema, *schema["$defs"].values()]
    for part in parts:
        for key, value in part["properties"].items():
            yield key
            yield from map(str, value.get("enum", ()))
            yield from [str(value["const"])] if "const" in value else []


@pytest.mark.parametrize(("model", "page"), [(ConfigFile, "config.md"), (PolicyFile, "policy.md")])
def test_every_key_and_choice_is_documented(model: type[BaseModel], page: str) -> None:
    assert set(keys(model)) - words(page) == set()


def test_every_category_is_documented() -> None:
    assert set(CATEGORIES) <= words("policy.md")


def test_every_policy_that_ships_is_documented_and_commented_in_both_languages() -> None:
    page = (ROOT / "docs/policy.md").read_text(encoding="utf-8")
    for name in load_policies(ROOT / "policies").policies:
        assert f"`{name}.yaml`" in page
        comments = re.findall(r"#(.*)", (ROOT / f"policies/{name}.yaml").read_text(encoding="utf-8"))
        assert any(re.search("[一-鿿]", comment) for comment in comments)
        assert any(re.search("[a-z]{4}", comment) for comment in comments)


def test_every_command_option_and_exit_code_is_documented() -> None:
    page = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    context = click.Context(main)
    for name in COMMANDS:
        command = main.get_command(context, name)
        leaves = command.commands.items() if isinstance(command, click.Group) else [("", command)]
        for leaf, made in leaves:
            assert f"libragate {name} {leaf}".strip() in page
            options = [option for parameter in made.params for option in parameter.opts if option.startswith("--")]
            assert [option for option in options if f"`{option}" not in page] == []
    assert all(f"| `{int(code)}` |" in page for code in Exit)


def test_the_policy_in_the_page_is_one_that_loads(tmp_path: Path) -> None:
    page = (ROOT / "docs/policy.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "base.yaml").write_bytes((ROOT / "policies/base.yaml").read_bytes())
    (tmp_path / "shop.yaml").write_text(example, encoding="utf-8")
    assert load_policies(tmp_path).mistakes == ()


def test_the_defaults_in_the_pages_are_the_defaults() -> None:
    for model, page in ((ConfigFile, "config.md"), (PolicyFile, "policy.md")):
        documented = dict(
            pair for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines() for pair in _defaults(line)
        )
        schema = model.model_json_schema()
        for part in schema["$defs"].values():
            for key, value in part["properties"].items():
                default = value.get("default")
                if key in documented and isinstance(default, int | float) and not isinstance(default, bool):
                    assert float(documented[key]) == default, key


def _defaults(line: str) -> list[tuple[str, str]]:
    cells = line.split(" | ")
    if len(cells) < 3 or not line.startswith("| "):
        return []
    cell = next((number for number, text in enumerate(cells[:2]) if re.search("`[a-z_]+`", text)), 0)
    names = re.findall(r"`([a-z_]+)`", cells[cell])
    values = re.findall(r"`([0-9.]+)`", cells[cell + 1])
    return list(zip(names, values, strict=False)) if len(names) == len(values) else []
