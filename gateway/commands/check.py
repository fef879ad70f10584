"""`libragate check`."""

from pathlib import Path

import click

from gateway.assembly import gateway_of, judge_of
from gateway.commands.loading import loaded
from gateway.commands.terminal import Exit, config_option, json_option, paint, print_json, stop
from gateway.commands.version import libragate_version
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.judge import Judge
from guard_runtime.errors import GuardError


@click.command("check")
@config_option
@json_option
def command(config: Path, as_json: bool) -> None:
    """体检 Reads every file, loads every guard (which tests itself), and says all that is wrong."""
    found = loaded("check", config, as_json=as_json)
    try:
        judge = judge_of(found)
    except GuardError as exc:
        stop("check", Exit.COULD_NOT_LOOK, [f"a guard cannot look: {exc}"], as_json=as_json)
    except ConfigError as exc:
        stop("check", Exit.WRONG_INPUT, exc.mistakes, as_json=as_json)
    try:
        gateway_of(found, judge, libragate_version())
    except ConfigError as exc:
        stop("check", Exit.WRONG_INPUT, exc.mistakes, as_json=as_json)
    _report(config, found, judge, as_json=as_json)


def _report(path: Path, config: Config, judge: Judge, *, as_json: bool) -> None:
    policies = {name: policy.hash for name, policy in sorted(config.policies.items())}
    tenants = {tenant.id: tenant.policy.name for tenant in config.tenants}
    guards = [{"name": guard.name, "version": guard.version} for guard in judge.guards]
    if as_json:
        upstreams = {name: file.kind for name, file in config.upstreams.items()}
        found = {"policies": policies, "tenants": tenants, "guards": guards, "upstreams": upstreams}
        print_json("check", Exit.FINE, problems=[], config=str(path), models=list(config.models), **found)
        return
    click.echo(f"{paint('fine', 'green')}  {path}")
    click.echo(f"policies  {', '.join(f'{name} {value}' for name, value in policies.items())}")
    click.echo(f"tenants   {', '.join(f'{name} (policy {policy})' for name, policy in tenants.items())}")
    click.echo(f"guards    {', '.join(f'{guard.name}@{guard.version}' for guard in judge.guards)}: loaded")
    click.echo(f"models    {', '.join(f'{name} -> {file.upstream}' for name, file in config.models.items())}")
