"""What the pages tell people to write is accepted: configuration, policies, commands, metrics."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from gateway.__main__ import main
from gateway.config.loader import load_config
from gateway.errors import ConfigError
from gateway.policy.loader import load_policies
from gateway.telemetry.metrics import Metrics
from tests.docs.pages import LANGUAGES, ROOT, Block, blocks, pages

SHIPPED = (ROOT / "config.yaml").read_text(encoding="utf-8")
TAUGHT = [
    block
    for path in (*(page for language in LANGUAGES for page in pages(language, "tutorial", "howto")), ROOT / "README.md")
    for block in blocks(path)
]
MISTAKEN = ("(错的)", "(wrong)")


def titled(pattern: str) -> list[Block]:
    return [block for block in TAUGHT if block.language == "yaml" and re.fullmatch(pattern, block.title)]


def sections(text: str) -> dict[str, str]:
    """The top-level keys of a YAML file, each with its own lines."""
    found: dict[str, str] = {}
    for part in re.split(r"^(?=[a-z_]+:)", text, flags=re.MULTILINE):
        if match := re.match(r"([a-z_]+):", part):
            found[match[1]] = part if part.endswith("\n") else f"{part}\n"
    return found


def variables(text: str) -> dict[str, str]:
    """A value for every environment variable that the configuration names."""
    names = {*re.findall(r"\$\{(\w+)\}", text), *re.findall(r"key_variable: (\w+)", text)}
    return {name: f"lg-{name.lower():x<43}"[:46].replace("_", "7") for name in names}


@pytest.mark.parametrize("block", titled("config.yaml"), ids=lambda block: block.page)
def test_a_configuration_in_the_pages_loads(block: Block, tmp_path: Path) -> None:
    text = "".join({**sections(SHIPPED), **sections(block.text)}.values())
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    load_config(tmp_path / "config.yaml", variables(text))


def test_a_mistake_in_a_configuration_would_be_seen(tmp_path: Path) -> None:
    text = "".join({**sections(SHIPPED), "upstreams": "upstreams:\n  demo: {kind: dmo}\n"}.values())
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    with pytest.raises(ConfigError):
        load_config(tmp_path / "config.yaml", variables(text))


@pytest.mark.parametrize("block", titled(r"policies/[a-z-]+\.yaml"), ids=lambda block: f"{block.page}:{block.title}")
def test_a_policy_in_the_pages_loads(block: Block, tmp_path: Path) -> None:
    for policy in (ROOT / "policies").glob("*.yaml"):
        (tmp_path / policy.name).write_bytes(policy.read_bytes())
    (tmp_path / Path(block.title).name).write_text(block.text, encoding="utf-8")
    assert load_policies(tmp_path).mistakes == ()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_mistake_in_the_tutorial_is_told_as_it_says(language: str, tmp_path: Path) -> None:
    (page,) = pages(language, "tutorial")
    (wrong,) = (block for block in blocks(page) if block.title.endswith(MISTAKEN))
    for policy in (ROOT / "policies").glob("*.yaml"):
        (tmp_path / policy.name).write_bytes(policy.read_bytes())
    with (tmp_path / "demo.yaml").open("a", encoding="utf-8") as demo:
        demo.write(f"\n{wrong.text}")
    (mistake,) = load_policies(tmp_path).mistakes
    told = " ".join(page.read_text(encoding="utf-8").split())
    assert str(mistake).partition("demo.yaml:")[2] in told


def test_every_yaml_block_is_titled_and_well_formed() -> None:
    for block in TAUGHT:
        if block.language == "yaml":
            assert block.title, f"{block.page}: a yaml block without a title"
            list(yaml.safe_load_all(block.text))


def commands() -> Iterator[tuple[str, list[str]]]:
    for block in TAUGHT:
        if block.language == "bash":
            for line in re.findall(r"^\s*(libragate .*)$", block.text.replace("\\\n", " "), re.MULTILINE):
                yield block.page, shlex.split(re.split(r" [|>] |; ", line)[0])[1:]


def test_every_command_in_the_pages_exists_with_its_options() -> None:
    context = click.Context(main)
    taught = list(commands())
    assert len(taught) > 20
    for page, words in taught:
        command: click.Command | None = main
        while isinstance(command, click.Group):
            command = command.get_command(context, words.pop(0))
        assert command is not None, page
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, page


def test_every_metric_in_the_pages_exists() -> None:
    metrics = Metrics().page().decode()
    source = (ROOT / "gateway/telemetry/metrics.py").read_text(encoding="utf-8")
    for language in LANGUAGES:
        for page in pages(language, "howto"):
            for name in re.findall(r"libragate_[a-z_]+[a-z]", page.read_text(encoding="utf-8")):
                plain = re.sub(r"_(bucket|count|sum)$", "", name)
                assert plain in metrics or plain.removeprefix("libragate_").removesuffix("_total") in source, name


def test_a_rule_that_the_pages_cite_is_at_that_line() -> None:
    lines = (ROOT / "policies/base.yaml").read_text(encoding="utf-8").splitlines()
    cited = {int(number) for block in TAUGHT for number in re.findall(r"policies/base\.yaml:(\d+)", block.text)}
    assert cited
    assert [number for number in sorted(cited) if "do:" not in lines[number - 1]] == []
