"""A wait that ends, by the Clock: `asyncio.timeout` would read the loop's own time, and stories have another."""

import asyncio
from typing import Any

from holdfast.domain.ports import Clock


async def within(clock: Clock, timeout_s: float, waited: asyncio.Future[Any]) -> bool:
    """Return when `waited` is done (True) or the time is up (False), whichever comes first; `waited` is left as it is."""
    timer: asyncio.Future[Any] = asyncio.ensure_future(clock.sleep(timeout_s))
    try:
        await asyncio.wait({waited, timer}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
    return waited.done()
