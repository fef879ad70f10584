"""How a bug is told to operators: its class and place, never its message, which may quote content."""

from pathlib import PurePath
from traceback import walk_tb

FOLDERS_SHOWN = 3


def bug_place(bug: BaseException) -> str:
    """`KeyError at gateway/dialects/fields.py:120 in mapping`; the members of an exception group one after another."""
    if isinstance(bug, BaseExceptionGroup):
        return "; ".join(map(bug_place, bug.exceptions))
    name = type(bug).__name__
    frames = list(walk_tb(bug.__traceback__))
    if not frames:
        return name
    frame, line = frames[-1]
    file = "/".join(PurePath(frame.f_code.co_filename).parts[-FOLDERS_SHOWN:])
    return f"{name} at {file}:{line} in {frame.f_code.co_name}"
