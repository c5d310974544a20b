"""Expectation: how long will this answer be? Asked before it is made, since what an answer costs is mostly its own length.

A tenant's answers resemble each other more than they resemble its `max_tokens`, which is often a habit (4096 everywhere).
Expected is what nine in ten of its last answers did not exceed, and never more than was asked for: q90 rather than the mean,
because too little is paid by others (the room was promised twice) and too much only by a little waiting. Until a tenant has
had a few answers, a setting stands in. Wrong either way, it is corrected when the answer ends.

Regimes: alike answers: exact. Two kinds of them (short tools, long prose): the long kind, as soon as it is a tenth of them.
A change of habit: known after six answers when they grow, after LAST when they shrink.
"""

from bisect import bisect_left, insort
from collections import deque

LAST = 64  # answers of a tenant that count
KNOWN_MIN = 8  # fewer say nothing yet
TENANTS_MAX = 4096  # remembered; the one that had no answer for longest is forgotten
_SHARE = 0.9


class _Lengths:
    """A tenant's last answers, in order of arrival and in order of size."""

    __slots__ = ("arrived", "expected", "sorted")

    def __init__(self) -> None:
        self.arrived: deque[int] = deque()
        self.sorted: list[int] = []
        self.expected = 0  # 0: not known yet

    def add(self, tokens: int) -> None:
        if len(self.arrived) == LAST:
            del self.sorted[bisect_left(self.sorted, self.arrived.popleft())]
        self.arrived.append(tokens)
        insort(self.sorted, tokens)
        count = len(self.sorted)
        if count >= KNOWN_MIN:
            self.expected = max(1, self.sorted[min(count - 1, int(_SHARE * count))])


class Expectation:
    """`first` is the length in tokens that is expected of a tenant's first answers."""

    def __init__(self, first: int) -> None:
        self.first = first
        self._tenants: dict[str, _Lengths] = {}  # the one that had no answer for longest stands first

    def of(self, tenant: str, max_tokens: int) -> int:
        """Tokens that an answer of at most `max_tokens` is expected to have, at least 1."""
        known = self._tenants.get(tenant)
        expected = known.expected if known is not None and known.expected else self.first
        return expected if expected < max_tokens else max(1, max_tokens)

    def learn(self, tenant: str, tokens: int) -> None:
        """An answer of a tenant ended by itself, after so many tokens. One that was cut off by its client tells nothing."""
        lengths = self._tenants.pop(tenant, None) or _Lengths()
        self._tenants[tenant] = lengths
        lengths.add(tokens)
        if len(self._tenants) > TENANTS_MAX:
            del self._tenants[next(iter(self._tenants))]
