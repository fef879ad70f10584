"""One served gateway for all tests here: the command line, the real guard, the real demo model, nothing scripted."""

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
CONFIG = """
policies: policies
guards:
  - {kind: classifier, name: libra-mini}
  - {kind: personal_data, name: rules}
upstreams:
  demo: {kind: demo}
models:
  demo: {upstream: demo}
tenants:
  strict: {policy: base, models: "*", key_variable: STRICT_KEY}
  watching: {policy: watching, models: "*", key_variable: WATCHING_KEY}
  masking: {policy: masking, models: "*", key_variable: MASKING_KEY}
"""
CATEGORIES = (
    "illegal_activities_and_crime",
    "bias_and_discrimination",
    "privacy_and_property",
    "rumors_and_misinformation",
    "hate_speech_and_abuse",
    "ethics_and_morality",
    "physical_and_mental_health",
    "prompt_attack",
)


def policy(rule: str, *, only: tuple[str, ...] = CATEGORIES, otherwise: str = "{at: 1, do: log}") -> str:
    rows = [f"  {c}: {{prompt: [{(r := rule if c in only else otherwise)}], response: [{r}]}}" for c in CATEGORIES]
    return "extends: base\nrules:\n" + "\n".join(rows) + "\n"


@dataclass(frozen=True, slots=True)
class Service:
    """A served gateway: its address, the key of each tenant, and the file its records go to."""

    url: str
    keys: dict[str, str]
    output: Path

    def records(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.output.read_text().splitlines() if line.startswith("{")]


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("gateway")
    policies = folder / "policies"
    policies.mkdir()
    (policies / "base.yaml").write_bytes((REPOSITORY / "policies" / "base.yaml").read_bytes())
    (policies / "watching.yaml").write_text(policy("{at: balanced, do: log}"))
    mask = "{at: balanced, do: rewrite, rewrite: mask}"
    (policies / "masking.yaml").write_text(policy(mask, only=("privacy_and_property",)))
    (folder / "config.yaml").write_text(CONFIG)
    keys = {name: f"lg-{secrets.token_urlsafe(32)}" for name in ("strict", "watching", "masking")}
    output = folder / "records.jsonl"
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(folder / "config.yaml"), "--port", "0"]
    environment = os.environ | {f"{name.upper()}_KEY": key for name, key in keys.items()}
    with (
        output.open("wb") as records,
        subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=records, stderr=subprocess.PIPE) as process,
    ):
        try:
            yield Service(_address(process), keys, output)
        finally:
            process.terminate()
            process.wait(30)


def _address(process: "subprocess.Popen[bytes]") -> str:
    """The address the gateway says it is ready at."""
    said = b""
    for line in process.stderr or ():
        said += line
        found = re.search(rb"http://127\.0\.0\.1:\d+", line)
        if found:
            return found[0].decode()
    raise RuntimeError(f"the gateway did not start: {said.decode()}")
