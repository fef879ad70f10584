"""The generated tables of docs/*/reference: their rows come from the code, what each means from docs/meanings."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.docs.pages import LANGUAGES, ROOT

MEANINGS = ROOT / "docs" / "meanings"


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a page. `columns` are the headings in each language, the last of them for the meaning; a row has
    its key first, and a cell may say something else in each language."""

    page: str
    name: str
    columns: Mapping[str, tuple[str, ...]]
    rows: tuple[tuple[str | Mapping[str, str], ...], ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(str(row[0]) for row in self.rows)

    def lines(self, language: str) -> Iterator[str]:
        """The table as Markdown. Raises `LookupError` where docs/meanings has no words for a key."""
        meanings = words(self.page, self.name)
        if set(meanings) != set(self.keys):
            different = sorted(set(meanings) ^ set(self.keys))
            raise LookupError(f"docs/meanings/{self.page}.yaml, {self.name}: missing or too many: {different}")
        headings = self.columns[language]
        yield _line(headings)
        yield _line("---" for _ in headings)
        for key, *cells in self.rows:
            told = (cell if isinstance(cell, str) else cell[language] for cell in cells)
            yield _line((f"`{key}`", *told, meanings[str(key)][LANGUAGES.index(language)]))


def words(page: str, table: str) -> dict[str, list[str]]:
    """For each key of the table its meaning in Chinese and in English."""
    catalogue = yaml.safe_load((MEANINGS / f"{page}.yaml").read_text(encoding="utf-8"))
    return {str(key): list(both) for key, both in catalogue[table].items()}


def written(text: str, tables: Iterable[Table], language: str) -> str:
    """The page with each of these tables put anew between its marks. Raises `LookupError` for a table without marks."""
    for table in tables:
        start, end = f"<!-- generated: {table.name} -->", f"<!-- end of {table.name} -->"
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise LookupError(f"{language}/reference/{table.page}.md lacks the marks {start} and {end}")
        text = f"{before}{start}\n" + "\n".join(table.lines(language)) + f"\n{end}{after}"
    return text


def page(language: str, name: str) -> Path:
    return ROOT / "docs" / language / "reference" / f"{name}.md"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
