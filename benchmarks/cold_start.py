"""From the command `libragate serve` to ready, and the memory it then holds: `python -m benchmarks.cold_start`."""

import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.relay import free_port, machine, wait_for

CONFIG = """
policies: {policies}
guards:
  - {{kind: classifier, name: libra-mini}}
  - {{kind: personal_data, name: rules}}
upstreams:
  none: {{kind: scripted, says: "Nobody is asked."}}
models:
  m: {{upstream: none}}
tenants:
  t: {{policy: base, models: "*", key_variable: BENCHMARK_KEY}}
"""
REPOSITORY = Path(__file__).parent.parent


def started(config: Path) -> tuple[float, float]:
    """Seconds until the port answers (it opens once the guard has passed its self-test), and resident MB then."""
    port = free_port()
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(config), "--port", str(port)]
    environment = os.environ | {"BENCHMARK_KEY": f"lg-{secrets.token_urlsafe(32)}"}
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        said = b""
        for line in process.stderr or ():
            said += line
            if b"http://127.0.0.1" in line:
                break
        wait_for(port)
        seconds = time.perf_counter() - began
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.terminate()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return seconds, resident / 1024


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(CONFIG.format(policies=REPOSITORY / "policies"))
        runs = [started(config) for _ in range(5)]
    seconds, memory = zip(*runs, strict=True)
    print(machine())
    print(f"ready after {statistics.median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f}), five starts")
    print(f"resident {statistics.median(memory):.0f} MB ({min(memory):.0f}-{max(memory):.0f})")


if __name__ == "__main__":
    main()
