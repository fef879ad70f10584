"""
The demo model's own process: llama.cpp's server on a free loopback port, for one gateway.

Started by `gateway.upstreams.demo` as a script, with nothing of the gateway imported. Reads one line of JSON, writes
one line of JSON ({"address": ...} or {"error": ...}), and runs until its standard input ends, as it does when the
gateway goes, however it goes.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

import xllamacpp


def main() -> None:
    setup = json.loads(sys.stdin.readline())
    try:
        server = xllamacpp.Server(parameters(setup))
    except RuntimeError as exc:
        say({"error": str(exc)})
        return
    say({"address": server.listening_address})
    sys.stdin.read()


def parameters(setup: Mapping[str, Any]) -> Any:
    given = xllamacpp.CommonParams()
    given.model.path = setup["model"]
    given.model_alias = {setup["alias"]}
    given.hostnames = ["127.0.0.1"]
    given.port = setup["port"]
    given.api_keys = [setup["key"]]
    given.n_ctx = setup["context"] * setup["slots"]
    given.n_parallel = setup["slots"]
    given.n_predict = setup["longest"]
    given.cpuparams.n_threads = given.cpuparams_batch.n_threads = setup["threads"]
    # Its makers' settings (https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct), and a penalty without which
    # this quantised file repeats itself.
    given.sampling.temp, given.sampling.top_p, given.sampling.penalty_repeat = 0.2, 0.9, 1.1
    given.fit_params = False
    given.cache_ram_mib = 0
    given.n_threads_http = setup["slots"] + 4
    given.ui = given.endpoint_slots = given.endpoint_props = given.endpoint_metrics = False
    given.offline = True
    # Anything louder would write what people ask to standard error.
    given.verbosity = 0
    return given


def say(message: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
