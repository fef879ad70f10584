"""Writes the tables of reference/clients.md from what the clients see: python -m tests.clients [CLIENT ...]"""

import sys
from collections.abc import Iterable

from tests.clients import anthropic_calls, openai_calls
from tests.clients.programs.outside import PROGRAMS, cells
from tests.clients.situations import Situation, cases, gateway
from tests.clients.table import Rows, write


def main(clients: Iterable[str]) -> None:
    with gateway() as url:
        for client in clients:
            write(client, _rows(client, url))


def _rows(client: str, url: str) -> Rows:
    if client in PROGRAMS:
        return cells(client, url)
    package = {"openai": openai_calls, "anthropic": anthropic_calls}[client]
    found: dict[str, dict[Situation, str]] = {}
    for call, situation in cases(package.CALLS, package.STREAMS):
        found.setdefault(call, {})[situation] = str(package.seen(call, url, situation.key, situation.prompt))
    return found


if __name__ == "__main__":
    main(sys.argv[1:] or ("openai", "anthropic", *PROGRAMS))
