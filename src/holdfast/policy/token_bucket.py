"""Token bucket: a rate with a burst, exact in continuous time.

Formula: level(t) = min(burst, level(t0) + rate * (t - t0)); a request takes one from the level or is told when one is there.
Regimes: below the rate the level stays at the burst and nobody waits; above it the level sits near 0 and exactly `rate`
requests a second pass.
"""

from dataclasses import dataclass


@dataclass
class TokenBucket:
    """`rate_per_s` tokens flow in each second, at most `burst` are kept."""

    rate_per_s: float
    burst: float
    level: float = -1.0
    as_of: float = 0.0

    def take(self, now: float) -> float:
        """Take one token. Returns 0.0 when there was one, else the seconds until there is (and takes nothing)."""
        if self.level < 0:
            self.level, self.as_of = self.burst, now
        if now > self.as_of:
            self.level = min(self.burst, self.level + (now - self.as_of) * self.rate_per_s)
            self.as_of = now
        if self.level >= 1.0:
            self.level -= 1.0
            return 0.0
        return (1.0 - self.level) / self.rate_per_s
