"""`python -m evaluation build-requests`: whole requests made of labelled texts, each in the place that its kind has."""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluation.datasets import BadData, Broken, Record, records
from evaluation.requests.rows import refuse, wrong_field
from evaluation.scoring import Watch

GENRES = ("genres_dev.jsonl", "genres_whole_dev.jsonl")
ASKED = {
    "zh": {
        "document": "请根据这份文件回答：主要内容是什么？",
        "code": "请检查这个文件。",
        "user": "你好，能帮我做什么？",
    },
    "en": {
        "document": "Answer from this document: what is it about?",
        "code": "Review this file.",
        "user": "Hello, what can you do for me?",
    },
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "fetch", "arguments": "{}"}}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--genres", type=Path, required=True, help=f"folder with {' and '.join(GENRES)}")
    parser.add_argument("--written", type=Path, required=True, help="folder of written rows; those of the split dev")
    parser.add_argument("--out", type=Path, required=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, watch: Watch) -> None:
    """Raises `BadData`."""
    wrong: list[Broken] = []
    requests: dict[str, Mapping[str, Any]] = {}
    for record in _dev_records(options.genres, options.written):
        row = record if isinstance(record, Broken) else _request(record)
        if isinstance(row, Broken):
            wrong.append(row)
        else:
            requests.setdefault(row["id"], row)
    refuse(wrong)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in requests.values())
    options.out.write_text("".join(lines), encoding="utf-8")
    print(f"{options.out}: {len(requests)} requests")


def _dev_records(genres: Path, written: Path) -> Iterator[Record | Broken]:
    for name in GENRES:
        yield from records(genres / name)
    files = sorted(written.glob("written*.jsonl"))
    if not files:
        raise BadData(f"{written}: no written*.jsonl in this folder")
    for file in files:
        for record in records(file):
            if isinstance(record, Broken) or record.content.get("split") == "dev":
                yield record


def _request(record: Record) -> Mapping[str, Any] | Broken:
    row = record.content
    answered = row.get("direction") == "response"
    reason = wrong_field(row, ("id", "lang", "label", "kind", "response" if answered else "prompt"))
    if reason is not None:
        return Broken(record.place, reason)
    if row["lang"] not in ASKED:
        return Broken(record.place, f"lang: {row['lang']!r} is none of {', '.join(ASKED)}")
    kind, text = row["kind"], row.get("prompt") or ""
    body = _spoken(text or ASKED[row["lang"]]["user"]) if answered else _body(kind, row["lang"], text)
    made = {"id": row["id"], "domain": kind, "lang": row["lang"], "label": row["label"], "kind": kind, "body": body}
    return {**made, "reply": row["response"]} if answered else made


def _body(kind: str, lang: str, text: str) -> Mapping[str, Any]:
    asked = ASKED[lang]
    user = {"role": "user", "content": asked["user"]}
    match kind:
        case "system":
            return _turns({"role": "system", "content": text}, user)
        case "tool_definition":
            return {**_turns(user), "tools": [_tool(text)]}
        case "tool_result":
            call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
            return _turns(user, call, {"role": "tool", "tool_call_id": "call_1", "content": text})
        case "tool_call":
            called = {**CALL, "function": {"name": "fetch", "arguments": text}}
            result = {"role": "tool", "tool_call_id": "call_1", "content": "ok"}
            return _turns(user, {"role": "assistant", "content": None, "tool_calls": [called]}, result)
        case "document" | "code":
            return _spoken(f"{asked[kind]}\n\n{text}")
        case _:
            return _spoken(text)


def _tool(text: str) -> Mapping[str, Any]:
    """The definition itself where the text is one, otherwise a tool that the text describes."""
    try:
        tool = json.loads(text)
    except ValueError:
        tool = None
    if isinstance(tool, dict) and tool.get("type") == "function" and isinstance(tool.get("function"), dict):
        return tool
    if isinstance(tool, dict) and isinstance(tool.get("name"), str):
        return {"type": "function", "function": tool}
    return {"type": "function", "function": {"name": "tool", "description": text}}


def _spoken(text: str) -> Mapping[str, Any]:
    return _turns({"role": "user", "content": text})


def _turns(*messages: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"model": "none", "messages": list(messages)}
