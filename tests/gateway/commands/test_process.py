"""The command line as a shell sees it: a real process, its exit code, and a real port."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[3]
CONFIG = """
policies: {policies}
guards: [{{kind: scripted, words: {{坏: hate_speech_and_abuse}}}}]
upstreams: {{up: {{kind: scripted, says: 你好}}}}
models: {{demo: {{upstream: up}}}}
tenants: {{demo: {{policy: demo, key_variable: LIBRAGATE_DEMO_KEY}}}}
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gateway", *arguments]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LIBRAGATE_")}
    return {**kept, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG.format(policies=ROOT / "policies"), encoding="utf-8")
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=folder, env=environment(), capture_output=True, encoding="utf-8")


@pytest.fixture
def served(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command("serve", "--port", "0"),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    yield process
    process.kill()
    process.communicate()


def until(process: subprocess.Popen[str], word: str) -> str:
    said = ""
    assert process.stderr is not None
    for line in process.stderr:
        said += line
        if line.startswith(word):
            return said
    raise AssertionError(said)


def test_exit_codes_reach_the_shell(folder: Path) -> None:
    assert run(folder, "try", "好").returncode == 0
    assert run(folder, "try", "坏").returncode == 1
    assert run(folder, "try", "好", "--tenant", "nobody").returncode == 2


def test_nothing_is_coloured_where_nobody_looks(folder: Path) -> None:
    assert "\x1b" not in run(folder, "try", "坏").stdout


def test_serve_ends_its_talk_with_a_line_that_works(folder: Path, served: subprocess.Popen[str]) -> None:
    said = until(served, "curl ")
    (curl,) = (line for line in said.splitlines() if line.startswith("curl "))
    answer = subprocess.run(["bash", "-c", curl], capture_output=True, encoding="utf-8", check=True).stdout
    assert json.loads(answer)["choices"][0]["message"]["content"] == "你好"
    served.send_signal(signal.SIGTERM)
    records, _ = served.communicate()
    (record,) = (json.loads(line) for line in records.splitlines())
    assert (record["tenant"], record["outcome"]) == ("demo", "allowed")
    key = re.search(r"lg-[\w-]{43}", said)
    assert key is not None
    assert key[0] not in records


def test_serve_says_when_its_port_is_in_use(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run(folder, "serve", "--port", str(port))
    assert ended.returncode == 2
    assert ended.stderr == (
        f"port {port} of 127.0.0.1 is in use -- stop what uses it, or choose another: --port {port + 1}\n"
    )


def test_the_server_tells_nobody_what_it_is(served: subprocess.Popen[str]) -> None:
    said = until(served, "curl ")
    address = re.search(r"http://[\d.:]+", said)
    assert address is not None
    assert "server" not in httpx.get(f"{address[0]}/healthz").headers
