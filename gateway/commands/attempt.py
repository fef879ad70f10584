"""`libragate try TEXT`."""

import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import anyio
import click

from gateway.commands.loading import chosen, loaded
from gateway.commands.terminal import Exit, config_option, json_option, paint, print_json, stop, table
from gateway.errors import ConfigError
from gateway.judging.judge import Judge, Judgement
from gateway.policy.policy import Action, Decision, Policy, Reason, Rule
from gateway.tenants.tenants import Tenant
from gateway.wiring import judge_of
from guard_runtime.conversation import Conversation, Direction, Part, Role, Turn
from guard_runtime.errors import GuardError
from guard_runtime.guard import Guard
from guard_runtime.verdict import CATEGORIES, Category

_COLOURS = {Action.ALLOW: "green", Action.LOG: "cyan", Action.REWRITE: "yellow", Action.BLOCK: "red"}


@dataclass(frozen=True, slots=True)
class Line:
    """One guard's score for one category, beside the rule that fired, or that would have fired first."""

    guard: str
    category: Category
    score: float
    threshold: float
    rule: Rule

    @property
    def fired(self) -> bool:
        return self.score >= self.threshold

    @property
    def does(self) -> str:
        return f"rewrite ({self.rule.rewrite})" if self.rule.action is Action.REWRITE else self.rule.action.name.lower()


@click.command("try")
@click.argument("text")
@click.option("--tenant", help="用哪个租户的策略 under whose policy; the only one by default")
@click.option("--direction", type=click.Choice([d.value for d in Direction]), default="prompt", show_default=True)
@click.option("--question", default="", help="回答所回的提问 what TEXT answers, with --direction response")
@config_option
@json_option
def command(text: str, tenant: str | None, direction: str, question: str, config: Path, as_json: bool) -> None:  # noqa: PLR0913 - click hands over every option
    """试判 Judges TEXT (or standard input, with -) as if it came in a request, and says why.

    Exit codes: 0 allow or log, 1 rewrite or block, 2 your input is wrong, 3 a guard could not look.
    """
    found = loaded("try", config, as_json=as_json)
    who = chosen("try", found, tenant, as_json=as_json)
    conversation = _conversation(_read(text, as_json=as_json), Direction(direction), question)
    try:
        judge = judge_of(found)
    except ConfigError as exc:
        stop("try", Exit.WRONG_INPUT, exc.mistakes, as_json=as_json)
    except GuardError as exc:
        stop("try", Exit.COULD_NOT_LOOK, [f"a guard cannot look: {exc}"], as_json=as_json)
    judgement = anyio.run(_judged, judge, who.policy, conversation)
    code = _exit(judgement)
    lines = tuple(_lines(judge, judgement, who.policy, conversation.direction))
    if as_json:
        print_json("try", code, **_json(who, judge, judgement, lines))
    else:
        for line in _text(who, judge, judgement, lines):
            click.echo(line)
    click.get_current_context().exit(code)


def _read(text: str, *, as_json: bool) -> str:
    if text == "-":
        try:
            text = sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
        except UnicodeDecodeError:
            stop("try", Exit.WRONG_INPUT, ["standard input is not UTF-8 -- convert it first"], as_json=as_json)
    if not text.strip():
        stop("try", Exit.WRONG_INPUT, ["there is no text to judge"], as_json=as_json)
    return text


def _conversation(text: str, direction: Direction, question: str) -> Conversation:
    if direction is Direction.PROMPT:
        return Conversation((Turn(Role.USER, (Part(("messages", 0, "content"), text),)),))
    asked = (Turn(Role.USER, (Part(("messages", 0, "content"), question),)),) if question else ()
    return Conversation(asked).reply(Part(("choices", 0, "message", "content"), text))


async def _judged(judge: Judge, policy: Policy, conversation: Conversation) -> Judgement:
    async with AsyncExitStack() as stack:
        for guard in judge.guards:
            await stack.enter_async_context(guard.running())
        return await judge.judge(policy, conversation)


def _exit(judgement: Judgement) -> Exit:
    """A guard's failure counts unless another guard found something all the same."""
    decision = judgement.decision
    if decision.reason is Reason.GUARD_FAILURE or (judgement.failures and decision.action < Action.REWRITE):
        return Exit.COULD_NOT_LOOK
    return Exit.FOUND if decision.action >= Action.REWRITE else Exit.FINE


def _lines(judge: Judge, judgement: Judgement, policy: Policy, direction: Direction) -> Iterator[Line]:
    guards = {guard.name: guard for guard in judge.guards}
    for verdict in judgement.verdicts:
        for category in CATEGORIES:
            rules = policy.toward(direction).rules.get(category, ())
            if rules:
                yield _line(guards[verdict.guard], (category, verdict.scores[category]), rules, direction)


def _line(guard: Guard, found: tuple[Category, float], rules: tuple[Rule, ...], direction: Direction) -> Line:
    category, score = found
    placed = [(rule.threshold(guard.operating_points, direction, category), rule) for rule in rules]
    fired = [(threshold, rule) for threshold, rule in placed if score >= threshold]
    if fired:
        threshold, rule = max(fired, key=lambda pair: pair[1].action)
    else:
        threshold, rule = min(placed, key=lambda pair: pair[0])
    return Line(guard.name, category, score, threshold, rule)


def _text(tenant: Tenant, judge: Judge, judgement: Judgement, lines: tuple[Line, ...]) -> Iterator[str]:
    decision = judgement.decision
    yield f"{paint(decision.action.name.lower(), _COLOURS[decision.action])}  {_because(decision)}"
    yield f"tenant {tenant.id}, policy {tenant.policy.name} {tenant.policy.hash}, guards {judge.version}"
    yield f"{decision.direction}, {judgement.seconds * 1000:.0f} ms"
    if lines:
        told = [line for line in lines if line.score > 0] or lines
        rows = [_row(line) for line in sorted(told, key=lambda line: line.threshold - line.score)]
        yield from table([("guard", "category", "score", "threshold", "margin", "do", "rule"), *rows])
    for span in judgement.spans:
        yield f"found: {span.label} in characters {span.start} to {span.end}"
    for failure in judgement.failures:
        yield f"failed: {failure}"
    unread = judgement.coverage.unread
    yield f"not read: {', '.join(f'{item.reason} ({item.characters} characters)' for item in unread) or 'nothing'}"


def _row(line: Line) -> tuple[str, ...]:
    """A rule that did not fire stands in brackets."""
    figures = (f"{line.score:.3f}", f"{line.threshold:.3f}", f"{line.score - line.threshold:+.3f}")
    return (line.guard, line.category, *figures, line.does if line.fired else f"({line.does})", line.rule.place)


def _because(decision: Decision) -> str:
    if decision.reason is Reason.RULE and decision.score is not None and decision.margin is not None:
        score = f"{decision.category} {decision.score:.3f}, {decision.margin:+.3f} over {decision.place}"
        return f"{score} ({decision.rewrite})" if decision.rewrite else score
    return f"{decision.reason}: {decision.detail}" if decision.detail else str(decision.reason)


def _json(tenant: Tenant, judge: Judge, judgement: Judgement, lines: tuple[Line, ...]) -> dict[str, object]:
    decision, coverage = judgement.decision, judgement.coverage
    return {
        "tenant": tenant.id,
        "policy": {"name": tenant.policy.name, "hash": tenant.policy.hash},
        "guards": judge.version,
        "decision": {
            "action": decision.action.name.lower(),
            "rewrite": decision.rewrite,
            "reason": decision.reason,
            "direction": decision.direction,
            "category": decision.category,
            "score": decision.score,
            "threshold": decision.threshold,
            "margin": decision.margin,
            "guard": decision.guard,
            "rule": decision.place or None,
            "detail": decision.detail or None,
        },
        "scores": [
            {
                "guard": line.guard,
                "category": line.category,
                "score": line.score,
                "threshold": line.threshold,
                "margin": line.score - line.threshold,
                "fired": line.fired,
                "action": line.rule.action.name.lower(),
                "rewrite": line.rule.rewrite if line.rule.action is Action.REWRITE else None,
                "rule": line.rule.place,
            }
            for line in lines
        ],
        "spans": [{"label": s.label, "category": s.category, "start": s.start, "end": s.end} for s in judgement.spans],
        "coverage": {"parts": coverage.parts, "characters": coverage.characters, "windows": coverage.windows},
        "unread": [{"reason": item.reason, "characters": item.characters} for item in coverage.unread],
        "failures": list(judgement.failures),
        "seconds": round(judgement.seconds, 6),
    }
