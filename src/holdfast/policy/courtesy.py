"""Courtesy between workers: a place that frees goes to those of another worker who wait, if that one has less than its part.

Each worker fills again what its own answers leave. So whoever holds most would keep most, and requests that the kernel dealt
to another worker would wait without end. A worker that holds at least its part of the slots (equal parts among those where
somebody waits) leaves a free one alone for as long as another is below its part. That is a guess about others, who may be
unable to use it: if nobody has taken it after PATIENCE_S, it is used, and for RUDE_S nothing is left any more.

Regimes: one worker, or nobody waits elsewhere: never asked. All workers flooded: within a second or so everyone holds its part,
and from then on everyone refills its own.
"""

from dataclasses import dataclass

PATIENCE_S = 0.05  # others look every 20 ms
RUDE_S = 1.0


@dataclass
class Courtesy:
    """One worker's manners."""

    _since: float | None = None  # since when something is left alone
    _theirs: int = 0
    _rude_until: float = float("-inf")

    def gives_way(self, now: float, slots: int, mine: int, theirs: int, flooded: int) -> bool:
        """Whether to leave a free slot alone now. `mine` and `theirs`: answers that run, here and in all other workers;
        `flooded`: in how many of those somebody waits."""
        part = slots / (flooded + 1)
        if not flooded or now < self._rude_until or mine < part or theirs >= part * flooded:
            self._since = None
            return False
        if self._since is None or theirs > self._theirs:
            self._since, self._theirs = now, theirs
        if now - self._since <= PATIENCE_S:
            return True
        self._since, self._rude_until = None, now + RUDE_S
        return False
