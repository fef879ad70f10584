"""The command line `libragate`. Each command is a file in gateway/commands, imported when it is asked for."""

import importlib

import click

from gateway.commands.terminal import unknown

COMMANDS = {
    "serve": "serve",
    "check": "check",
    "try": "attempt",
    "policy": "policy",
    "keys": "keys",
    "guard": "guard",
    "version": "version",
}


class _Commands(click.Group):
    """Imports one command's file at a time: `libragate version` should not wait for a guard's libraries."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        if cmd_name not in COMMANDS:
            ctx.fail(unknown("command", cmd_name, COMMANDS))
        command: click.Command = importlib.import_module(f"gateway.commands.{COMMANDS[cmd_name]}").command
        return command


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """LibraGate 护栏网关: a guard reads every prompt and every answer.

    Exit codes: 0 fine, 1 something was found, 2 your input is wrong, 3 could not look.
    """


if __name__ == "__main__":
    main()
