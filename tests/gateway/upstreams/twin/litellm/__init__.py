"""A twin of litellm for tests: the same door, with the OpenAI SDK behind it. It notes how it was called.

litellm itself needs openai < 3 and 20 packages more; run the same tests against it with LIBRAGATE_REAL_LITELLM=1.
"""

import os
from collections.abc import AsyncIterator
from typing import Any

import openai

from . import exceptions as exceptions

calls: list[dict[str, Any]] = []
environment = dict(os.environ)


class Wrapper:
    def __init__(self, stream: Any, client: openai.AsyncOpenAI) -> None:
        self._stream = stream
        self._client = client

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        await self._stream.close()
        await self._client.close()


async def acompletion(
    *, model: str, api_key: str, api_base: str, timeout: float, num_retries: int, max_retries: int, **fields: Any
) -> Any:
    calls.append({"model": model, "num_retries": num_retries, **fields})
    # Without verify=False each client reads the machine's certificates, which takes longer than the tests' deadlines.
    http = openai.DefaultAsyncHttpxClient(verify=False)
    options: Any = {"timeout": timeout, "max_retries": max_retries, "http_client": http}
    client = openai.AsyncOpenAI(api_key=api_key, base_url=api_base, **options)
    try:
        found = await client.chat.completions.create(model=model.removeprefix("openai/"), **fields)
    except BaseException:
        await client.close()
        raise
    if fields.get("stream"):
        return Wrapper(found, client)
    await client.close()
    return found
