"""Reading the configuration for a command, or ending the command with all that is wrong in it."""

import os
from pathlib import Path

import gateway
from gateway.commands.terminal import Exit, stop, unknown
from gateway.config.loader import Config, load_config
from gateway.errors import ConfigError
from gateway.tenants.tenants import Tenant


def require_file(command: str, path: Path, *, as_json: bool) -> None:
    if not path.is_file():
        stop(command, Exit.WRONG_INPUT, [f"{path} is not there -- {_advice()}"], as_json=as_json)


def _advice() -> str:
    starter = Path(gateway.__file__).with_name("starter") / "config.yaml"
    if starter.is_file():
        return f"name it with --config; the one that came with LibraGate is {starter}"
    return "run this where your config.yaml is, or name it with --config"


def loaded(command: str, path: Path, *, as_json: bool) -> Config:
    require_file(command, path, as_json=as_json)
    try:
        return load_config(path, os.environ)
    except ConfigError as exc:
        stop(command, Exit.WRONG_INPUT, exc.mistakes, as_json=as_json)


def chosen(command: str, config: Config, name: str | None, *, as_json: bool) -> Tenant:
    """The tenant of that name; without a name, the only one there is."""
    tenants = {tenant.id: tenant for tenant in config.tenants}
    if name is None and len(tenants) == 1:
        return next(iter(tenants.values()))
    if name is None:
        problem = f"which tenant? -- name one with --tenant: {', '.join(sorted(tenants))}"
        stop(command, Exit.WRONG_INPUT, [problem], as_json=as_json)
    if name not in tenants:
        stop(command, Exit.WRONG_INPUT, [unknown("tenant", name, tenants)], as_json=as_json)
    return tenants[name]
