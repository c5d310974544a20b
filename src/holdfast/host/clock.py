"""Real time. The only place in the house, sim aside, that asks the machine what time it is or waits for it to pass."""

import asyncio
import time


class MonotonicClock:
    """The Clock port over the machine's monotonic clock; comparable between processes of one boot of the machine.

    `now`: seconds since some fixed moment. It is the machine's own function, since every token asks it several times.
    """

    now = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        """Wait. Zero only lets the event loop look round: arrived bytes and due timers are served before it returns."""
        await asyncio.sleep(seconds)


class BlockingClock:
    """The same clock for code without an event loop: whoever waits on it keeps its thread."""

    def now(self) -> float:
        """Seconds since some fixed moment."""
        return time.monotonic()

    def rest(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def unix_s() -> float:
    """Wall-clock seconds since 1970, for stamps that people and other machines read. Never for waiting: it may jump."""
    return time.time()
