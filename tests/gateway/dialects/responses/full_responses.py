"""Responses bodies with every item and every event there is, and requests with one thing wrong in each."""

from typing import Any

from gateway.dialects.dialect import Event

LOGPROBS = [{"token": "hello", "logprob": -0.1, "bytes": [104, 101, 108, 108, 111], "top_logprobs": []}]
CITATION = {"type": "url_citation", "title": "a b", "url": "u", "start_index": 0, "end_index": 1}
ITEMS: list[dict[str, Any]] = [
    {"role": "user", "content": "hello"},
    {
        "type": "message",
        "role": "developer",
        "content": [
            {"type": "input_text", "text": "be kind"},
            {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"},
            {"type": "input_file", "file_data": "AA", "filename": "a.pdf"},
        ],
    },
    {
        "type": "message",
        "id": "m1",
        "role": "assistant",
        "status": "completed",
        "phase": "commentary",
        "content": [
            {"type": "output_text", "text": "hello", "annotations": [CITATION], "logprobs": LOGPROBS},
            {"type": "refusal", "refusal": "no"},
        ],
    },
    {
        "type": "reasoning",
        "id": "r1",
        "summary": [{"type": "summary_text", "text": "thought"}],
        "content": [{"type": "reasoning_text", "text": "thinking"}],
    },
    {"type": "function_call", "id": "f1", "call_id": "c1", "name": "weather", "arguments": '{"city": "Lyon"}'},
    {"type": "custom_tool_call", "id": "k1", "call_id": "c2", "name": "grep", "input": "needle"},
    {"type": "file_search_call", "id": "s1", "status": "completed", "queries": ["q"], "results": [{"text": "found"}]},
    {"type": "web_search_call", "id": "w1", "status": "completed", "action": {"type": "search", "query": "q"}},
    {
        "type": "computer_call",
        "id": "o1",
        "call_id": "c3",
        "status": "completed",
        "action": {"type": "type", "text": "typed"},
        "pending_safety_checks": [{"id": "p1", "message": "be careful"}],
    },
    {
        "type": "code_interpreter_call",
        "id": "i1",
        "container_id": "t1",
        "status": "completed",
        "code": "print(1)",
        "outputs": [{"type": "logs", "logs": "1"}],
    },
    {
        "type": "local_shell_call",
        "id": "l1",
        "call_id": "c4",
        "status": "completed",
        "action": {"type": "exec", "command": ["ls"], "env": {"A": "b c"}},
    },
    {
        "type": "shell_call",
        "id": "h1",
        "call_id": "c5",
        "action": {"commands": ["ls"]},
        "environment": {"type": "local"},
    },
    {"type": "apply_patch_call", "id": "a1", "call_id": "c6", "operation": {"type": "update_file", "diff": "+ x"}},
    {
        "type": "mcp_call",
        "id": "x1",
        "name": "t",
        "server_label": "my server",
        "arguments": "{}",
        "output": "done",
        "error": None,
    },
    {"type": "mcp_list_tools", "id": "x2", "server_label": "s", "tools": [{"name": "t", "description": "does it"}]},
    {"type": "mcp_approval_request", "id": "x3", "server_label": "s", "name": "t", "arguments": '{"a": "b"}'},
    {"type": "program", "id": "p1", "call_id": "c7", "code": "x = 1", "fingerprint": "fp"},
    {"type": "tool_search_call", "id": "q1", "arguments": {"query": "q"}, "execution": "server", "status": "completed"},
]
RESULTS: list[dict[str, Any]] = [
    {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
    {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "sunny"}]},
    {"type": "custom_tool_call_output", "call_id": "c2", "output": "found"},
    {"type": "computer_call_output", "call_id": "c3", "output": {"type": "computer_screenshot", "image_url": "u"}},
    {"type": "local_shell_call_output", "id": "l2", "output": "a.txt"},
    {
        "type": "shell_call_output",
        "call_id": "c5",
        "output": [{"stdout": "a", "stderr": "", "outcome": {"type": "exit"}}],
    },
    {"type": "apply_patch_call_output", "call_id": "c6", "status": "completed", "output": "ok then"},
    {"type": "mcp_approval_response", "approval_request_id": "x3", "approve": True, "reason": "why not"},
    {"type": "program_output", "id": "p2", "call_id": "c7", "status": "completed", "result": "1"},
    {"type": "tool_search_output", "call_id": "c8", "tools": [{"type": "function", "name": "f"}]},
    {"type": "image_generation_call", "id": "g1", "status": "completed", "result": "AA", "revised_prompt": "a cat"},
    {"type": "reasoning", "id": "r2", "summary": [], "encrypted_content": "gAAAA"},
    {"type": "compaction", "id": "z1", "encrypted_content": "gAAAA"},
    {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}]},
]
TOOLS = [
    {"type": "function", "name": "weather", "description": "of a place", "parameters": {"type": "object"}},
    {"type": "web_search", "user_location": {"type": "approximate", "city": "Lyon"}},
]
REQUEST: dict[str, Any] = {
    "model": "demo",
    "instructions": "be kind and brief",
    "input": [*ITEMS, *RESULTS],
    "tools": TOOLS,
    "tool_choice": {"type": "function", "name": "weather"},
    "text": {"format": {"type": "json_schema", "name": "s", "schema": {"title": "what it is"}}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "include": ["reasoning.encrypted_content"],
    "metadata": {"ticket": "77"},
    "stream": True,
    "stream_options": {"include_obfuscation": False},
    "store": False,
    "max_output_tokens": 50,
    "temperature": 1,
    "truncation": "disabled",
    "service_tier": "auto",
    "user": "u1",
    "prompt_cache_key": "k1",
    "safety_identifier": "s1",
}
BLANK: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "in_progress",
    "error": None,
    "incomplete_details": None,
    "instructions": "be kind and brief",
    "max_output_tokens": 50,
    "model": "demo",
    "output": [],
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": "low", "summary": None},
    "store": False,
    "temperature": 1.0,
    "text": REQUEST["text"],
    "tool_choice": REQUEST["tool_choice"],
    "tools": TOOLS,
    "top_p": 1.0,
    "truncation": "disabled",
    "usage": None,
    "user": "u1",
    "metadata": {"ticket": "77"},
}
USAGE = {
    "input_tokens": 3,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 5,
}
ANSWER: dict[str, Any] = {**BLANK, "status": "completed", "output": ITEMS[2:], "usage": USAGE}


def event(kind: str, **fields: Any) -> Event:
    return Event({"type": kind, "sequence_number": 0, **fields}, kind)


def message(index: int, *deltas: str) -> list[Event]:
    """The events of a message with one text."""
    where = {"item_id": f"m{index}", "output_index": index, "content_index": 0}
    text = "".join(deltas)
    piece = {"type": "output_text", "text": text, "annotations": []}
    item = {"type": "message", "id": f"m{index}", "role": "assistant", "status": "completed", "content": [piece]}
    added = {**item, "status": "in_progress", "content": []}
    return [
        event("response.output_item.added", output_index=index, item=added),
        event("response.content_part.added", **where, part={**piece, "text": ""}),
        *(event("response.output_text.delta", **where, delta=delta, logprobs=[]) for delta in deltas),
        event("response.output_text.done", **where, text=text, logprobs=[]),
        event("response.content_part.done", **where, part=piece),
        event("response.output_item.done", output_index=index, item=item),
    ]


def call(index: int, *deltas: str) -> list[Event]:
    """The events of a function call."""
    where = {"item_id": f"f{index}", "output_index": index}
    item = {"type": "function_call", "id": f"f{index}", "call_id": f"c{index}", "name": "weather", "arguments": ""}
    done = {**item, "arguments": "".join(deltas), "status": "completed"}
    return [
        event("response.output_item.added", output_index=index, item={**item, "status": "in_progress"}),
        *(event("response.function_call_arguments.delta", **where, delta=delta) for delta in deltas),
        event("response.function_call_arguments.done", **where, name="weather", arguments="".join(deltas)),
        event("response.output_item.done", output_index=index, item=done),
    ]


def numbered(*events: Event) -> tuple[Event, ...]:
    return tuple(Event({**(one.data or {}), "sequence_number": i}, one.name) for i, one in enumerate(events))


def whole(*events: Event) -> tuple[Event, ...]:
    """A stream with these events between its first and its last; the last repeats the items that were done."""
    output = [one.data["item"] for one in events if one.data and one.name == "response.output_item.done"]
    return numbered(
        event("response.created", response=BLANK),
        event("response.in_progress", response=BLANK),
        *events,
        event("response.completed", response={**BLANK, "status": "completed", "output": output, "usage": USAGE}),
    )


REASONING = {"item_id": "r2", "output_index": 2}
EXTRA = [
    event("response.output_item.added", output_index=2, item={"type": "reasoning", "id": "r2", "summary": []}),
    event(
        "response.reasoning_summary_part.added", **REASONING, summary_index=0, part={"type": "summary_text", "text": ""}
    ),
    event("response.reasoning_summary_text.delta", **REASONING, summary_index=0, delta="thought"),
    event("response.reasoning_summary_text.done", **REASONING, summary_index=0, text="thought"),
    event(
        "response.reasoning_summary_part.done",
        **REASONING,
        summary_index=0,
        part={"type": "summary_text", "text": "thought"},
    ),
    event("response.reasoning_text.delta", **REASONING, content_index=0, delta="thinking"),
    event("response.reasoning_text.done", **REASONING, content_index=0, text="thinking"),
    event("response.output_item.done", output_index=2, item=ITEMS[3]),
    event("response.output_item.added", output_index=3, item={**ITEMS[5], "input": ""}),
    event("response.custom_tool_call_input.delta", output_index=3, item_id="k1", delta="needle"),
    event("response.custom_tool_call_input.done", output_index=3, item_id="k1", input="needle"),
    event("response.output_item.done", output_index=3, item=ITEMS[5]),
    event("response.web_search_call.in_progress", output_index=4, item_id="w1"),
    event("response.web_search_call.searching", output_index=4, item_id="w1"),
    event("response.web_search_call.completed", output_index=4, item_id="w1"),
    event("response.output_item.done", output_index=4, item=ITEMS[7]),
    event("response.code_interpreter_call_code.delta", output_index=5, item_id="i1", delta="print(1)"),
    event("response.code_interpreter_call_code.done", output_index=5, item_id="i1", code="print(1)"),
    event("response.mcp_call_arguments.delta", output_index=6, item_id="x1", delta="{}"),
    event("response.mcp_call_arguments.done", output_index=6, item_id="x1", arguments="{}"),
    event("response.shell_call_command.added", output_index=7, command_index=0, command="ls"),
    event("response.shell_call_command.delta", output_index=7, command_index=0, delta=" -l"),
    event("response.shell_call_command.done", output_index=7, command_index=0, command="ls -l"),
    event("response.shell_call_output_content.delta", output_index=8, item_id="h2", delta={"stdout": "a b"}),
    event("response.shell_call_output_content.done", output_index=8, item_id="h2", output=[{"stdout": "a b"}]),
    event("response.audio.transcript.delta", delta="hello"),
    event("response.audio.transcript.done"),
    event(
        "response.output_text.annotation.added",
        output_index=0,
        content_index=0,
        annotation_index=0,
        item_id="m0",
        annotation=CITATION,
    ),
    event("response.refusal.delta", output_index=9, content_index=0, item_id="m9", delta="no"),
    event("response.refusal.done", output_index=9, content_index=0, item_id="m9", refusal="no"),
]
EVENTS = whole(*message(0, "hel", "lo"), *call(1, '{"city": ', '"Lyon"}'), *EXTRA)


def _asked(**fields: Any) -> dict[str, Any]:
    return {"model": "demo", "input": "hi", **fields}


def _item(**fields: Any) -> dict[str, Any]:
    return {"model": "demo", "input": [fields]}


BAD_REQUESTS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"input": "hi"}, "model"),
    ({"model": "demo"}, "input"),
    (_asked(input=[]), "input"),
    (_asked(input={}), "input"),
    (_asked(input=7), "input"),
    (_asked(input=["hi"]), "input[0]"),
    (_asked(instructions=["hi"]), "instructions"),
    (_asked(previous_response_id="resp_1"), "previous_response_id"),
    (_asked(conversation="conv_1"), "conversation"),
    (_asked(conversation={"id": "conv_1"}), "conversation"),
    (_asked(prompt={"id": "pmpt_1", "variables": {"a": "b"}}), "prompt"),
    (_asked(background=True), "background"),
    (_asked(messages=[{"role": "user", "content": "x"}]), "messages"),
    (_asked(tools={}), "tools"),
    (_asked(tools=["x"]), "tools[0]"),
    (_asked(tool_choice=7), "tool_choice"),
    (_asked(text="x"), "text"),
    (_asked(text={"format": "x"}), "text.format"),
    (_asked(text={"style": "x"}), "text.style"),
    (_asked(text={"verbosity": "two words"}), "text.verbosity"),
    (_asked(reasoning={"effort": "two words"}), "reasoning"),
    (_asked(include="x"), "include"),
    (_asked(temperature=3), "temperature"),
    (_asked(stream="yes"), "stream"),
    (_item(id="m1"), "input[0]"),
    (_item(type="item_reference", id="m1"), "input[0]"),
    (_item(type="telepathy", text="x"), "input[0].type"),
    (_item(type=7, text="x"), "input[0].type"),
    (_item(role="root", content="x"), "input[0].role"),
    (_item(type="message", content="x"), "input[0].role"),
    (_item(role="user", content=7), "input[0].content"),
    (_item(role="user", content={"type": "input_text"}), "input[0].content"),
    (_item(role="user", content=["x"]), "input[0].content[0]"),
    (_item(role="user", content=[{"type": "input_video", "url": "x"}]), "input[0].content[0].type"),
    (_item(role="user", content=[{"type": "input_text", "text": 7}]), "input[0].content[0].text"),
    (_item(role="user", content=[{"type": "input_text", "text": "x", "alt": "y"}]), "input[0].content[0].alt"),
    (_item(role="user", content="x", whisper="y"), "input[0].whisper"),
    (_item(type="function_call", name=7), "input[0].name"),
    (_item(type="function_call", call_id="two\nlines"), "input[0].call_id"),
    (_item(type="function_call_output", output=7), "input[0].output"),
    (_item(type="local_shell_call_output", output=[]), "input[0].output"),
)
