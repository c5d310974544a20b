"""Silence: when is a quiet replica a lost one? Found from the streams themselves, since a frozen engine's /health stays 200.

Evidence is the time since the last frame of any kind while something was owed: tokens of a stream, or the answer to a ping
(a replica answers pings between two steps, so an answer proves that its loop turns). Bytes are no evidence. The measure is
phi = -log10 S(t), where S(t) is the share of this replica's own gaps, at this size of batch, that were longer than t: as
counted up to q99, and beyond it an exponential tail with the mean excess that was seen over q99. Phi 5 is a gap that comes
once in 100,000: new work goes elsewhere, nothing moves. Phi 8, once in 100 million: it is taken for lost.

Regimes. Learnt and steady: phi 8 is a few steps away, the floor decides, a freeze is found in a third of a second. Starved
machine: gaps grow for everybody, and q99 with them. A batch size not met before: the nearest known one tells, stretched in
proportion, since a step never grows faster than its batch. Fresh replica: a fixed, patient limit. Long prompt: what is read in
one step stretches that step; the allowance is what a token was seen to cost here, and gaps seen meanwhile are kept apart.

Three safeguards against blaming others: silence is counted only up to the moment when the look was due, and for a while after
a late look all limits are doubled (Lifeguard's rule: suspect the observer first); where nobody else could take the streams,
moving helps nobody, so only the cap counts; and policy/ejection.py keeps half of the replicas in whatever we think of them.
Moving is early because it is cheap and exact where continuation is exact; ending a process is the supervisor's, and late.
Per stream the same form with a floor of its own: one silent stream on a replica that serves others is moved alone.
"""

from dataclasses import dataclass, field
from math import floor, inf, log, log10

from msgspec import Struct

SUSPECT_PHI, MOVE_PHI = 5.0, 8.0
_TAIL_SHARE = 0.01  # beyond q99 the tail is extrapolated
GAPS_MIN = 20  # fewer say nothing about a batch size
_SMALLEST_S, _RATIO, _BUCKETS = 0.0005, 1.25, 56  # 0.5 ms to 134 s
_HALF_LIFE_GAPS = 2000
_EXCESSES_ASSUMED = 4.0  # the assumed tail weighs like so many gaps that were seen
_DECADES = MOVE_PHI + log10(_TAIL_SHARE)  # from q99 to phi 8
_WHOLE_SOONER = 0.9  # a replica without steps is found before its streams are taken for stuck one by one
READING_MIN_TOKENS = 256  # less takes a step whatever it is
_COST_SPAN = (
    4.0  # a measured cost is believed within this span of the configured one: caches flatter it, moods blacken it
)
_COST_MARGIN = 1.5  # a busy neighbour makes the next one dearer still
_COST_FORGETS = 0.999  # with each gap that follows


class Tail(Struct, frozen=True):
    """How long gaps usually are, in seconds: q99, the mean excess over it, and how many were seen."""

    q99_s: float
    excess_s: float
    gaps: int

    def limit_s(self, phi: float) -> float:
        """The silence, in seconds, whose phi this is (2 or more)."""
        return self.q99_s + self.excess_s * (phi + log10(_TAIL_SHARE)) * log(10)

    def stretched(self, times: float) -> "Tail":
        """The same for steps that take so many times as long."""
        return Tail(self.q99_s * times, self.excess_s * times, self.gaps)


NOTHING = Tail(0.0, 0.0, 0)  # known


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
        return _edge_s(self._rank(share)) if self.total > 0 else 0.0

    def survival(self, gap_s: float) -> float:
        """The share of the weight in gaps longer than this."""
        if self.total <= 0:
            return 1.0
        longer = sum(weight for index, weight in enumerate(self.weights) if _edge_s(index) > gap_s * (1 + 1e-9))
        return min(1.0, longer / self.total)

    def tail(self, factor: float) -> Tail:
        """q99 and what lies beyond. Until enough does, the tail is assumed to put phi 8 at `factor` times q99."""
        at = self._rank(1 - _TAIL_SHARE)
        q99_s = _edge_s(at) if self.total > 0 else 0.0
        assumed_s = (factor - 1) * q99_s / (_DECADES * log(10))
        weight, excess_s = _EXCESSES_ASSUMED, _EXCESSES_ASSUMED * assumed_s
        for index in range(at + 1, _BUCKETS):
            if self.weights[index]:
                weight += self.weights[index] / self.scale
                middle_s = (_edge_s(index - 1) + _edge_s(index)) / 2
                excess_s += self.weights[index] / self.scale * (middle_s - q99_s)
        return Tail(q99_s, excess_s / weight, self.count)

    def phi(self, gap_s: float, factor: float) -> float:
        """How astonishing such a gap is: 2 is one in a hundred, 8 one in a hundred million."""
        tail = self.tail(factor)
        if gap_s <= tail.q99_s:
            return -log10(max(self.survival(gap_s), _TAIL_SHARE))
        if tail.excess_s <= 0:
            return inf
        return -log10(_TAIL_SHARE) + (gap_s - tail.q99_s) / (tail.excess_s * log(10))

    def _rank(self, share: float) -> int:
        left = self.total * share
        for index, weight in enumerate(self.weights):
            left -= weight
            if left <= 1e-12 * self.total:
                return index
        return _BUCKETS - 1


def _edge_s(index: int) -> float:
    """A bucket's upper edge: errs towards patience."""
    return float(_SMALLEST_S * _RATIO**index)


class Cost:
    """What reading a prompt token takes: the dearest of late, in seconds a token."""

    def __init__(self) -> None:
        self._dearest_s, self._count = 0.0, 0

    def add(self, seconds: float, tokens: int) -> None:
        """Learn from so many seconds in which so many tokens may have been read."""
        self._count += 1
        self._dearest_s = max(seconds / tokens, self._dearest_s * _COST_FORGETS)

    def s_per_token(self, configured_s: float) -> float:
        """The configured one until enough was measured, and never far from it."""
        if self._count < GAPS_MIN:
            return configured_s
        return min(configured_s * _COST_SPAN, max(configured_s / _COST_SPAN, _COST_MARGIN * self._dearest_s))


class Rhythm:
    """One replica's gaps by size of batch: a bucket for each power of two in flight."""

    def __init__(self) -> None:
        self._cadences: dict[int, Cadence] = {}

    def add(self, gap_s: float, in_flight: int) -> None:
        """Learn one gap, in seconds, that passed with so many streams in flight."""
        bucket = in_flight.bit_length()
        cadence = self._cadences.get(bucket)
        if cadence is None:
            cadence = self._cadences[bucket] = Cadence()
        cadence.add(gap_s)

    def tail(self, in_flight: int, factor: float) -> Tail:
        """What is known of gaps at this size of batch; `gaps` is 0 if nothing is."""
        bucket = in_flight.bit_length()
        for known in range(bucket, max(self._cadences, default=0) + 1):  # a larger batch's steps are no shorter
            if self._knows(known):
                return self._cadences[known].tail(factor)
        for known in range(bucket - 1, 0, -1):  # idle gaps (bucket 0) are those of pings, and tell nothing of steps
            if self._knows(known):
                return self._cadences[known].tail(factor).stretched(2.0 ** (bucket - known))
        return NOTHING

    def knows_idle(self) -> bool:
        """Whether the gaps of an idle replica are known."""
        return self._knows(0)

    def _knows(self, bucket: int) -> bool:
        cadence = self._cadences.get(bucket)
        return cadence is not None and cadence.count >= GAPS_MIN


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
    tail: Tail  # of its frames
    strides: Tail = NOTHING  # of its steps, as seen from here
    in_flight: int = 0
    reading_tokens: int = 0  # prompt tokens that the step under way may be reading
    unread_tokens: int = 0  # of all prompts that still wait for their first token
    reading_s_per_token: float = 0.0
    first_s_per_token: float = 0.0  # what a whole prompt takes until its first token, for each of its tokens
    reads: Tail = NOTHING  # of its frames while it reads prompts, if it does now
    stepped_at: float | None = None  # when a step was last seen to be made while streams wait; None if none waits
    others: int = 1  # live, unsuspected replicas that could take over
    doubt: float = 1.0  # of ourselves: all limits are so many times as long


class Quiet(Struct, frozen=True):
    """Nothing to do: it moves, or is within its limit."""


class Doubtful(Struct, frozen=True):
    """Phi 5: new work goes elsewhere while there is an elsewhere. Nothing moves."""

    silent_s: float
    why: str


class Silent(Struct, frozen=True):
    """Phi 8: it must be taken for lost. `silent_s` is how long nothing came; `limit_s` what it was allowed; `capped` tells
    that it was silent for longer than any replica may be."""

    silent_s: float
    limit_s: float
    why: str
    capped: bool = False


class Wedged(Struct, frozen=True):
    """It answers pings and makes no step though streams wait. `still_s` is how long; `capped` as above."""

    still_s: float
    why: str
    capped: bool = False


QUIET = Quiet()


def limit_s(evidence: Evidence, patience: Patience, phi: float = MOVE_PHI) -> float:
    """How long this replica may stay silent, in seconds. For less than phi 8 the floor is lower in proportion."""
    if evidence.others == 0:
        return patience.cap_s * evidence.doubt
    if evidence.tail.gaps == 0:
        base = patience.unlearned_s
    else:
        base = max(patience.floor_s, evidence.tail.limit_s(MOVE_PHI))
        if phi < MOVE_PHI:
            base = min(base, max(patience.floor_s * phi / MOVE_PHI, evidence.tail.limit_s(phi)))
    base += _reading_s(evidence)
    if evidence.reads.gaps:
        base = max(base, evidence.reads.limit_s(phi))
    return min(patience.cap_s, base) * evidence.doubt


def of_replica(evidence: Evidence, patience: Patience, now: float) -> Quiet | Doubtful | Silent | Wedged:
    """Judge a whole replica."""
    if evidence.owed_since is None:
        return QUIET
    silent_s = now - max(evidence.last_frame_at, evidence.owed_since)
    limit = limit_s(evidence, patience)
    if silent_s > limit:
        tail = evidence.tail
        usual = (
            f"(q99 {tail.q99_s * 1000:.0f} ms with {evidence.in_flight} in flight)" if tail.gaps else "(not known yet)"
        )
        why = f"silent for {silent_s * 1000:.0f} ms; its cadence {usual} allows {limit * 1000:.0f} ms"
        return Silent(silent_s, limit, why, silent_s > patience.cap_s * evidence.doubt)
    wedged = of_steps(evidence, patience, now)
    if isinstance(wedged, Wedged):
        return wedged
    doubt_s = limit_s(evidence, patience, SUSPECT_PHI)
    if silent_s > doubt_s:
        return Doubtful(
            silent_s, f"silent for {silent_s * 1000:.0f} ms: phi {SUSPECT_PHI:g} is at {doubt_s * 1000:.0f} ms"
        )
    return QUIET


def of_steps(evidence: Evidence, patience: Patience, now: float) -> Quiet | Wedged:
    """Judge progress: a replica that answers pings may still be making none. Reading a prompt is allowed for."""
    if evidence.stepped_at is None:
        return QUIET
    still_s = now - evidence.stepped_at
    cap_s = patience.cap_s * evidence.doubt
    limit = cap_s
    if evidence.others > 0:
        base = _WHOLE_SOONER * _stride_s(evidence, patience)
        limit = min(patience.cap_s, base + _reading_s(evidence)) * evidence.doubt
    if still_s <= limit:
        return QUIET
    return Wedged(
        still_s,
        f"it answers pings but made no step for {still_s:.1f} s with {evidence.in_flight} in flight; the limit is {limit:.1f} s",
        still_s > cap_s,
    )


def of_stream(silent_s: float, evidence: Evidence, patience: Patience, begun: bool) -> Quiet | Silent:
    """Judge one stream on a replica that does move. `begun` tells whether its first token has come. Engines may read all
    that waits before they go on with others, so all of it is allowed for."""
    unread_s = 2 * max(evidence.reading_s_per_token, evidence.first_s_per_token) * evidence.unread_tokens
    limit = patience.first_token_s + unread_s
    if begun:
        limit = min(patience.cap_s, _stride_s(evidence, patience) + unread_s)
    if evidence.others == 0:
        limit = max(patience.cap_s, limit)
    limit *= evidence.doubt
    if silent_s <= limit:
        return QUIET
    what = "no token" if begun else "no first token"
    why = f"{what} for {silent_s:.1f} s while its replica serves others; the limit is {limit:.1f} s"
    return Silent(silent_s, limit, why)


def _stride_s(evidence: Evidence, patience: Patience) -> float:
    """How long no step, or no token for one stream, is nothing unusual: phi 8 of the steps that were seen, with a floor."""
    known = evidence.strides.limit_s(MOVE_PHI) if evidence.strides.gaps else 0.0
    return max(patience.stream_floor_s, known)


def _reading_s(evidence: Evidence) -> float:
    """The allowance for prompts that are being read: twice what their tokens were seen to cost."""
    return 2 * evidence.reading_s_per_token * evidence.reading_tokens
