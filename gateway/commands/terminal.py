"""What all commands share: their options, their exit codes, and how they speak."""

import json
import os
from collections.abc import Callable, Iterable
from enum import IntEnum
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from gateway.strict.messages import suggestion

SCHEMA = 1
"""The shape of what --json prints. It grows by new keys; a key that changes or goes makes it 2."""

F = TypeVar("F", bound=Callable[..., Any])


class Exit(IntEnum):
    FINE = 0
    FOUND = 1
    WRONG_INPUT = 2
    COULD_NOT_LOOK = 3


def config_option(command: F) -> F:
    return click.option(
        "--config",
        "config",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("config.yaml"),
        envvar="LIBRAGATE_CONFIG",
        show_default=True,
        show_envvar=True,
        help="配置文件 the configuration file",
    )(command)


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="输出 JSON print JSON")(command)


def print_json(command: str, code: Exit, **fields: object) -> None:
    """One line on standard output."""
    click.echo(json.dumps({"schema": SCHEMA, "command": command, "exit": int(code), **fields}, ensure_ascii=False))


def say(text: str) -> None:
    """Talk goes to standard error, so that standard output can go into a pipe."""
    click.echo(text, err=True)


def paint(text: str, colour: str) -> str:
    """Colour for people; the words say it all without. click itself takes it out where there is no terminal."""
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=colour, bold=True)


def stop(command: str, code: Exit, problems: Iterable[str], *, as_json: bool) -> NoReturn:
    """Ends the command with what is wrong, a line each."""
    lines = list(problems)
    if as_json:
        print_json(command, code, problems=lines)
    else:
        for line in lines:
            say(line)
    click.get_current_context().exit(code)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """`there is no tenant 'shp' -- did you mean 'shop'?`"""
    names = sorted(known)
    advice = suggestion(name, names, f"there are {', '.join(names)}" if names else "there are none")
    return f"there is no {kind} '{name}' -- {advice}"


def table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Rows as lines, each column as wide as its widest cell."""
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
