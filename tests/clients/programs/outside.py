"""Clients that are programs of their own: where each is, how it is started, what it saw."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.clients.situations import Seen, Situation

HERE = Path(__file__).parent
PYTHON = HERE.parents[2] / ".venv" / "clients" / "bin" / "python"
"""`make test-clients` installs requirements/clients.txt there."""
NODE = HERE.parent / "node" / "calls.mjs"
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
"""litellm asks the internet for prices when it is imported, unless it is told not to."""
PROGRAMS: Mapping[str, Sequence[str]] = {
    "langchain-openai": (str(PYTHON), str(HERE / "langchain_program.py")),
    "litellm": (str(PYTHON), str(HERE / "litellm_program.py")),
    "pydantic-ai": (str(PYTHON), str(HERE / "pydantic_ai_program.py")),
    "openai for Node": ("node", str(NODE)),
}


def cells(client: str, url: str) -> dict[str, dict[Situation, str]]:
    """For each call what it saw in each situation, in the words of reference/clients.md."""
    asked = [{"situation": s, "key": s.key, "prompt": s.prompt, "streamed": s.streamed} for s in Situation]
    given = json.dumps({"url": url, "asked": asked})
    done = subprocess.run(
        PROGRAMS[client],
        input=given,
        stdout=subprocess.PIPE,
        env=os.environ | OFFLINE,
        text=True,
        timeout=240,
        check=True,
    )
    found: dict[str, dict[Situation, str]] = {}
    for line in done.stdout.splitlines():
        fields = json.loads(line)
        call, situation = fields.pop("call"), Situation(fields.pop("situation"))
        found.setdefault(call, {})[situation] = str(Seen(**fields))
    return found
