"""One line of a module's source changed, found by the function it stands in: what the mutants of two test suites do."""

import ast
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SourceEdit:
    """`old` stands once in `function` and becomes `new`. A method is `Class.method`; a class's own name stands for all
    of that class, and "" for all of the file (a line at its top level, or one whose function is not named)."""

    function: str
    old: str
    new: str

    def applied(self, source: str) -> str:
        """Raises `LookupError` that says where it looked."""
        start, end = self._range(source)
        text = source[start:end]
        if text.count(self.old) != 1:
            where = f"in {self.function}" if self.function else "in the file"
            raise LookupError(f"{self.old!r} stands {text.count(self.old)} times {where}, not once")
        return source[:start] + text.replace(self.old, self.new) + source[end:]

    def _range(self, source: str) -> tuple[int, int]:
        if not self.function:
            return 0, len(source)
        body: list[ast.stmt] = ast.parse(source).body
        definition: ast.stmt | None = None
        for name in self.function.split("."):
            definition = next((node for node in body if _is_named(node, name)), None)
            if not isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                raise LookupError(f"there is no {self.function} in the file, where {self.old!r} should stand")
            body = definition.body
        assert definition is not None and definition.end_lineno is not None
        lines = source.splitlines(keepends=True)
        return sum(map(len, lines[: definition.lineno - 1])), sum(map(len, lines[: definition.end_lineno]))


def _is_named(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name
