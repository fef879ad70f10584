"""The event loop's clock."""

import asyncio


def now() -> float:
    """Seconds on the running loop's clock: what `anyio.current_time` gives, at a tenth of its cost."""
    return asyncio.get_running_loop().time()
