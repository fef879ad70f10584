"""The pages of docs/, and what stands in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LANGUAGES = ("zh", "en")
_FENCE = re.compile(r"^ *```(?P<head>[^\n`]*)\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#{1,6}) +(.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. `title` is what stands in `title="..."`, or empty."""

    page: str
    language: str
    title: str
    text: str


def pages(language: str, *folders: str) -> Iterator[Path]:
    """The pages of one language, of these folders or of all."""
    root = ROOT / "docs" / language
    for folder in folders or (".",):
        yield from sorted((root / folder).rglob("*.md"))


def blocks(path: Path) -> Iterator[Block]:
    """The page's fenced blocks, in order."""
    page = str(path.relative_to(ROOT))
    for match in _FENCE.finditer(path.read_text(encoding="utf-8")):
        language, _, rest = match["head"].partition(" ")
        title = re.search(r'title="([^"]*)"', rest)
        yield Block(page, language, title[1] if title else "", match["body"])


def without_blocks(text: str) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", text)


def headings(path: Path) -> list[tuple[int, str]]:
    """Level and text of every heading."""
    text = without_blocks(path.read_text(encoding="utf-8"))
    return [(len(match[1]), match[2]) for match in _HEADING.finditer(text)]
