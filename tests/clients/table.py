"""The tables of reference/clients.md: what each call sees in each situation. Read by tests, written by `__main__`."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.clients.situations import Situation

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "en" / "reference" / "clients.md"
CHINESE_PAGE = DOCS / "zh" / "reference" / "clients.md"
Rows = Mapping[str, Mapping[Situation, str]]
"""For each call what it sees in each situation; a situation that cannot come about for it is left out."""

_NONE = "-"
_CHINESE = (
    ("| call | allowed |", "| 调用 | 放行 |"),
    ("prompt blocked", "提问被拦"),
    ("answer blocked", "回答被拦"),
    ("blocked mid-stream", "流中途被拦"),
    ("guard down mid-stream", "护栏中途失灵"),
    ("guard down", "护栏失灵"),
    ("the sentence as text", "拒答作为文字"),
    ("the sentence in", "拒答在"),
    ("the answer", "回答"),
    ("the beginning", "开头"),
    ("raises ", "抛 "),
)
"""Longer words before those they contain."""


def expected(client: str, call: str, situation: Situation) -> str:
    """One cell. Raises `KeyError` when there is none: `python -m tests.clients CLIENT` writes it."""
    return rows(client)[call][situation]


def rows(client: str) -> dict[str, dict[Situation, str]]:
    """The client's table, without the cells that cannot come about."""
    found = {}
    for line in _lines(PAGE, client)[2:]:
        call, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        found[call] = {s: cell for s, cell in zip(Situation, cells, strict=True) if cell != _NONE}
    return found


def write(client: str, seen: Rows) -> None:
    """Puts the client's table anew between its marks, on both pages."""
    _put(PAGE, client, _table(seen))
    _put(CHINESE_PAGE, client, in_chinese(_table(seen)))


def table(path: Path, client: str) -> str:
    """The client's table as it stands on this page."""
    return "\n".join(_lines(path, client))


def in_chinese(table: str) -> str:
    """The same table in Chinese: names and codes stay, words are replaced."""
    for english, chinese in _CHINESE:
        table = table.replace(english, chinese)
    return table


def _put(path: Path, client: str, table: str) -> None:
    page = path.read_text(encoding="utf-8")
    start, end = _marks(client)
    before, _, rest = page.partition(start)
    _, _, after = rest.partition(end)
    if not after:
        raise LookupError(f"{path} lacks the marks {start} and {end}")
    path.write_text(f"{before}{start}\n{table}\n{end}{after}", encoding="utf-8")


def _table(seen: Rows) -> str:
    lines = [("call", *Situation), ("---",) * (1 + len(Situation))]
    lines += [(call, *(cells.get(situation, _NONE) for situation in Situation)) for call, cells in seen.items()]
    return "\n".join(map(_line, lines))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _lines(path: Path, client: str) -> list[str]:
    start, end = _marks(client)
    _, _, rest = path.read_text(encoding="utf-8").partition(start)
    return [line for line in rest.partition(end)[0].splitlines() if line.startswith("|")]


def _marks(client: str) -> tuple[str, str]:
    return f"<!-- {client} -->", f"<!-- end of {client} -->"
