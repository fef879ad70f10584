"""The command line `libragate`. Each command is a file in gateway/commands, imported when it is asked for."""

import importlib

import click

COMMANDS = ("serve", "check", "try", "policy", "keys", "version")


class _Commands(click.Group):
    """Imports one command's file at a time: `libragate version` should not wait for a guard's libraries."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"gateway.commands.{cmd_name}").command
        return command


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """LibraGate 护栏网关: a guard reads every prompt and every answer.

    Exit codes: 0 fine, 1 something was found, 2 your input is wrong, 3 could not look.
    """


if __name__ == "__main__":
    main()
