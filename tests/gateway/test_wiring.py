"""Guards as config.yaml lists them: on another server, in a cascade, from an artefact; and how `check` tries each."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner

from gateway.__main__ import main
from gateway.config.loader import Config, load_config
from gateway.errors import ConfigError
from gateway.telemetry.metrics import Metrics
from gateway.wiring import gateway_of, judge_of, runtime_of, snapshot_of
from guard_runtime.conversation import Conversation, Part, Role, Turn
from guard_runtime.errors import ArtefactRefused
from guard_runtime.guards.cascade import Cascade
from guard_runtime.guards.passage_guard import PassageGuard
from guard_runtime.verdict import CATEGORIES

POLICY = "refusal: {zh: 抱歉, en: Sorry}\nrules:\n" + "".join(
    f"  {category}: {{prompt: [{{at: 0.8, do: block}}], response: [{{at: 0.8, do: block}}]}}\n"
    for category in CATEGORIES
)
REST = (
    "upstreams: {up: {kind: scripted}}\nmodels: {demo: {upstream: up}}\ntenants: {a: {policy: base, key_variable: K}}"
)
REMOTE = "{kind: remote, name: far, base_url: 'URL', model: libra, family: libra_guard, seconds: 2}"
CASCADE = f"{{kind: cascade, name: pair, small: {{kind: scripted}}, large: {REMOTE}, band: [0.2, 0.8]}}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/base.yaml").write_text(POLICY, "utf-8")
    return tmp_path


@pytest.fixture
def server() -> Iterator[str]:
    """A server on loopback whose guard says that everything is safe."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            body = json.dumps({"choices": [{"message": {"content": '{\n  "答案": "安全"'}}]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_address[1]}/v1"
        serving.shutdown()
        thread.join()


def written(folder: Path, guard: str, url: str = "http://127.0.0.1:9/v1") -> Path:
    path = folder / "config.yaml"
    path.write_text(f"guards: [{guard.replace('URL', url)}]\n{REST}\n", "utf-8")
    return path


def loaded(folder: Path, guard: str) -> Config:
    return load_config(written(folder, guard), {})


@pytest.mark.parametrize("guard", [REMOTE, CASCADE.replace("[0.2, 0.8]", "[0, 1.01]")])
def test_check_asks_a_guard_on_another_server(guard: str, folder: Path, server: str) -> None:
    written(folder, guard, server)
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("guard", [REMOTE, CASCADE.replace("[0.2, 0.8]", "[0, 1.01]")])
def test_a_server_that_is_not_up_is_found_by_check(guard: str, folder: Path) -> None:
    written(folder, guard)
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 3
    assert "a guard cannot look: " in result.stderr
    assert "far: the server cannot be reached" in result.stderr


def test_a_cascade_has_the_name_and_the_band_of_the_config(folder: Path) -> None:
    (guard,) = judge_of(loaded(folder, CASCADE)).guards
    assert isinstance(guard, Cascade)
    assert guard.name == "pair"
    assert guard.version == "scripted@1+far@libra@/chat/completions[0.2,0.8)"


def test_readers_are_made_of_the_upstreams_that_config_names(folder: Path) -> None:
    path = written(folder, "{kind: scripted}")
    ears = "up: {kind: scripted}, ears: {kind: openai, base_url: 'http://127.0.0.1:9/v1'}"
    image, audio = "{upstream: up, model: see, timeout: 3, bytes: 9}", "{kind: transcribe, upstream: ears, model: hear}"
    text = path.read_text("utf-8").replace("up: {kind: scripted}", ears)
    path.write_text(f"{text}readers: {{image: {image}, audio: {audio}}}\n", "utf-8")
    config = load_config(path, {})
    readers = gateway_of(config, judge_of(config), "0").runtime.readers
    assert [upstream.name for upstream in readers.upstreams] == ["up", "ears"]


def test_a_model_of_an_upstream_that_was_not_started_is_a_mistake(folder: Path) -> None:
    path = written(folder, "{kind: scripted}")
    config = load_config(path, {})
    runtime = runtime_of(config, judge_of(config), "0", Metrics())
    assert snapshot_of(config, runtime).routes["demo"].upstream is runtime.upstreams["up"]
    path.write_text(
        path.read_text("utf-8").replace("up: {kind", "late: {kind").replace("upstream: up", "upstream: late")
    )
    with pytest.raises(ConfigError, match="model demo: the upstream late was not there at the start"):
        snapshot_of(load_config(path, {}), runtime)


def test_a_remote_guard_takes_what_the_config_says(folder: Path) -> None:
    (guard,) = judge_of(loaded(folder, REMOTE.replace("libra_guard", "libragate"))).guards
    assert isinstance(guard, PassageGuard)
    assert guard.version == "libra@/moderations"
    assert not guard.ready
    assert guard.queued == 0


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        ("{kind: generative, name: libra, path: nowhere}", "nowhere is not a folder -- make one: python -m export"),
        ("{kind: classifier, name: mini, path: nowhere}", "nowhere is not a folder -- check its path"),
        (CASCADE.replace("[0.2, 0.8]", "[0.8, 0.2]"), "is not a band -- write"),
        (CASCADE.replace("[0.2, 0.8]", "[0.8]"), "is not a band -- write"),
        (CASCADE.replace("{kind: scripted}", "{kind: personal_data}"), "'personal_data' is not one of"),
        (REMOTE.replace("libra_guard", "shieldgemma"), "family"),
        ("{kind: classifier, name: libra-mini, devices: [gpu]}", "devices"),
        ("{kind: classifier, name: libra-mini, devices: []}", "devices"),
        ("{kind: classifier, name: libra-mini, device: cuda}", "is not a key that is known here"),
    ],
)
def test_a_guard_that_cannot_be_made_is_told_with_what_to_do(guard: str, said: str, folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        judge_of(loaded(folder, guard))
    assert said in str(caught.value)


def test_a_provider_that_is_not_here_stops_the_start_unless_less_will_do(folder: Path) -> None:
    guard = "{kind: classifier, name: libra-mini, devices: [cuda, cpu], degrade: false}"
    with pytest.raises(ArtefactRefused, match="no CUDAExecutionProvider"):
        judge_of(loaded(folder, guard))
    (served,) = judge_of(loaded(folder, guard.replace("false", "true"))).guards
    assert served.name == "libra-mini"


def test_the_batches_of_a_configured_guard_are_on_the_metrics_page(folder: Path) -> None:
    metrics = Metrics()
    judge = judge_of(loaded(folder, "{kind: classifier, name: libra-mini}"), metrics)

    async def scenario() -> None:
        async with judge.guards[0].running():
            await judge.guards[0].check(Conversation((Turn(Role.USER, (Part((), "hello"),)),)))

    anyio.run(scenario)
    page = metrics.page().decode()
    for name in ("batch_rows", "batch_wait_seconds", "batch_run_seconds"):
        assert f'libragate_{name}_count{{guard="libra-mini"}} 1.0' in page


def test_what_a_guard_counts_is_on_the_metrics_page(folder: Path) -> None:
    metrics = Metrics()
    (guard,) = judge_of(loaded(folder, CASCADE)).guards
    metrics.counts(guard)
    assert 'libragate_guard_work_total{guard="pair",what="escalated"} 0.0' in metrics.page().decode()
