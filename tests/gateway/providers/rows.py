"""What each provider or server adds to a chat answer: a row each, after its documentation, with words of our own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SEAL = "CtwBAdHtim9Qx0n5hYx2mU8mA3kq7dVq0h1Tj2c3n4x5y6z7" * 4
THOUGHT = "The user wants a capital. "
SITE = {"title": "Paris on the map", "url": "https://example.org/paris", "snippet": "A city on the Seine."}
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """`message`, `choice` and `beside` are what stands in the message, beside it and beside the choices, plain and in
    a chunk; `call` what stands in a tool call. `dropped` are those that nobody here knows."""

    message: Fields = field(default_factory=dict)
    choice: Fields = field(default_factory=dict)
    beside: Fields = field(default_factory=dict)
    call: Fields = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()
    model: str = "some-model"


def _details(*details: Fields) -> Row:
    return Row(message={"reasoning_details": list(details)}, beside={"provider": "Some Cloud"})


def _thinking(piece: Fields) -> Row:
    return Row(message={"content": [piece, {"type": "text", "text": "It is Paris."}]})


_FILTERS = {"hate": {"filtered": False, "severity": "safe"}, "jailbreak": {"filtered": False, "detected": False}}
_DOWN = {"error": {"code": "content_filter_error", "message": "The contents are not filtered"}}
_CITED = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 4, **SITE}}
ROWS: Mapping[str, Row] = {
    "OpenAI": Row(message={"refusal": None}, beside={"service_tier": "default", "obfuscation": "a8Fj2"}),
    "OpenAI, web search": Row(message={"annotations": [_CITED]}),
    "Azure OpenAI": Row(
        choice={"content_filter_results": _FILTERS},
        beside={"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": _FILTERS}]},
    ),
    "Azure OpenAI, filter down": Row(choice={"content_filter_result": _DOWN}),
    "Azure OpenAI, own data": Row(message={"context": {"citations": [SITE], "intent": "the capital of France"}}),
    "Groq": Row(
        message={"reasoning": THOUGHT},
        beside={"x_groq": {"id": "req_01jbd6g2qdfw2adyrt2az8hz4w"}},
        dropped=frozenset({"x_groq"}),
    ),
    "OpenRouter, text": _details({"type": "reasoning.text", "text": THOUGHT, "signature": SEAL, "index": 0}),
    "OpenRouter, summary": _details({"type": "reasoning.summary", "summary": THOUGHT, "format": "unknown", "index": 0}),
    "OpenRouter, encrypted": _details({"type": "reasoning.encrypted", "data": SEAL, "id": "rs_1", "index": 0}),
    "OpenRouter, online": Row(message={"annotations": [_CITED]}, choice={"native_finish_reason": "stop"}),
    "Gemini": Row(
        message={"extra_content": {"google": {"thought_signature": SEAL}}},
        call={"extra_content": {"google": {"thought_signature": SEAL}}},
    ),
    "Zhipu GLM": Row(
        message={"reasoning_content": THOUGHT},
        beside={"request_id": "20261101120000a1b2", "web_search": [{"content": "一座城市", "link": "https://e.org"}]},
    ),
    "Mistral": Row(beside={"p": "abcdefghij"}),
    "Mistral Magistral": _thinking({"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}),
    "Mistral, references": Row(
        message={"content": [{"type": "text", "text": "It is Paris."}, {"type": "reference", "reference_ids": [1, 2]}]}
    ),
    "Databricks": _thinking(
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": THOUGHT, "signature": SEAL}]}
    ),
    "Cloudflare": Row(beside={"p": "abdefghijklmnopqrstuv"}),
    "Together": Row(
        choice={"seed": 12345, "text": ""}, beside={"prompt": [], "metadata": {"weight_version": "default"}}
    ),
    "SGLang": Row(
        message={"reasoning_content": THOUGHT},
        choice={"matched_stop": "the end"},
        beside={"metadata": {"weight_version": "default"}},
    ),
    "vLLM": Row(
        message={"reasoning": THOUGHT},
        choice={"stop_reason": None, "token_ids": [3, 1, 4]},
        beside={"prompt_logprobs": None, "prompt_token_ids": [2, 7], "kv_transfer_params": {"host": "node 7"}},
        dropped=frozenset({"token_ids", "prompt_token_ids", "kv_transfer_params"}),
    ),
    "Perplexity": Row(
        beside={
            "citations": ["https://example.org/paris"],
            "search_results": [SITE],
            "related_questions": ["What is the capital of Italy?"],
        }
    ),
    "xAI": Row(message={"reasoning_content": THOUGHT}, beside={"citations": ["https://example.org/paris"]}),
    "DeepSeek": Row(message={"reasoning_content": THOUGHT}, beside={"system_fingerprint": "fp_1"}),
    "Qwen on DashScope": Row(message={"reasoning_content": THOUGHT}),
    "Moonshot Kimi": Row(message={"reasoning_content": THOUGHT}),
    "MiniMax": Row(beside={"base_resp": {"status_code": 0, "status_msg": "success"}, "input_sensitive": False}),
    "Hunyuan": Row(beside={"note": "以上内容为AI生成，不代表开发者立场。", "request_id": "b1c2"}),
    "Doubao": Row(message={"reasoning_content": THOUGHT}, beside={"service_tier": "default"}, model="豆包 pro"),
    "GitHub Copilot": Row(
        beside={"copilot_references": [{"id": "a file of ours"}]}, dropped=frozenset({"copilot_references"})
    ),
    "LiteLLM, Claude": Row(
        message={
            "reasoning_content": THOUGHT,
            "thinking_blocks": [{"type": "thinking", "thinking": THOUGHT, "signature": SEAL}],
            "provider_specific_fields": {"citations": None},
        }
    ),
    "Bedrock behind a proxy": Row(
        beside={"amazon_metrics": {"region name": 1, "latency": 12}}, dropped=frozenset({"amazon_metrics"})
    ),
    "llama.cpp": Row(beside={"timings": {"prompt_n": 12, "predicted_ms": 3.5}}),
    "Ollama": Row(message={"reasoning": THOUGHT}, beside={"system_fingerprint": "fp_ollama"}),
    "LM Studio": Row(beside={"stats": {}}, model="qwen 3 (4bit)"),
    "Fireworks": Row(message={"reasoning_content": THOUGHT}, choice={"token_ids": None}),
}
