"""The tables of docs/clients.md: what each call sees in each situation. Read by the tests, written by `__main__`."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.clients.situations import Situation

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
Rows = Mapping[str, Mapping[Situation, str]]
"""For each call what it sees in each situation; a situation that cannot come about for it is left out."""

_NONE = "-"


def expected(client: str, call: str, situation: Situation) -> str:
    """One cell. Raises `KeyError` when there is none: `python -m tests.clients CLIENT` writes it."""
    return rows(client)[call][situation]


def rows(client: str) -> dict[str, dict[Situation, str]]:
    """The client's table, without the cells that cannot come about."""
    found = {}
    for line in _lines(client)[2:]:
        call, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        found[call] = {s: cell for s, cell in zip(Situation, cells, strict=True) if cell != _NONE}
    return found


def write(client: str, seen: Rows) -> None:
    """Puts the client's table anew between its marks."""
    page = PAGE.read_text(encoding="utf-8")
    start, end = _marks(client)
    before, _, rest = page.partition(start)
    _, _, after = rest.partition(end)
    if not after:
        raise LookupError(f"docs/clients.md lacks the marks {start} and {end}")
    PAGE.write_text(f"{before}{start}\n{_table(seen)}\n{end}{after}", encoding="utf-8")


def _table(seen: Rows) -> str:
    lines = [("call", *Situation), ("---",) * (1 + len(Situation))]
    lines += [(call, *(cells.get(situation, _NONE) for situation in Situation)) for call, cells in seen.items()]
    return "\n".join(map(_line, lines))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _lines(client: str) -> list[str]:
    start, end = _marks(client)
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(start)
    return [line for line in rest.partition(end)[0].splitlines() if line.startswith("|")]


def _marks(client: str) -> tuple[str, str]:
    return f"<!-- {client} -->", f"<!-- end of {client} -->"
