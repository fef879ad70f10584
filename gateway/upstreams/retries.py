"""Asking again: when, how long after, and how often at most."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

import stamina

from gateway.errors import UpstreamError

T = TypeVar("T")

RETRIED = frozenset({429, 500, 502, 503, 504})
_SHARE = 0.1
_SAVINGS = 10.0


@dataclass(frozen=True, slots=True)
class Retries:
    """`attempts` counts the first one. Waits are seconds: `wait` before the second attempt, twice as long before each
    further one, with jitter. `longest_wait` bounds them, and is the longest Retry-After that is waited for: a provider
    that asks for more has its error passed on at once, with the header."""

    attempts: int = 3
    wait: float = 0.2
    longest_wait: float = 5.0


class Again(Exception):
    """An attempt failed before its first byte, in a way the next may not. It shows a status and nothing else, for
    stamina logs it. `after` is the provider's Retry-After in seconds, or 0 for once without a wait; `attempts` is how
    many were made."""

    def __init__(self, error: UpstreamError, after: float | None = None) -> None:
        super().__init__(error.status)
        self.error = error
        self.after = after
        self.attempts = 1


class Patience:
    """Makes the attempts for one upstream. Each call saves up a tenth of a retry, so that an upstream that fails whole
    is asked at most a tenth more often than callers ask, and a first few times: retries end outages, or make them
    (https://sre.google/sre-book/addressing-cascading-failures/)."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._saved = _SAVINGS

    async def call(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What `attempt` returns, made again while it raises `Again`. Raises the last attempt's `UpstreamError`."""
        self._saved = min(_SAVINGS, self._saved + _SHARE)
        try:
            return await attempt()
        except Again as again:
            first = again
        try:
            return await self._after(first, attempt)
        except Again as last:
            raise last.error from last.error.__cause__

    async def _after(self, failed: Again, attempt: Callable[[], Awaitable[T]]) -> T:
        # stamina costs 0.1 ms to set up, so it starts with the first failure, which its first round only repeats.
        attempts = 0
        async for round_ in self._rounds():
            with round_:
                attempts += 1
                if attempts == 1:
                    raise failed
                try:
                    return await attempt()
                except Again as again:
                    again.attempts = attempts
                    raise
        raise AssertionError("stamina ends by returning or raising")

    def _rounds(self) -> AsyncIterator[stamina.Attempt]:
        return aiter(
            stamina.retry_context(
                on=self._again,
                attempts=None,
                timeout=None,
                wait_initial=self._retries.wait,
                wait_max=self._retries.longest_wait,
                wait_jitter=self._retries.wait,
            )
        )

    def _again(self, failure: Exception) -> bool | float:
        """Whether another attempt is made; a number is the wait in front of it."""
        if not isinstance(failure, Again) or failure.attempts >= self._retries.attempts:
            return False
        if failure.after is not None and failure.after > self._retries.longest_wait:
            return False
        if self._saved < 1:
            return False
        self._saved -= 1
        if failure.after is None or (failure.after == 0 and failure.attempts > 1):
            return True
        return failure.after


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from whichever header says so. A date counts from the provider's own clock, not from ours."""
    for name, unit in (("retry-after-ms", 1000), ("Retry-After", 1)):
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", said := headers.get(name, "")):
            return float(said) / unit
    try:
        wait = parsedate_to_datetime(headers["Retry-After"]) - parsedate_to_datetime(headers["Date"])
    except (KeyError, ValueError, TypeError):
        return None
    return max(0.0, wait.total_seconds())
