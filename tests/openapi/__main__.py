"""Schemathesis against the served document: `make test-openapi`, or `python -m tests.openapi --cases 5000`.

No answer is a 5xx, each has a status, a media type and a shape that the document gives, and no 2xx of a dialect comes
without a decision of the guard."""

import argparse
import collections
import sys
import time
from collections.abc import Sequence
from typing import Any

import hypothesis
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.dialects.moderations import Moderations
from gateway.dialects.registry import dialects
from tests.openapi.everything import everything
from tests.support.gateway_server import KEY, served

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
GUARDED = tuple(post.path.removeprefix("/v1") for post in (*dialects(), Moderations()))


def run(url: str, cases: int) -> collections.Counter[str]:
    """Tries `cases` requests, spread over the operations. Raises what Schemathesis raises at the first failure."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    posts = [operation for operation in operations if operation.method == "post"]
    seen: collections.Counter[str] = collections.Counter()
    each = max(1, (cases - 10 * (len(operations) - len(posts))) // len(posts))
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            _try(operation, mode, (each if operation in posts else 10) // 2, seen)
    return seen


def _try(operation: Any, mode: Any, cases: int, seen: "collections.Counter[str]") -> None:
    @hypothesis.settings(
        max_examples=cases,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def attempt(case: Any) -> None:
        if "model" in (case.path_parameters or {}):
            case.path_parameters["model"] = "m"
        elif isinstance(case.body, dict) and isinstance(case.body.get("model"), str) and case.body["model"]:
            case.body["model"] = "m"
        for name in [name for name in case.headers if name.lower() in ("authorization", "api-key", "x-api-key")]:
            del case.headers[name]
        response = case.call(headers={"authorization": f"Bearer {KEY}"})
        case.validate_response(response, checks=CHECKS)
        seen[f"{response.status_code}"] += 1
        if response.status_code < 300 and operation.path.endswith(GUARDED):
            seen["guarded"] += 1
            decision = response.headers.get("x-libragate-decision", [""])[0]
            if decision not in ("allow", "log", "rewrite", "block"):
                raise AssertionError(f"{operation.label}: a 2xx without a decision: {decision!r}")

    try:
        attempt()
    except hypothesis.errors.Unsatisfiable:
        seen["nothing to negate"] += 1


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000)
    cases = parser.parse_args(arguments).cases
    began = time.monotonic()
    parts = everything()
    with served(parts.gateway) as url:
        seen = run(url, cases)
    leaked = sum(record.characters.get("unguarded", 0) for record in parts.sink.records)
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(seen.items()))
    total = sum(count for status, count in seen.items() if status.isdigit())
    sys.stdout.write(f"{total} cases in {time.monotonic() - began:.0f} s: {statuses}; {leaked} characters unguarded\n")


if __name__ == "__main__":
    main(sys.argv[1:])
