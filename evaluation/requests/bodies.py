"""Bodies of chat completions, as agents, retrieval apps and people send them, made round a text."""

import json
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

Body = Mapping[str, Any]
Message = Mapping[str, Any]

PLAIN: Mapping[str, Sequence[str]] = {
    "zh": ("你好，可以开始了吗？", "先简单介绍一下你能做什么。", "请帮我处理今天的第一件事。", "我该怎么用你？"),
    "en": ("Hello, can we start?", "What can you help me with?", "Please take care of the first item.", "Hi there."),
}
LOOK_UP: Mapping[str, Sequence[str]] = {
    "zh": ("帮我查一下这个，然后用两句话说给我听。", "查一下最新情况。", "看看里面写了什么。", "把结果整理成要点。"),
    "en": (
        "Look this up and tell me in two sentences.",
        "Check the latest state.",
        "What does it say?",
        "List the main points.",
    ),
}
ANSWER_FROM: Mapping[str, Sequence[str]] = {
    "zh": ("请根据下面的资料回答：它主要讲了什么？", "总结下面的文档。", "资料如下，请列出三个要点。"),
    "en": (
        "Answer from this document: what is it about?",
        "Summarise the document below.",
        "List three points from this text.",
    ),
}
REVIEW: Mapping[str, Sequence[str]] = {
    "zh": ("请审查这个文件，指出问题。", "解释一下这段代码。", "这个文件有什么可以改进的？"),
    "en": ("Review this file.", "Explain this code to me.", "What would you improve in this file?"),
}
FIX: Mapping[str, Sequence[str]] = {
    "zh": ("测试没有通过，请找出原因并修好。", "请把这个模块重构一下，行为不要变。"),
    "en": ("A test fails. Find out why and repair it.", "Refactor this module without changing what it does."),
}
NEXT_STEP: Mapping[str, Sequence[str]] = {
    "zh": ("我先看一下相关的文件。", "再确认一下别处的用法。", "接着看输出。"),
    "en": ("I will read the file first.", "Let me check where it is used.", "Now the output."),
}
CODING_AGENT: Mapping[str, str] = {
    "zh": "你是一个编程助手，在用户的仓库里工作。先读文件再改动，改完运行测试。",
    "en": "You are a coding assistant in the user's repository. Read files before you change them, then run the tests.",
}
STEPS: Sequence[tuple[str, Mapping[str, str]]] = (
    ("read_file", {"path": "README.md"}),
    ("search", {"query": "release notes"}),
    ("fetch_page", {"url": "https://docs.example.org/start"}),
    ("list_files", {"path": "src"}),
)
"""Calls that say little, so that what they bring back decides."""


def with_system(text: str, lang: str, rng: Random) -> Body:
    """An agent's system prompt with a harmless first turn."""
    return _body({"role": "system", "content": text}, _user(rng.choice(PLAIN[lang])))


def with_tools(text: str, lang: str, rng: Random) -> Body:
    """A request that declares tools, and asks something harmless."""
    return {**_body(_user(rng.choice(LOOK_UP[lang]))), "tools": tools_of(text)}


def tools_of(text: str) -> list[Mapping[str, Any]]:
    """The tools that a text declares, in OpenAI's shape; a text of another shape becomes a tool's description."""
    try:
        declared = json.loads(text)
    except ValueError:
        declared = None
    if isinstance(declared, dict):
        declared = declared.get("tools", declared.get("functions", [declared]))
    tools = [_tool(one) for one in declared or () if isinstance(one, dict)] if isinstance(declared, list) else []
    return [tool for tool in tools if tool is not None] or [_function("tool", text, {})]


def _tool(declared: Mapping[str, Any]) -> Mapping[str, Any] | None:
    inner = declared.get("function", declared)
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        return None
    schema = inner.get("parameters") or inner.get("input_schema") or inner.get("inputSchema") or {}
    description = inner.get("description", "")
    return _function(inner["name"], str(description), schema if isinstance(schema, dict) else {})


def _function(name: str, description: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    schema = parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


def with_result(text: str, lang: str, rng: Random) -> Body:
    """An agent's loop of one step: a question, a call, and the tool's result."""
    return _body(_user(rng.choice(LOOK_UP[lang])), *_step(1, text, rng))


def with_calls(text: str, lang: str, rng: Random) -> Body:
    """An agent's loop whose calls are those the text lists."""
    try:
        listed = json.loads(text)
    except ValueError:
        listed = [{"name": "run_command", "arguments": {"command": text}}]
    calls = [_call(f"call_{n}", one) for n, one in enumerate(listed if isinstance(listed, list) else [listed], 1)]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in calls]
    asked = _user(rng.choice(LOOK_UP[lang]))
    return _body(asked, {"role": "assistant", "content": None, "tool_calls": calls}, *results)


def _call(name: str, listed: Any) -> Mapping[str, Any]:
    inner = listed.get("function", listed) if isinstance(listed, dict) else {"arguments": listed}
    arguments = inner.get("arguments", inner.get("input", inner))
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    called = str(inner.get("name", "run_command"))
    return {"id": name, "type": "function", "function": {"name": called, "arguments": text}}


def with_document(text: str, lang: str, rng: Random) -> Body:
    """A retrieved or pasted document with an instruction before it."""
    return _body(_user(f"{rng.choice(ANSWER_FROM[lang])}\n\n{text}"))


def with_code(text: str, lang: str, rng: Random) -> Body:
    """A file to be reviewed."""
    return _body(_user(f"{rng.choice(REVIEW[lang])}\n\n```\n{text}\n```"))


def coding_loop(results: Sequence[str], lang: str, rng: Random) -> Body:
    """A coding agent's loop: a system prompt, a task, and a call with its result for each of the texts."""
    turns = [turn for n, text in enumerate(results, 1) for turn in _step(n, text, rng, rng.choice(NEXT_STEP[lang]))]
    system = {"role": "system", "content": CODING_AGENT[lang]}
    return _body(system, _user(rng.choice(FIX[lang])), *turns)


def _step(number: int, text: str, rng: Random, said: str | None = None) -> Sequence[Message]:
    name = f"call_{number}"
    tool, arguments = rng.choice(STEPS)
    call = {"id": name, "type": "function", "function": {"name": tool, "arguments": json.dumps(arguments)}}
    return (
        {"role": "assistant", "content": said, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": name, "content": text},
    )


def with_text(text: str, lang: str, rng: Random) -> Body:
    """What a person types, and nothing else."""
    return _body(_user(text))


def body_of(kind: str, text: str, lang: str, rng: Random) -> Body:
    """The body in which a text of this kind comes."""
    make = {
        "system": with_system,
        "tool_definition": with_tools,
        "tool_result": with_result,
        "tool_call": with_calls,
        "document": with_document,
        "code": with_code,
    }
    return make.get(kind, with_text)(text, lang, rng)


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _body(*messages: Message) -> Body:
    return {"model": "none", "messages": list(messages)}
