"""Every other vendor, by way of litellm: the only file that imports it, and only when a config names it."""

import asyncio
import importlib
import importlib.metadata
import math
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Self

from gateway.dialects.dialect import Event, Json
from gateway.errors import BadRequest, ConfigError, UpstreamError, UpstreamTimeout
from gateway.upstreams.errors import provider_error
from gateway.upstreams.retries import RETRIED, Again, Patience, Retries, retry_after
from gateway.upstreams.upstream import NO_HEADERS, Headers, Timeouts

CHAT = "/v1/chat/completions"

FIELDS = frozenset(
    {
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "modalities",
        "model",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    }
)
"""What of a chat request litellm is given: its function takes the host, the key and the guards by the same door."""

_STOLEN = frozenset({"1.82.7", "1.82.8"})
_ENVIRONMENT = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}
_SETTINGS = {
    "telemetry": False,
    "set_verbose": False,
    "suppress_debug_info": True,
    "turn_off_message_logging": True,
    "disable_hf_tokenizer_download": True,
    "user_url_validation": True,
    "drop_params": False,
}
_LET_OUT = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError)
_PREFIX = re.compile(r"^(litellm\.\w+: )*(\w+: )?(\w+Exception - )?(Error code: \d+ - )?")


@dataclass(frozen=True, slots=True)
class Vendor:
    """The account at the vendor, from the config alone. `options` are litellm's own, such as `api_version` or
    `aws_region_name`."""

    key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    retries: Retries = field(default_factory=Retries)

    @property
    def given(self) -> Mapping[str, str]:
        account = {"api_key": self.key, "api_base": self.base_url}
        return {**self.options, **{name: value for name, value in account.items() if value is not None}}


def refuse_stolen() -> None:
    """Raises `ConfigError` where litellm is missing, or is a version that was published by thieves (March 2026): its
    wheel runs a program that gathers keys, imported or not."""
    try:
        version = importlib.metadata.version("litellm")
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(("upstream kind litellm: not installed -- pip install 'libragate[litellm]'",)) from None
    if version in _STOLEN:
        mistake = (
            f"upstream kind litellm: version {version} steals keys -- remove it, and replace every key on this host"
        )
        raise ConfigError((mistake,))


class LiteLLM:
    """Asks through `litellm.acompletion`, chat completions alone. A model is named as litellm names it:
    "anthropic/claude-...", "bedrock/...".

    What it cannot promise, for litellm does it: a stream that its vendor ended too early, but in good order, is given a
    finish reason; and redirects are followed. For an OpenAI-compatible provider use the relay."""

    def __init__(self, name: str, vendor: Vendor) -> None:
        refuse_stolen()
        self.name = name
        self._vendor = vendor
        self._patience = Patience(vendor.retries)
        self._litellm: ModuleType | None = None
        self._raised: tuple[type[Exception], ...] = ()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        # It asks the network for a price list and reads .env files while it is imported, unless told not to.
        os.environ.update(_ENVIRONMENT)
        litellm = await asyncio.to_thread(importlib.import_module, "litellm")
        for name, value in _SETTINGS.items():
            setattr(litellm, name, value)
        # Its own errors are all OpenAI's; the rest is what its code for one vendor or another has been seen to let out.
        self._raised = (litellm.exceptions.openai.OpenAIError, *_LET_OUT)
        self._litellm = litellm
        try:
            yield self
        finally:
            self._litellm = None

    async def answer(self, path: str, body: Json, headers: Headers = NO_HEADERS) -> Json:
        return _plain(await self._asked(path, body, stream=False))

    @asynccontextmanager
    async def stream(self, path: str, body: Json, headers: Headers = NO_HEADERS) -> AsyncIterator[AsyncIterator[Event]]:
        chunks = await self._asked(path, body, stream=True)
        events = self._events(aiter(chunks))
        try:
            yield events
        finally:
            await events.aclose()
            await chunks.aclose()

    async def _asked(self, path: str, body: Json, *, stream: bool) -> Any:
        if self._litellm is None:
            raise RuntimeError(f"upstream {self.name} is asked before running() was entered")
        ask, seconds = self._litellm.acompletion, self._vendor.timeouts.first_byte
        # Tried again here or nowhere: litellm's own retries would multiply ours.
        rules = {"stream": stream, "timeout": seconds, "num_retries": 0, "max_retries": 0}
        call = {**_fields(path, body), **self._vendor.given, **rules}
        return await self._patience.call(lambda: self._said(ask(**call), seconds))

    async def _events(self, chunks: AsyncIterator[Any]) -> AsyncGenerator[Event, None]:
        seconds = self._vendor.timeouts.first_byte
        while True:
            try:
                chunk = await self._said(anext(chunks), seconds)
            except StopAsyncIteration:
                break
            except Again as again:
                # It has begun to answer, so it is not asked again.
                raise again.error from None
            yield Event(_plain(chunk))
            seconds = self._vendor.timeouts.idle
        yield Event(None)

    async def _said(self, asked: Awaitable[Any], seconds: float) -> Any:
        """What litellm gives, within the time. Raises `UpstreamError` or `Again`."""
        try:
            async with asyncio.timeout(seconds):
                return await asked
        except TimeoutError:
            failure: Exception = _late(self.name, seconds)
        except self._raised as exc:
            failure = self._failure(exc, seconds)
        # Raised out here so that litellm's error is not chained: it may carry the request, and the key with it.
        raise failure

    def _failure(self, exc: Exception, seconds: float) -> UpstreamError | Again:
        kind, status = type(exc).__name__, getattr(exc, "status_code", None)
        if kind in ("Timeout", "APITimeoutError"):
            return _late(self.name, seconds)
        if kind == "APIConnectionError":
            return Again(UpstreamError(f"The model's provider ({self.name}) cannot be reached."))
        if not isinstance(status, int) or status == 500:
            # litellm says 500 for whatever went wrong inside itself, so it cannot be passed on as the vendor's word.
            failed = UpstreamError(f"The model's provider ({self.name}) failed ({kind}).")
            return failed if status is None else Again(failed)
        error = provider_error(self.name, status, _said_by(exc, status), secret=self._vendor.key)
        after = retry_after(getattr(getattr(exc, "response", None), "headers", None) or {})
        if after is not None:
            error.headers = {"Retry-After": str(math.ceil(after))}
        return Again(error, after) if status in RETRIED else error


def _said_by(exc: Exception, status: int) -> Json | None:
    """The vendor's error, as far as it shows through litellm's: that writes its own words in front, makes a code of the
    status, and takes a page of HTML for a message."""
    message = _PREFIX.sub("", str(getattr(exc, "message", "")))
    if status > 500 or message.lstrip().startswith("<"):
        return None
    fields = {name: getattr(exc, name, None) for name in ("type", "param", "code")}
    code = None if fields["code"] == str(status) else fields["code"]
    return {"error": {**fields, "code": code, "message": message}}


def _fields(path: str, body: Json) -> Json:
    """The body as arguments. Raises `BadRequest` for what is not among `FIELDS`: nothing is dropped silently."""
    if path != CHAT:
        raise BadRequest(f"This model answers {CHAT} only.", param="model")
    for name in body:
        if name not in FIELDS:
            raise BadRequest(f"'{name[:200]}' is not an option this model takes: leave it out.", param=name[:200])
    return body


def _late(name: str, seconds: float) -> UpstreamTimeout:
    return UpstreamTimeout(f"The model's provider ({name}) said nothing within {seconds:g} seconds.")


def _plain(found: Any) -> dict[str, Any]:
    """litellm's answer or chunk as the JSON that OpenAI would send: without the fields it leaves empty."""
    return {name: _stripped(value) for name, value in found.model_dump(mode="json").items() if value is not None}


def _stripped(value: Any) -> Any:
    match value:
        case dict():
            inner = {name: _stripped(item) for name, item in value.items() if item is not None}
            return {name: item for name, item in inner.items() if item != {} or name == "delta"}
        case list():
            return [_stripped(item) for item in value]
    return value
