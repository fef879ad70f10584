"""`libragate keys new TENANT`."""

import os
from pathlib import Path

import click

from gateway.commands.loading import require_file
from gateway.commands.terminal import Exit, config_option, json_option, print_json, say, stop, unknown
from gateway.config.loader import key_pepper
from gateway.errors import ConfigError
from gateway.strict import strict_yaml
from gateway.tenants.tenants import hashed, new_key


@click.group("keys")
def command() -> None:
    """密钥 Keys for tenants."""


@command.command("new")
@click.argument("tenant")
@config_option
@json_option
def new(tenant: str, config: Path, as_json: bool) -> None:
    """造一个密钥 Makes a key for TENANT. It is shown once; config.yaml holds its hash alone."""
    require_file("keys new", config, as_json=as_json)
    try:
        pepper = key_pepper(config, os.environ)
    except ConfigError as exc:
        stop("keys new", Exit.WRONG_INPUT, exc.mistakes, as_json=as_json)
    key = new_key()
    line = hashed(key, pepper.encode())
    if as_json:
        print_json("keys new", Exit.FINE, tenant=tenant, key=key, hash=line)
        return
    say("密钥只显示这一次，请交给租户。The key is shown only now; hand it to the tenant.")
    click.echo(f"key   {key}")
    say(f"把这一行写进 {config} 的 tenants.{tenant}.keys。Put this line into tenants.{tenant}.keys of {config}:")
    click.echo(f"hash  {line}")
    if tenant not in (names := _tenants(config)):
        say(f"note: {unknown('tenant', tenant, names)}")


def _tenants(config: Path) -> list[str]:
    data = strict_yaml.read(config).data
    tenants = data.get("tenants") if isinstance(data, dict) else None
    return list(tenants) if isinstance(tenants, dict) else []
