"""litellm as a client, as a program."""

import litellm
import openai
from program import Seen, named, run

litellm.suppress_debug_info = True


def completion(url: str, key: str, prompt: str) -> Seen:
    return _asked("openai/m", f"{url}/v1", key, prompt)


def completion_anthropic(url: str, key: str, prompt: str) -> Seen:
    return _asked("anthropic/m", url, key, prompt)


def _asked(model: str, url: str, key: str, prompt: str) -> Seen:
    try:
        answer = litellm.completion(
            model=model, api_base=url, api_key=key, messages=[{"role": "user", "content": prompt}], timeout=30
        )
    except openai.OpenAIError as exc:
        return {"error": named(exc)}
    choice = answer.choices[0]
    refusal = getattr(choice.message, "refusal", None) or (choice.message.provider_specific_fields or {}).get("refusal")
    text = choice.message.content or ""
    return {"text": text, "refusal": refusal or "", "end": f"finish_reason: {choice.finish_reason}"}


def stream(url: str, key: str, prompt: str) -> Seen:
    return _streamed("openai/m", f"{url}/v1", key, prompt)


def stream_anthropic(url: str, key: str, prompt: str) -> Seen:
    return _streamed("anthropic/m", url, key, prompt)


def _streamed(model: str, url: str, key: str, prompt: str) -> Seen:
    text, refusal, end = "", "", ""
    messages = [{"role": "user", "content": prompt}]
    try:
        for chunk in litellm.completion(
            model=model, api_base=url, api_key=key, messages=messages, timeout=30, stream=True
        ):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                refusal += getattr(choice.delta, "refusal", None) or ""
                end = f"finish_reason: {choice.finish_reason}" if choice.finish_reason else end
    except openai.OpenAIError as exc:
        return {"text": text, "refusal": refusal, "end": end, "error": named(exc)}
    return {"text": text, "refusal": refusal, "end": end}


if __name__ == "__main__":
    run(
        {
            "completion, openai/": completion,
            "completion, openai/, stream": stream,
            "completion, anthropic/": completion_anthropic,
            "completion, anthropic/, stream": stream_anthropic,
        }
    )
