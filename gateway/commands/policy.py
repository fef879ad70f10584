"""`libragate policy schema | show`."""

import json
from itertools import product
from pathlib import Path

import click

from gateway.commands.loading import chosen, loaded
from gateway.commands.terminal import Exit, config_option, json_option, print_json, table
from gateway.policy.policy import Action, Policy, Rule
from gateway.policy.schema import policy_schema
from guard_runtime.conversation import Direction
from guard_runtime.verdict import CATEGORIES, Category


@click.group("policy")
def command() -> None:
    """策略 Policies."""


@command.command("schema")
@json_option
def schema(as_json: bool) -> None:
    """给编辑器用的 JSON Schema The JSON Schema of a policy file, for editors (yaml-language-server)."""
    if as_json:
        print_json("policy schema", Exit.FINE, policy=policy_schema())
    else:
        click.echo(json.dumps(policy_schema(), ensure_ascii=False, indent=2))


@command.command("show")
@click.argument("tenant", required=False)
@config_option
@json_option
def show(tenant: str | None, config: Path, as_json: bool) -> None:
    """继承之后的策略 What applies to TENANT once all parents are laid under it, each rule with its file and line."""
    owner = chosen("policy show", loaded("policy show", config, as_json=as_json), tenant, as_json=as_json)
    policy = owner.policy
    if as_json:
        rules = [_json(*row) for row in _rules(policy)]
        name = {"name": policy.name, "hash": policy.hash}
        print_json("policy show", Exit.FINE, tenant=owner.id, policy=name, rules=rules)
        return
    click.echo(f"{owner.id}: policy {policy.name} {policy.hash}")
    rows = [(category, direction, _at(rule), _does(rule), rule.place) for category, direction, rule in _rules(policy)]
    for line in table([("category", "direction", "at", "do", "written in"), *rows]):
        click.echo(line)
    for direction in Direction:
        toward = policy.toward(direction)
        failure, unreadable = toward.on_guard_failure.name.lower(), toward.on_unreadable.name.lower()
        click.echo(f"{direction}: on_guard_failure {failure}, on_unreadable {unreadable}")


def _rules(policy: Policy) -> list[tuple[Category, Direction, Rule]]:
    pairs = product(CATEGORIES, Direction)
    return [(category, toward, rule) for category, toward in pairs for rule in policy.toward(toward).rules[category]]


def _at(rule: Rule) -> str:
    return rule.at if isinstance(rule.at, str) else f"{rule.at:g}"


def _does(rule: Rule) -> str:
    return f"rewrite ({rule.rewrite})" if rule.action is Action.REWRITE else rule.action.name.lower()


def _json(category: Category, direction: Direction, rule: Rule) -> dict[str, object]:
    rewrite = rule.rewrite if rule.action is Action.REWRITE else None
    do = rule.action.name.lower()
    return {
        "category": category,
        "direction": direction,
        "at": rule.at,
        "do": do,
        "rewrite": rewrite,
        "place": rule.place,
    }
