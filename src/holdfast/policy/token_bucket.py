"""Token bucket: a rate with a burst, exact in continuous time; and the ledger of one process that keeps many of them.

Formula: level(t) = min(burst, level(t0) + rate * (t - t0)). Whoever takes gets the amount from the level, or is told when it
is there. Regimes: below the rate the level stays at the burst and nobody waits; above it the level sits near 0 and exactly
`rate` a second pass. What was reserved and not used is given back; what was used beyond the reservation is taken afterwards,
and the level may then be below zero until it has flowed in again.
"""

from dataclasses import dataclass
from operator import itemgetter

from holdfast.domain.board import Rate

ALONE = "alone: this process counts for itself"
ACCOUNTS_MAX = 4096
_SPECK = 1e-7  # of one: who waited as long as told is not sent away for a rounding error. It is owed, not given away.


@dataclass(slots=True)
class TokenBucket:
    """`rate_per_s` (above 0) flows in each second, at most `burst` is kept. A new one is full."""

    rate_per_s: float
    burst: float
    level: float = 0.0
    as_of: float = -float("inf")

    def take(self, now: float, amount: float = 1.0) -> float:
        """Take an amount. Returns 0.0 when it was there, else the seconds until it is (and takes nothing).

        An amount above the burst can be taken from a full bucket only, and leaves it below zero.
        """
        level = self.level_at(now)
        need = amount if amount < self.burst else self.burst
        if level + _SPECK >= need:
            self.level = level - amount
            return 0.0
        return (need - level) / self.rate_per_s

    def give(self, amount: float, now: float) -> None:
        """Give back what was taken and not used. A negative amount is taken, whatever the level."""
        level = self.level_at(now) + amount
        self.level = level if level < self.burst else self.burst

    def level_at(self, now: float) -> float:
        """What is there. A clock that steps back makes nothing flow."""
        if now > self.as_of:
            level = self.level + (now - self.as_of) * self.rate_per_s
            self.level = level if level < self.burst else self.burst
            self.as_of = now
        return self.level


class OwnLedger:
    """Implements Ledger for a process that shares with nobody. An account whose rule changes keeps what it owes.

    It holds at most `accounts_max` accounts: full ones say no more than new ones and leave first, then the fullest.
    """

    def __init__(self, accounts_max: int = ACCOUNTS_MAX) -> None:
        self._accounts_max = max(accounts_max, 1)
        self._buckets: dict[str, TokenBucket] = {}

    def take(self, account: str, amount: float, rule: Rate, now: float) -> float:
        """See the port."""
        bucket = self._buckets.get(account)
        if bucket is None or bucket.rate_per_s != rule.per_s or bucket.burst != rule.burst:
            bucket = self._open(account, rule, now)
        return bucket.take(now, amount)

    def give(self, account: str, amount: float, rule: Rate, now: float) -> None:
        """See the port."""
        self._open(account, rule, now).give(amount, now)

    def level(self, account: str, rule: Rate, now: float) -> float:
        """See the port. Asking opens no account."""
        bucket = self._buckets.get(account)
        return rule.burst if bucket is None else min(bucket.level_at(now), rule.burst)

    @property
    def sharing(self) -> str:
        """See the port."""
        return ALONE

    def __len__(self) -> int:
        return len(self._buckets)

    def _open(self, account: str, rule: Rate, now: float) -> TokenBucket:
        """The account's bucket under today's rule."""
        bucket = self._buckets.get(account)
        if bucket is None:
            if len(self._buckets) >= self._accounts_max:
                self._tidy(now)
            bucket = self._buckets[account] = TokenBucket(rule.per_s, rule.burst)
        elif bucket.rate_per_s != rule.per_s or bucket.burst != rule.burst:
            level = bucket.level_at(now)
            missing = bucket.burst - level if level < bucket.burst else 0.0
            bucket.rate_per_s, bucket.burst, bucket.level = rule.per_s, rule.burst, rule.burst - missing
        return bucket

    def _tidy(self, now: float) -> None:
        """Let at least a quarter of the accounts go: those that lack the least seconds to be full."""
        lacking = [((one.burst - one.level_at(now)) / one.rate_per_s, name) for name, one in self._buckets.items()]
        lacking.sort(key=itemgetter(0))
        spared = len(lacking) * 3 // 4
        for place, (seconds, name) in enumerate(lacking):
            if seconds > 0 and len(lacking) - place <= spared:
                break
            del self._buckets[name]
