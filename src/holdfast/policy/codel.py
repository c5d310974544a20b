"""CoDel: how long may somebody wait, given how long there has been a queue?

A burst makes a queue that goes away by itself: waiting is right, and up to N is allowed. A queue that has not been empty for N
does not go away: more comes than can be done, and whoever waits in it only makes everybody later. Then M = N / 20 is allowed:
nearly all are refused at once, the few who are let in are served in time, and the queue drains. This is the form of Facebook's
"Fail at Scale" (ACM Queue 13/8, 2015: N = 100 ms, M = 5 ms), stretched to answers: N is half of what a first token may take.
"""

_SHARE = 0.5
_CUT = 20


class CoDel:
    """`first_token_s`: seconds within which the first token should come."""

    def __init__(self, first_token_s: float) -> None:
        self.patient_s = first_token_s * _SHARE
        self.short_s = self.patient_s / _CUT
        self._since: float | None = None  # since when there has been a queue

    def waited(self, wait_s: float, empty: bool, now: float) -> None:
        """Somebody came or left who has waited for so many seconds, 0 for one who comes; `empty`: now nobody waits."""
        if empty:
            self._since = None
        elif self._since is None:
            self._since = now - wait_s

    def limit_s(self, now: float) -> float:
        """Seconds that somebody who comes now may have to wait."""
        if self._since is None or now - self._since < self.patient_s:
            return self.patient_s
        return self.short_s
