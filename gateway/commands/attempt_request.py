"""What `libragate try` is given to judge, read and checked: a text, or a whole request with its answer."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.api.request_body import conversation_of, decoded
from gateway.commands.terminal import unknown
from gateway.dialects.dialect import Dialect, Json
from gateway.dialects.prompts import Decoder
from gateway.dialects.registry import dialects
from gateway.errors import BadRequest
from gateway.tenants.limits import Limits
from guard_runtime.conversation import Conversation, Direction, Part, Role, Turn

STANDARD_INPUT = "-"
DIALECTS = tuple(dialect.name for dialect in dialects())
QUESTION_PATH = ("messages", 0, "content")
ANSWER_PATH = ("choices", 0, "message", "content")


class WrongInput(Exception):
    """What was wrong with what was given, a line each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class AttemptOptions:
    """The command's options as they were written; None where one was left out."""

    text: str | None
    direction: str | None
    question: str
    body: str | None
    dialect: str
    reply: str | None
    stream: bool
    chunk: int

    @property
    def toward(self) -> Direction:
        if self.direction is None:
            return Direction.PROMPT if self.reply is None else Direction.RESPONSE
        return Direction(self.direction)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is judged: a prompt, or `answer` to it. `dialect`: that of a whole request, None where a text was given."""

    conversation: Conversation
    body: Json
    answer: str | None = None
    dialect: Dialect | None = None

    @property
    def request(self) -> bool:
        """Whether it is a whole request."""
        return self.dialect is not None

    @property
    def system_fields(self) -> frozenset[str]:
        return self.dialect.fields.system if self.dialect is not None else frozenset()


def attempt_of(options: AttemptOptions, limits: Limits, decoders: Mapping[str, Decoder]) -> Attempt:
    """Raises `WrongInput`."""
    problems = tuple(_problems(options))
    if problems:
        raise WrongInput(*problems)
    if options.body is not None:
        return _of_request(options, options.body, limits, decoders)
    return _of_text(options.text or "", options)


def _problems(options: AttemptOptions) -> Iterator[str]:
    """What does not go together."""
    if options.text is not None and options.body is not None:
        yield "both TEXT and --body were given -- give one of them"
    if options.text is None and options.body is None:
        yield "there is nothing to judge -- give TEXT, or a request with --body FILE"
    if options.dialect not in DIALECTS:
        yield unknown("dialect", options.dialect, DIALECTS)
    if options.reply is not None and options.body is None:
        yield "--reply is the answer to a request -- name that with --body, or give the answer as TEXT"
    if options.question and options.body is not None:
        yield "--question goes with TEXT -- a body holds the question itself"
    if options.reply is not None and options.toward is Direction.PROMPT:
        yield "--reply is an answer -- leave --direction prompt out"
    if options.body is not None and options.reply is None and options.toward is Direction.RESPONSE:
        yield "there is no answer to judge -- name its file with --reply"
    if options.stream and options.toward is Direction.PROMPT:
        yield "--stream is for answers -- add --direction response, or --reply FILE to --body"
    if options.body == options.reply == STANDARD_INPUT:
        yield "standard input can be read once -- name a file for --body or for --reply"


def _of_text(text: str, options: AttemptOptions) -> Attempt:
    text = _text(_bytes(text), "standard input") if text == STANDARD_INPUT else _required(text)
    if options.toward is Direction.PROMPT:
        return Attempt(_asked(text), {"messages": [{"role": "user", "content": text}]})
    return Attempt(_asked(options.question) if options.question else Conversation(()), {}, text)


def _asked(text: str) -> Conversation:
    return Conversation((Turn(Role.USER, (Part(QUESTION_PATH, text),)),))


def _of_request(options: AttemptOptions, file: str, limits: Limits, decoders: Mapping[str, Decoder]) -> Attempt:
    dialect = next(dialect for dialect in dialects(decoders) if dialect.name == options.dialect)
    body, conversation = _request(file, dialect, limits)
    answer = None if options.reply is None else _text(_bytes(options.reply), _named(options.reply))
    return Attempt(conversation, body, answer, dialect)


def _request(file: str, dialect: Dialect, limits: Limits) -> tuple[Json, Conversation]:
    data, name = _bytes(file), _named(file)
    if len(data) > limits.body_bytes:
        raise WrongInput(f"{name}: has {len(data)} bytes; the gateway takes {limits.body_bytes} (limits.body_bytes)")
    try:
        body = decoded(data)
    except BadRequest as exc:
        raise WrongInput(f"{name}: {exc.message}") from None
    try:
        return body, conversation_of(body, dialect, limits)
    except BadRequest as exc:
        raise WrongInput(f"{name}: refused as {dialect.name}: {exc.message}") from None


def _named(file: str) -> str:
    return "standard input" if file == STANDARD_INPUT else file


def _bytes(file: str) -> bytes:
    if file == STANDARD_INPUT:
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as exc:
        raise WrongInput(f"{file} cannot be read ({exc.strerror})") from None


def _text(data: bytes, name: str) -> str:
    try:
        return _required(data.decode("utf-8").removesuffix("\n"))
    except UnicodeDecodeError:
        raise WrongInput(f"{name} is not UTF-8 -- convert it first") from None


def _required(text: str) -> str:
    if not text.strip():
        raise WrongInput("there is no text to judge")
    return text
