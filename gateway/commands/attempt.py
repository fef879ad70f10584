"""`libragate try`."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import click

from gateway.commands.attempt_json import result_json
from gateway.commands.attempt_request import ANSWER_PATH, DIALECTS, Attempt, AttemptOptions, WrongInput, attempt_of
from gateway.commands.attempt_result import Judged, Result, Streamed
from gateway.commands.attempt_text import result_text
from gateway.commands.loading import chosen, loaded
from gateway.commands.terminal import Exit, config_option, json_option, print_json, stop
from gateway.commands.version import libragate_version
from gateway.config.loader import Config
from gateway.errors import ConfigError
from gateway.judging.judge import Judge
from gateway.judging.media import MediaReaders
from gateway.judging.prompt import PromptJudge, PromptRequest
from gateway.pipeline.record_builder import RecordBuilder
from gateway.streaming.replay import replay
from gateway.telemetry.metrics import Metrics
from gateway.tenants.tenants import Tenant
from gateway.wiring import decoders_of, judge_of, runtime_of
from guard_runtime.conversation import Direction, Part
from guard_runtime.errors import GuardError
from guard_runtime.text.language import language_of


@click.command("try")
@click.argument("text", required=False)
@click.option("--tenant", help="用哪个租户的策略 under whose policy; the only one by default")
@click.option(
    "--direction",
    type=click.Choice([direction.value for direction in Direction]),
    help="当提问还是当回答来判；默认 prompt，有 --reply 时 response as what it is judged; prompt by default, "
    "response with --reply",
)
@click.option("--question", default="", help="回答所回的提问 what TEXT answers, with --direction response")
@click.option(
    "--body",
    metavar="FILE",
    help="整个请求体（JSON）的文件，- 为标准输入：系统提示、工具、历史都照网关的读法 a file with a whole request body "
    "(JSON), - for standard input: its system prompt, tools and history are read as the gateway reads them",
)
@click.option(
    "--dialect",
    default="chat",
    show_default=True,
    metavar="NAME",
    help=f"请求体是哪个接口的 which API the body is for: {', '.join(DIALECTS)}",
)
@click.option("--reply", metavar="FILE", help="对 --body 的回答（文本文件）a text file with the answer to --body")
@click.option(
    "--stream",
    is_flag=True,
    help="把回答当作流，一小段一小段送过同一道闸，列出每次检查 sends the answer through the gate of streams in small "
    "pieces, and shows each check",
)
@click.option(
    "--chunk",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="--stream 时每段多少字符 how many characters a piece has, with --stream",
)
@config_option
@json_option
def command(tenant: str | None, config: Path, as_json: bool, **options: Any) -> None:
    """试判 Judges TEXT (or standard input, with -), or a whole request, as if it came in, and says why.

    判定所依据的那一段原文会显示出来。 The text of the window that decided is printed.

    Exit codes: 0 allow or log, 1 rewrite or block, 2 your input is wrong, 3 a guard could not look.
    """
    loaded_config = loaded("try", config, as_json=as_json)
    who = chosen("try", loaded_config, tenant, as_json=as_json)
    given = AttemptOptions(**options)
    try:
        attempt = attempt_of(given, loaded_config.limits, decoders_of(loaded_config) if given.body is not None else {})
        judge = judge_of(loaded_config)
        readers = _readers(loaded_config, judge, attempt)
        result = anyio.run(_judged, _Session(judge, readers, who), attempt, given.chunk if given.stream else None)
    except WrongInput as exc:
        stop("try", Exit.WRONG_INPUT, exc.problems, as_json=as_json)
    except ConfigError as exc:
        stop("try", Exit.WRONG_INPUT, exc.mistakes, as_json=as_json)
    except GuardError as exc:
        stop("try", Exit.COULD_NOT_LOOK, [f"a guard cannot look: {exc}"], as_json=as_json)
    if as_json:
        print_json("try", result.exit, **result_json(result))
    else:
        for line in result_text(result):
            click.echo(line)
    click.get_current_context().exit(result.exit)


@dataclass(frozen=True, slots=True)
class _Session:
    """What judges, and under whose policy."""

    judge: Judge
    readers: MediaReaders
    tenant: Tenant


def _readers(config: Config, judge: Judge, attempt: Attempt) -> MediaReaders:
    """What puts media into words; only a request has any."""
    if not (attempt.request and config.readers):
        return MediaReaders()
    return runtime_of(config, judge, libragate_version(), Metrics()).readers


async def _judged(session: _Session, attempt: Attempt, chunk: int | None) -> Result:
    """`chunk`: characters of each piece of a stream; None where the answer is judged whole only."""
    async with AsyncExitStack() as stack:
        for guard in session.judge.guards:
            await stack.enter_async_context(guard.running())
        for upstream in {id(upstream): upstream for upstream in session.readers.upstreams}.values():
            await stack.enter_async_context(upstream.running())
        if attempt.answer is None:
            return await _prompt(session, attempt)
        return await _answer(session, attempt, attempt.answer, chunk)


async def _prompt(session: _Session, attempt: Attempt) -> Result:
    policy = session.tenant.policy
    notes = RecordBuilder("", "")
    language = language_of(attempt.conversation.question)
    request = PromptRequest(
        attempt.conversation, attempt.body, policy.sources, language, session.tenant.id, attempt.system_fields
    )
    prompt = await PromptJudge(session.readers).judge(request, partial(session.judge.judge, policy), notes)
    judged = Judged(session.tenant, session.judge, prompt.judgement, prompt.conversation)
    return Result(judged, attempt.request, tuple(notes.read))


async def _answer(session: _Session, attempt: Attempt, answer: str, chunk: int | None) -> Result:
    ask = partial(session.judge.judge, session.tenant.policy)
    reply = attempt.conversation.reply(Part(ANSWER_PATH, answer))
    judged = Judged(session.tenant, session.judge, await ask(reply), reply)
    if chunk is None:
        return Result(judged, attempt.request)
    pieces = [answer[start : start + chunk] for start in range(0, len(answer), chunk)]
    replayed = await replay(pieces, attempt.conversation, session.tenant.policy, ask, ANSWER_PATH)
    return Result(judged, attempt.request, streamed=Streamed(chunk, replayed, judged))
