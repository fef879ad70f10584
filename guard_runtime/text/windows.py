"""Long text in pieces that a model can take. Whatever no piece holds is counted, never dropped in silence."""

from dataclasses import dataclass

Slice = tuple[int, int]
"""[start, end), in tokens or in characters."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows in order, head and tail always among them, and the gap between them that no window holds."""

    slices: tuple[Slice, ...]
    unread: Slice | None = None


def windows(length: int, *, size: int, overlap: int, limit: int) -> Windows:
    """As few windows of at most `size` as hold `length` units, all of one size, neighbours sharing at least `overlap`.
    Of more than `limit` windows the middle ones are left out: `unread` is what they alone would have held.

    Raises `ValueError` unless 0 <= overlap < size and limit >= 2.
    """
    if not 0 <= overlap < size or limit < 2:
        raise ValueError(f"windows of {size} with overlap {overlap}, at most {limit}, cannot be laid")
    if length <= size:
        return Windows(((0, length),) if length else ())
    stride = size - overlap
    count = -(-(length - overlap) // stride)
    if count <= limit:
        even = -(-(length + (count - 1) * overlap) // count)
        starts = (min(i * (even - overlap), length - even) for i in range(count))
        return Windows(tuple((start, start + even) for start in starts))
    heads = -(-limit // 2)
    tails = limit - heads
    head = tuple((i * stride, i * stride + size) for i in range(heads))
    first = length - size - (tails - 1) * stride
    tail = tuple((first + i * stride, first + i * stride + size) for i in range(tails))
    return Windows((*head, *tail), (head[-1][1], first))
