"""Writes the generated tables of docs/*/reference anew: python -m tests.docs"""

from itertools import groupby

from tests.docs.generated import page, written
from tests.docs.pages import LANGUAGES
from tests.docs.tables import tables


def main() -> None:
    for name, group in groupby(sorted(tables(), key=lambda table: table.page), key=lambda table: table.page):
        found = list(group)
        for language in LANGUAGES:
            path = page(language, name)
            path.write_text(written(path.read_text(encoding="utf-8"), found, language), encoding="utf-8")


if __name__ == "__main__":
    main()
