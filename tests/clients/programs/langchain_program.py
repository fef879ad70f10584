"""langchain-openai, as a program."""

from typing import Any

import openai
from langchain_core.messages import BaseMessage
from langchain_openai import ChatOpenAI
from program import Seen, named, run
from pydantic import BaseModel, SecretStr


class Answer(BaseModel):
    answer: str


def _model(url: str, key: str, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model="m", base_url=f"{url}/v1", api_key=SecretStr(key), timeout=30, **options)


def _message(message: BaseMessage, text: str) -> Seen:
    refusal = str(message.additional_kwargs.get("refusal") or "")
    end = message.response_metadata.get("finish_reason")
    return {"text": text, "refusal": refusal, "end": f"finish_reason: {end}" if end else ""}


def invoke(url: str, key: str, prompt: str) -> Seen:
    try:
        message = _model(url, key).invoke(prompt)
    except openai.OpenAIError as exc:
        return {"error": named(exc)}
    return _message(message, str(message.text))


def structured(url: str, key: str, prompt: str) -> Seen:
    try:
        found = _model(url, key).with_structured_output(Answer, method="json_schema").invoke(prompt)
    except Exception as exc:  # noqa: BLE001 -- a refusal is an error of langchain's own, and which one is the question
        return {"error": named(exc)}
    return {"text": found.answer if isinstance(found, Answer) else "", "end": f"returns: {type(found).__name__}"}


def stream(url: str, key: str, prompt: str) -> Seen:
    return _streamed(_model(url, key), prompt)


def stream_responses(url: str, key: str, prompt: str) -> Seen:
    return _streamed(_model(url, key, use_responses_api=True), prompt)


def _streamed(model: ChatOpenAI, prompt: str) -> Seen:
    text, refusal, end = "", "", ""
    try:
        for chunk in model.stream(prompt):
            text += str(chunk.text)
            refusal += str(chunk.additional_kwargs.get("refusal") or "")
            found = chunk.response_metadata.get("finish_reason") or chunk.response_metadata.get("status")
            end = f"finish_reason: {found}" if found else end
    except openai.OpenAIError as exc:
        return {"text": text, "refusal": refusal, "end": end, "error": named(exc)}
    return {"text": text, "refusal": refusal, "end": end}


if __name__ == "__main__":
    run(
        {
            "ChatOpenAI.invoke": invoke,
            "ChatOpenAI.with_structured_output": structured,
            "ChatOpenAI.stream": stream,
            "ChatOpenAI(use_responses_api).stream": stream_responses,
        }
    )
