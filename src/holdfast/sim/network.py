"""What lies between two simulated processes: ways that delay, hold, lose and reset, and one-directional lanes that keep order.

A Way is a pair of processes (worker and replica, client and worker); whatever it suffers, all lanes on it suffer. A Lane is
one direction of one connection: what was sent first arrives first, as TCP has it, whatever the delays drawn are. A way that
holds keeps everything until it is healed, as a short partition does; a connection whose way went black gets nothing any more
and is told nothing, which is a half-open one.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from random import Random
from typing import Any


class Way:
    """`delay_s` to `delay_s + spread_s` from end to end."""

    def __init__(self, random: Random, delay_s: float = 0.0002, spread_s: float = 0.0008) -> None:
        self._random = random
        self._usual = delay_s, spread_s
        self.delay_s, self.spread_s = delay_s, spread_s
        self.holds = False
        self.lanes: list[Lane] = []

    def draw(self) -> float:
        """Seconds for the next message."""
        return self.delay_s + self.spread_s * self._random.random()

    def slow_down(self, delay_s: float, spread_s: float) -> None:
        """A congested network."""
        self.delay_s, self.spread_s = delay_s, spread_s

    def black_out(self) -> None:
        """Every connection that exists now is half-open from here on; new ones work."""
        for lane in self.lanes:
            lane.black = True
        self.lanes.clear()

    def heal(self) -> None:
        """As it was at first, and what was held arrives."""
        self.delay_s, self.spread_s = self._usual
        if self.holds:
            self.holds = False
            for lane in self.lanes:
                lane.release()


class Lane:
    """`deliver` is called with each message in the receiver's `context`."""

    def __init__(self, way: Way, context: Context, deliver: Callable[[Any], None]) -> None:
        self.way, self.black = way, False
        self._context, self._deliver = context, deliver
        self._queue: deque[Any] = deque()
        self._overdue = 0
        self._last_at = 0.0
        way.lanes.append(self)

    def send(self, message: Any) -> None:
        """It arrives after the way's delay, and never before what was sent earlier."""
        if self.black:
            return
        self._queue.append(message)
        loop = asyncio.get_running_loop()
        self._last_at = max(self._last_at, loop.time() + self.way.draw())
        loop.call_at(self._last_at, self._arrive, context=self._context)

    def close(self) -> None:
        """Nothing of what is still under way arrives."""
        self.black = True
        self._queue.clear()
        if self in self.way.lanes:
            self.way.lanes.remove(self)

    def release(self) -> None:
        """The way holds nothing any more."""
        loop = asyncio.get_running_loop()
        for _ in range(self._overdue):
            loop.call_soon(self._arrive, context=self._context)
        self._overdue = 0

    def _arrive(self) -> None:
        if self.way.holds and not self.black:
            self._overdue += 1
        elif self._queue:
            self._deliver(self._queue.popleft())
