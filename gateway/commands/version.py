"""`libragate version`."""

import platform
from importlib.metadata import PackageNotFoundError, version

import click

from gateway.commands.terminal import Exit, json_option, print_json


def libragate_version() -> str:
    """The installed version; "0" in a folder that was never installed."""
    try:
        return version("libragate")
    except PackageNotFoundError:
        return "0"


@click.command("version")
@json_option
def command(as_json: bool) -> None:
    """版本 Which LibraGate this is, and on which Python."""
    if as_json:
        print_json("version", Exit.FINE, libragate=libragate_version(), python=platform.python_version())
    else:
        click.echo(f"libragate {libragate_version()} (Python {platform.python_version()})")
