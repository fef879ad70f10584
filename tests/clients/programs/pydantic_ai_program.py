"""pydantic-ai, as a program."""

import asyncio

from program import Seen, named, run
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.exceptions import AgentRunError
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.output import NativeOutput
from pydantic_ai.providers.openai import OpenAIProvider


class Answer(BaseModel):
    answer: str


def _model(url: str, key: str) -> OpenAIChatModel:
    return OpenAIChatModel("m", provider=OpenAIProvider(base_url=f"{url}/v1", api_key=key))


def agent_run(url: str, key: str, prompt: str) -> Seen:
    try:
        result = Agent(_model(url, key)).run_sync(prompt)
    except AgentRunError as exc:
        return {"error": named(exc)}
    last = result.all_messages()[-1]
    end = last.finish_reason if isinstance(last, ModelResponse) else None
    return {"text": result.output, "end": f"finish_reason: {end}"}


def agent_run_output(url: str, key: str, prompt: str) -> Seen:
    try:
        result = Agent(_model(url, key), output_type=NativeOutput(Answer)).run_sync(prompt)
    except AgentRunError as exc:
        return {"error": named(exc)}
    return {"text": result.output.answer, "end": "output: Answer"}


def run_stream(url: str, key: str, prompt: str) -> Seen:
    return asyncio.run(_streamed(url, key, prompt))


async def _streamed(url: str, key: str, prompt: str) -> Seen:
    text = ""
    try:
        async with Agent(_model(url, key)).run_stream(prompt) as result:
            async for piece in result.stream_text(delta=True, debounce_by=None):
                text += piece
            return {"text": text, "end": f"finish_reason: {result.response.finish_reason}"}
    except Exception as exc:  # noqa: BLE001 -- which exception it is, pydantic-ai's or the SDK's, is the question
        return {"text": text, "error": named(exc)}


if __name__ == "__main__":
    run({"Agent.run": agent_run, "Agent.run, NativeOutput": agent_run_output, "Agent.run_stream": run_stream})
