"""The pulse: when did this replica's loop last turn and last make a step? Written by the loop, read by the health thread.

An engine that answers its health check from a flag stays "healthy" while its GPU hangs. Here the answer is worked out from
what was seen to move: plain attributes, each written by one thread only.
"""

from holdfast.domain.replica import Load

TURN_S = 0.25  # how often an idle loop shows that it turns


class Pulse:
    """`still_s_max` is how long loop or step may stand still before the replica stops calling itself healthy."""

    def __init__(self, now: float, still_s_max: float) -> None:
        self.still_s_max = still_s_max
        self.draining = False
        self._turned_at = now
        self._moved_at = now
        self._step = 0
        self._busy = False

    def turn(self, now: float) -> None:
        """The event loop came round."""
        self._turned_at = now

    def see(self, load: Load, now: float) -> bool:
        """Take note of the core's own step counter; true if it has grown since the last look."""
        self._turned_at = now
        busy = load.running + load.queued > 0
        moved = load.step != self._step
        if moved or not (busy and self._busy):
            self._moved_at = now
        self._busy, self._step = busy, load.step
        return moved

    def complaint(self, now: float) -> str:
        """Why the replica should take no traffic, in one sentence; empty if it may."""
        if self.draining:
            return "draining"
        still_s = now - self._turned_at
        if still_s > self.still_s_max + TURN_S:
            return f"the event loop has not turned for {still_s:.1f} s"
        if self._busy and now - self._moved_at > self.still_s_max:
            return f"work waits and the engine has made no step for {now - self._moved_at:.1f} s"
        return ""
