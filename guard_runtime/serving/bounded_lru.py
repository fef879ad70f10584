"""A dictionary within a budget: the entry used longest ago is dropped first."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class BoundedLRU(Generic[Key, Value]):
    """Entries whose sizes add up to at most `budget`; with 0 nothing is kept. `size_of` must give the same answer for a
    value each time. For one thread."""

    def __init__(self, budget: int, size_of: Callable[[Value], int]) -> None:
        self.budget = budget
        self.size = 0
        self.evicted = 0
        self._size_of = size_of
        self._entries: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._entries)

    def get(self, key: Key) -> Value | None:
        """The value, which is now the one used last."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: Key, value: Value) -> None:
        """Keeps the value in place of an older one, unless it alone is larger than the budget."""
        self.drop(key)
        size = self._size_of(value)
        if size > self.budget:
            return
        self._entries[key] = value
        self.size += size
        while self.size > self.budget:
            self.drop(next(iter(self._entries)))
            self.evicted += 1

    def drop(self, key: Key) -> None:
        value = self._entries.pop(key, None)
        if value is not None:
            self.size -= self._size_of(value)
