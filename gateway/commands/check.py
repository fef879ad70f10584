"""`libragate check`."""

from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import click

from gateway.commands.loading import loaded
from gateway.commands.terminal import Exit, config_option, json_option, paint, print_json, say, stop
from gateway.commands.version import libragate_version
from gateway.config.loader import Config
from gateway.errors import ConfigError
from gateway.judging.judge import Judge
from gateway.wiring import gateway_of, judge_of
from guard_runtime.conversation import Conversation, Part, Role, Turn
from guard_runtime.errors import GuardError

HARMLESS = Conversation((Turn(Role.USER, (Part(("messages", 0, "content"), "怎么把米饭煮得更松软？"),)),))
ANSWER = Part(("choices", 0, "message", "content"), "先把米洗两遍，泡二十分钟再煮。")


@click.command("check")
@config_option
@json_option
def command(config: Path, as_json: bool) -> None:
    """体检 Reads every file, loads every guard (which tests itself), has each judge something harmless, and says all
    that is wrong."""
    loaded_config = loaded("check", config, as_json=as_json)
    try:
        judge = judge_of(loaded_config)
    except GuardError as exc:
        stop("check", Exit.COULD_NOT_LOOK, [f"a guard cannot look: {exc}"], as_json=as_json)
    except ConfigError as exc:
        stop("check", Exit.WRONG_INPUT, exc.mistakes, as_json=as_json)
    try:
        gateway_of(loaded_config, judge, libragate_version())
    except ConfigError as exc:
        stop("check", Exit.WRONG_INPUT, exc.mistakes, as_json=as_json)
    failures = anyio.run(_tried, judge)
    if failures:
        problems = [f"a guard cannot look: {failure}" for failure in failures]
        stop("check", Exit.COULD_NOT_LOOK, problems, as_json=as_json)
    _report(config, loaded_config, judge, as_json=as_json)


async def _tried(judge: Judge) -> list[str]:
    """What the guards that cannot judge a harmless question and its answer say: above all, a server that is not up."""
    failures = []
    async with AsyncExitStack() as stack:
        for guard in judge.guards:
            await stack.enter_async_context(guard.running())
            for conversation in (HARMLESS, HARMLESS.reply(ANSWER)):
                try:
                    with anyio.fail_after(judge.deadline):
                        await guard.check(conversation)
                except TimeoutError:
                    failures.append(f"{guard.name}: no verdict within {judge.deadline:g} s")
                except GuardError as exc:
                    failures.append(str(exc) if guard.name in str(exc) else f"{guard.name}: {exc}")
                else:
                    continue
                break
    return failures


def _report(path: Path, config: Config, judge: Judge, *, as_json: bool) -> None:
    policies = {name: policy.hash for name, policy in sorted(config.policies.items())}
    tenants = {tenant.id: tenant.policy.name for tenant in config.tenants}
    notes = list(config.notes)
    guards = [{"name": guard.name, "version": guard.version} for guard in judge.guards]
    if as_json:
        upstreams = {name: file.kind for name, file in config.upstreams.items()}
        names = {"policies": policies, "tenants": tenants, "guards": guards, "upstreams": upstreams}
        print_json("check", Exit.FINE, problems=[], notes=notes, config=str(path), models=list(config.models), **names)
        return
    click.echo(f"{paint('fine', 'green')}  {path}")
    click.echo(f"policies  {', '.join(f'{name} {value}' for name, value in policies.items())}")
    click.echo(f"tenants   {', '.join(f'{name} (policy {policy})' for name, policy in tenants.items())}")
    click.echo(f"guards    {', '.join(f'{guard.name}@{guard.version}' for guard in judge.guards)}: loaded")
    click.echo(f"models    {', '.join(f'{name} -> {file.upstream}' for name, file in config.models.items())}")
    for note in notes:
        say(f"note: {note}")
