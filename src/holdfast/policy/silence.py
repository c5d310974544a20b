"""Silence: when is a quiet replica a lost one? Found from the streams themselves, since a frozen engine's /health stays 200.

Evidence is the time since the last frame of any kind while something was owed: tokens of a stream, or the answer to a ping
(a replica answers pings between two steps, so an answer proves that its loop turns). The limit follows the cadence that this
replica has shown:

    limit = clamp(factor * q99(gaps), floor, cap) + prefill allowance

Regimes. Learnt and steady: q99 is a few steps, the floor decides, a freeze is found in a third of a second. Starved machine:
gaps grow for everybody, q99 follows, the limit with it. Fresh replica (fewer than GAPS_MIN gaps known): a fixed, patient
limit. Long prompt: each prefill chunk is one step, whose length is learnt per token; the allowance covers it.

Two safeguards against blaming others: when our own loop was late, this round says nothing (Lifeguard's rule: suspect the
observer first), and where nobody else could take the streams, moving helps nobody, so only the cap counts.
Moving is early because it is cheap and exact where continuation is exact; ending a process is the supervisor's, and late.
Per stream the same form with a floor of its own: one silent stream on a replica that serves others is moved alone.
"""

from dataclasses import dataclass, field
from math import floor, log

from msgspec import Struct

GAPS_MIN = 50
_SMALLEST_S, _RATIO, _BUCKETS = 0.0005, 1.25, 56  # 0.5 ms to 134 s
_HALF_LIFE_GAPS = 2000


@dataclass
class Cadence:
    """A decaying histogram of gaps in geometric buckets: recent gaps weigh more, old ones halve every 2000."""

    weights: list[float] = field(default_factory=lambda: [0.0] * _BUCKETS)
    total: float = 0.0
    count: int = 0
    scale: float = 1.0

    def add(self, gap_s: float) -> None:
        """Learn one gap, in seconds."""
        index = 0 if gap_s <= _SMALLEST_S else min(_BUCKETS - 1, 1 + floor(log(gap_s / _SMALLEST_S) / log(_RATIO)))
        self.weights[index] += self.scale
        self.total += self.scale
        self.count += 1
        self.scale *= 2 ** (1 / _HALF_LIFE_GAPS)
        if self.scale > 1e9:
            self.weights = [weight / self.scale for weight in self.weights]
            self.total /= self.scale
            self.scale = 1.0

    def quantile(self, share: float) -> float:
        """The gap, in seconds, that `share` of the weight does not exceed: its bucket's upper edge."""
        if self.total <= 0:
            return 0.0
        left = self.total * share
        for index, weight in enumerate(self.weights):
            left -= weight
            if left <= 1e-12 * self.total:
                return _SMALLEST_S * _RATIO**index
        return float(_SMALLEST_S * _RATIO ** (_BUCKETS - 1))


class Patience(Struct, frozen=True, kw_only=True):
    """Settings, in seconds. `floor_s` is for a whole replica, `stream_floor_s` for one stream on a replica that moves."""

    floor_s: float = 0.35
    cap_s: float = 20.0
    factor: float = 6.0
    unlearned_s: float = 2.0
    stream_floor_s: float = 2.0
    first_token_s: float = 10.0
    prefill_s_per_token: float = 0.001


class Evidence(Struct, frozen=True, kw_only=True):
    """One line at one moment. `owed_since` is when the oldest unanswered thing was asked, None if nothing is owed."""

    last_frame_at: float
    owed_since: float | None
    q99_s: float
    gaps: int
    prefill_tokens: int = 0  # the largest prompt (at most one chunk's worth) still waiting for its first token
    others: int = 1  # live, unsuspected replicas that could take over


class Quiet(Struct, frozen=True):
    """Nothing to do: it moves, or is within its limit."""


class Silent(Struct, frozen=True):
    """It must be taken for lost. `silent_s` is how long nothing came."""

    silent_s: float
    why: str


QUIET = Quiet()


def limit_s(evidence: Evidence, patience: Patience) -> float:
    """How long this replica may stay silent, in seconds."""
    if evidence.others == 0:
        return patience.cap_s
    base = patience.unlearned_s if evidence.gaps < GAPS_MIN else max(patience.floor_s, patience.factor * evidence.q99_s)
    return min(patience.cap_s, base + 2 * patience.prefill_s_per_token * evidence.prefill_tokens)


def of_replica(evidence: Evidence, patience: Patience, now: float) -> Quiet | Silent:
    """Judge a whole replica."""
    if evidence.owed_since is None:
        return QUIET
    silent_s = now - max(evidence.last_frame_at, evidence.owed_since)
    limit = limit_s(evidence, patience)
    if silent_s <= limit:
        return QUIET
    return Silent(
        silent_s,
        f"silent for {silent_s * 1000:.0f} ms; its cadence ({evidence.q99_s * 1000:.0f} ms at q99) allows {limit * 1000:.0f} ms",
    )


def of_stream(silent_s: float, evidence: Evidence, patience: Patience, begun: bool) -> Quiet | Silent:
    """Judge one stream on a replica that does move. `begun` tells whether its first token has come."""
    if evidence.others == 0:
        limit = patience.cap_s
    elif begun:
        limit = min(patience.cap_s, max(patience.stream_floor_s, 20 * evidence.q99_s))
    else:
        limit = patience.first_token_s + 2 * patience.prefill_s_per_token * evidence.prefill_tokens
    if silent_s <= limit:
        return QUIET
    what = "no token" if begun else "no first token"
    return Silent(silent_s, f"{what} for {silent_s:.1f} s while its replica serves others; the limit is {limit:.1f} s")
