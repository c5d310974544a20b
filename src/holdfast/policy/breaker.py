"""Breaker: keeps attempts off a replica that fails one after another, and lets one through now and then to find out.

Consecutive failures, not a rate: with two to four replicas and a few requests a second, rates never gather enough volume
(Envoy's success-rate ejection needs 5 hosts and 100 requests an interval). Closed -> open after `failures_max` in a row;
open -> half-open after `open_s`, when one attempt may pass; that one's success closes it, its failure opens it again for
twice as long, up to `open_max_s`. A client that hangs up counts neither way.

One event is one failure, however many answers it hits: a step that fails thirty streams at once, or a connection that breaks
under them, tells no more than one that fails a single stream. What fails within MOMENT_S counts once.
"""

from dataclasses import dataclass

from holdfast.domain.request import Outcome

MOMENT_S = 0.05


@dataclass
class Breaker:
    """One replica's breaker. All times are the Clock's seconds."""

    failures_max: int = 5
    open_s: float = 1.0
    open_max_s: float = 30.0
    failures: int = 0
    failed_at: float = float("-inf")
    opened_at: float | None = None
    wait_s: float = 0.0
    probing: bool = False

    def is_open(self, now: float) -> bool:
        """Whether attempts should go elsewhere at present."""
        if self.opened_at is None:
            return False
        return self.probing or now - self.opened_at < self.wait_s

    def began(self, now: float) -> None:
        """An attempt was let through; on a breaker past its wait it is the probe."""
        if self.opened_at is not None and now - self.opened_at >= self.wait_s:
            self.probing = True

    def record(self, outcome: Outcome, now: float) -> bool:
        """Take down how an attempt ended. Returns True when this opened the breaker."""
        if outcome is Outcome.IGNORE:
            self.probing = False
            return False
        if outcome is Outcome.OK:
            self.failures, self.opened_at, self.wait_s, self.probing = 0, None, 0.0, False
            return False
        if now - self.failed_at < MOMENT_S and not self.probing:
            return False
        self.failed_at = now
        self.failures += 1
        if self.opened_at is not None:
            if not self.probing:
                return False
            self.wait_s = min(self.wait_s * 2, self.open_max_s)
        elif self.failures < self.failures_max:
            return False
        else:
            self.wait_s = self.open_s
        self.opened_at, self.probing = now, False
        return True
