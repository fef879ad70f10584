"""Where the guards lie that ship inside this package."""

from pathlib import Path

import guard_runtime

MODELS = Path(guard_runtime.__file__).with_name("models")


def shipped_names() -> tuple[str, ...]:
    return tuple(sorted(folder.name for folder in MODELS.glob("*") if folder.is_dir()))
