"""The retry budget: what second and later moves of answers may cost, in tokens that are read again.

Every answer's first move is free, and so is every planned one: they are bounded by how much was admitted. Later moves are
what feeds on itself (a move makes a replica busy, a busy replica looks silent, silence moves answers), so they draw from a
bucket: a share of the tokens that were admitted in the last ten seconds, and a floor. A move for silence costs double: the
replica that was left may still be working on it, and it may be our patience that was too short. An empty bucket makes an
answer wait, never fail. The floor is one lane full
of tokens a second: what a replica may be reading again at a time anyway can't start a storm, and a small site that admits
little must not wait for its budget while its replicas idle. Retry budgets of this kind are Finagle's (20 % of deposits over
10 s, with a floor); the unit is ours.
"""

from dataclasses import dataclass, field

WINDOW_S = 10.0
SLICES = 20
STALL_FACTOR = 2
FLOOR_LANES = 10  # lanes full of tokens in a window


@dataclass
class _Slice:
    number: int = -1
    admitted: int = 0
    spent: int = 0


@dataclass
class RetryBudget:
    """`share` of the admitted tokens, and `floor_tokens`, may be read again in any ten seconds; one move always may."""

    share: float = 0.2
    floor_tokens: int = FLOOR_LANES * 16384
    _slices: list[_Slice] = field(default_factory=lambda: [_Slice() for _ in range(SLICES)])

    def admit(self, tokens: int, now: float) -> None:
        """An answer of at most so many tokens, its prompt among them, was let in. `now` in seconds."""
        self._slice(now).admitted += tokens

    def take(self, tokens: int, now: float) -> float:
        """Pay for a move. Returns 0.0 when it was paid, else the seconds after which to ask again (and takes nothing)."""
        current = self._slice(now)
        alive = [one for one in self._slices if one.number > current.number - SLICES]
        spent = sum(one.spent for one in alive)
        limit = self.floor_tokens + self.share * sum(one.admitted for one in alive)
        if spent == 0 or spent + tokens <= limit:
            current.spent += tokens
            return 0.0
        oldest = min(one.number for one in alive if one.spent)
        return max(0.01, (oldest + SLICES) * (WINDOW_S / SLICES) - now)

    def _slice(self, now: float) -> _Slice:
        number = int(now // (WINDOW_S / SLICES))
        one = self._slices[number % SLICES]
        if one.number != number:
            one.number, one.admitted, one.spent = number, 0, 0
        return one
