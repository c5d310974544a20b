"""The batch window: whether an idle engine waits a moment for more work before it begins.

Continuous batching lets an answer join at any step, so an engine that runs has nothing to wait for. An idle one has: the step
that reads one prompt alone costs nearly what it costs for several, so answers that come within a few milliseconds of one
another are begun together. Only answers that nobody reads as they come are made to wait, and never longer than the window
since the first of them; a stream, a full house, or a replica that wants to leave ends the wait at once.
"""

from dataclasses import dataclass

from msgspec import Struct


class Hold(Struct, frozen=True):
    """Wait so many more seconds, 0 to begin now; `why` is for whoever watches the engine."""

    wait_s: float
    why: str


IDLE = Hold(0.0, "nothing waits")
RUNS = Hold(0.0, "the engine runs: whoever comes joins at its next step")
READ = Hold(0.0, "somebody reads an answer as it comes")
FULL = Hold(0.0, "every slot has its answer")
OVER = Hold(0.0, "the window is over")
OFF = Hold(0.0, "there is no window")


@dataclass
class Window:
    """`window_s`: the longest wait, counted from the first answer that waits. 0 turns it off."""

    window_s: float
    since: float | None = None

    def ask(self, now: float, running: int, whole: int, streams: int, slots: int) -> Hold:
        """The verdict for an engine that runs so many answers, before which so many of either kind wait."""
        if self.window_s <= 0:
            return OFF
        if running or streams or not whole or whole >= slots:
            self.since = None
            return RUNS if running else READ if streams else FULL if whole else IDLE
        if self.since is None:
            self.since = now
        wait_s = self.since + self.window_s - now
        if wait_s <= 0:
            self.since = None
            return OVER
        return Hold(wait_s, f"{whole} of {slots} slots would be taken; more may come within {wait_s * 1000:.0f} ms")
