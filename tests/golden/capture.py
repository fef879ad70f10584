"""Plays a golden case against a served gateway and writes down all that can be seen of it, as text.

What differs from run to run is replaced, and nothing else:
  the case's own number, everywhere          CASE-CASE-CASE (another number: XXXX-XXXX-XXXX)
  the gateway's clock (created, created_at)  1700000000
  the Date header                            left out
  seconds in a record                        0, for each of its stages
  where a bug was raised, in a record        FILE:LINE
  /metrics                                   names and labels, without values, process metrics and Content-Length
Replacements are as long as what they replace, so that Content-Length stands as it was sent.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from tests.golden.case import Case, Headers
from tests.golden.cases import CASES
from tests.golden.world import LIMITS, WORLD, application, scripted
from tests.support.gateway_server import KEY, OTHER_KEY, running

CAPTURES = Path(__file__).parent / "captures"
OWN_CASE = "CASE-CASE-CASE"
OTHER_CASE = "XXXX-XXXX-XXXX"
WIDTH = 118
NO_RECORD = frozenset(
    {"models_posted", "posted_with_a_trailing_slash", "double_slash", "count_tokens", "responses_are_not_served"}
)

_CASE = re.compile(r"(?<![A-Za-z0-9])[2-9A-HJ-NP-Z]{4}(-[2-9A-HJ-NP-Z]{4}){2}(?![A-Za-z0-9])")
_CLOCK = re.compile(r'("created(?:_at)?": ?)1[0-9]{9}\b')
_PLACE = re.compile(r" at \S+:[0-9]+( in \w+)?")
_OF_PROCESS = re.compile(r"\b(python|process)_")
_UNSEEN = frozenset({"date"})
_OF_HTTPX = frozenset({"accept", "accept-encoding", "connection", "user-agent", "host", "content-length", WORLD})


def file_of(case: Case) -> Path:
    return CAPTURES / case.group / f"{case.name}.txt"


class Player:
    """Plays cases, each against the gateway of its world."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._worlds = {case.world: case.world.parts for case in CASES}
        self._names = {world: str(number) for number, world in enumerate(self._worlds)}

    def __enter__(self) -> "Player":
        parts = {self._names[world]: parts for world, parts in self._worlds.items()}
        self._url = self._open.enter_context(running(application(parts), LIMITS))
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def play(self, case: Case) -> str:
        """The case's capture."""
        parts = self._worlds[case.world]
        upstream, records = scripted(parts), parts.sink.records
        asked, written = len(upstream.asked), len(records)
        reply = self._sent(case, case.method, case.path, case.headers, case.body)
        # A stream's record may be written a moment after its last byte has arrived.
        end = time.monotonic() + 10
        while _leaves_a_record(case) and len(records) == written and time.monotonic() < end:
            time.sleep(0.002)
        own = reply.headers.get("x-request-id", "")
        sections = [_request(reply.request), _reply("reply", reply)]
        if case.then is not None:
            path, headers = case.then
            sections.append(_reply("then " + path, self._sent(case, "GET", path.format(id=own), headers, None)))
        sections += [f"--- upstream was asked\n{path}\n{shown(body)}" for path, body in upstream.asked[asked:]]
        sections += [f"--- record\n{shown(_timeless(record.line()))}" for record in records[written:]]
        return _normalised("\n\n".join(sections), own) + "\n"

    def _sent(self, case: Case, method: str, path: str, headers: Headers, body: Any) -> httpx.Response:
        """Each request on a connection of its own: a refused one may leave bytes behind that nobody reads."""
        named = {name for name, _ in headers}
        kind: Headers = () if body is None or "content-type" in named else (("content-type", "application/json"),)
        content = body if body is None or isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        sent = [*headers, *kind, (WORLD, self._names[case.world])]
        with httpx.Client(trust_env=False, verify=False, timeout=60) as client:
            return client.request(method, self._url + path, headers=sent, content=content)


def _leaves_a_record(case: Case) -> bool:
    """Whether one is to be waited for. Unknown routes and GET leave none."""
    return case.method == "POST" and case.name not in NO_RECORD


def _request(request: httpx.Request) -> str:
    lines = [f"{request.method} {request.url.raw_path.decode()}"]
    lines += [f"{name}: {value}" for name, value in request.headers.multi_items() if name not in _OF_HTTPX]
    return "\n".join([*lines, *([_long(request.content)] if request.content else [])])


def _long(content: bytes) -> str:
    """A body as one line; of a very long one, the beginning."""
    text = content.decode("utf-8", "backslashreplace")
    return text if len(text) < 15_000 else f"{text[:100]} ... ({len(content)} bytes)"


def _reply(name: str, reply: httpx.Response) -> str:
    lines = [f"--- {name}", str(reply.status_code)]
    unseen = _UNSEEN if name != "then /metrics" else {*_UNSEEN, "content-length"}
    lines += [f"{key}: {value}" for key, value in reply.headers.multi_items() if key not in unseen]
    if reply.headers.get("content-type") == "application/json" and reply.content:
        return "\n".join([*lines, "", shown(json.loads(reply.content))])
    text = _names(reply.text) if name == "then /metrics" else reply.text
    return "\n".join([*lines, *(["", text.rstrip("\n")] if text else [])])


def _names(metrics: str) -> str:
    """The names and labels of metrics, without their values."""
    lines = (line if line.startswith("# TYPE") else line.rpartition(" ")[0] for line in metrics.splitlines())
    return "\n".join(line for line in lines if not line.startswith("# HELP") and not _OF_PROCESS.search(line))


def _timeless(line: Mapping[str, Any]) -> dict[str, Any]:
    return {**line, "seconds": dict.fromkeys(line["seconds"], 0)}


def _normalised(text: str, own: str) -> str:
    text = text.replace(KEY, "KEY").replace(OTHER_KEY, "OTHER_KEY")
    text = _CASE.sub(lambda found: OWN_CASE if found[0] == own else OTHER_CASE, text)
    return _PLACE.sub(" at FILE:LINE", _CLOCK.sub(r"\g<1>1700000000", text))


def shown(value: Any, indent: int = 0) -> str:
    """JSON on as few lines as fit; the outermost object always a field a line."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value or (indent and indent + len(flat) <= WIDTH):
        return flat
    inner = " " * (indent + 2)
    lines = [inner + line for line in _lines(value, indent + 2)]
    first, last = "{}" if isinstance(value, dict) else "[]"
    return "\n".join([first, ",\n".join(lines), " " * indent + last])


def _lines(value: dict[str, Any] | list[Any], indent: int) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{json.dumps(key, ensure_ascii=False)}: {shown(inner, indent)}"
    else:
        for inner in value:
            yield shown(inner, indent)
