"""Gray: a replica that works, and works slower than its peers under equal load. Every stream it holds pays for that.

Only peers can tell slow from busy. The figure is a replica's median pace (seconds for one step that only makes tokens, as it
counts them itself), over steps at about this batch size; of peers also at larger ones, since a peer that carries more and
is still faster is all the better a witness. The deviation is the modified z-score (Iglewicz and Hoaglin 1993):

    z = 0.6745 * (own median - median of the peers' medians) / spread

The spread is the largest of three: how much the peers differ among themselves (MAD, from three on), how well medians of
samples that noisy can be known at all (1.2533 * MAD / sqrt(n)), and SPREAD_FLOOR of the pace. The floor is what keeps two
equal replicas equal, however quiet the machine: at the default of 3.5 nobody is slow below 1.52 times the pace of its peers.

Regimes. Idle, or nobody at equal load: nothing can be said. Whole machine slow: all are, so nobody is. One throttled GPU: its
median moves within half the window. Long prompts: steps that read prompts are not among the samples.
"""

from collections.abc import Iterable, Sequence
from statistics import median

from msgspec import Struct

SAMPLES_MIN = 20
SPREAD_FLOOR = 0.1
EQUAL_LOAD = 0.8  # peers' steps count from this share of the own batch size on


class Pace(Struct, frozen=True):
    """The steps between two pongs: how long one took on average, in seconds, and how many answers were in it."""

    at: float
    batch: float
    step_s: float


class Even(Struct, frozen=True):
    """As fast as its peers, or nothing to compare it with; the why says which."""

    why: str


class Slow(Struct, frozen=True):
    z: float
    why: str


def of_replica(own: Sequence[Pace], peers: Iterable[Sequence[Pace]], z_max: float) -> Even | Slow:
    """Judge one replica by samples of the same time. Each of `peers` is one replica's samples."""
    if len(own) < SAMPLES_MIN:
        return Even(f"{len(own)} samples of its pace are too few")
    batch = median(one.batch for one in own)
    mine = [one.step_s for one in own if one.batch >= EQUAL_LOAD * batch]
    theirs = [[one.step_s for one in peer if one.batch >= EQUAL_LOAD * batch] for peer in peers]
    theirs = [steps for steps in theirs if len(steps) >= SAMPLES_MIN]
    if not theirs:
        return Even(f"no peer has worked at a batch of {batch:.0f}")
    figures = [median(steps) for steps in theirs]
    usual, pace = median(figures), median(mine)
    spread = max(
        SPREAD_FLOOR * usual,
        _mad(figures) if len(figures) > 2 else 0.0,
        _doubt(mine),
        *(_doubt(steps) for steps in theirs),
    )
    z = 0.6745 * (pace - usual) / spread if spread > 0 else 0.0
    against = f"{pace * 1000:.1f} ms a step at a batch of {batch:.0f}, its peers {usual * 1000:.1f} ms"
    if z > z_max:
        return Slow(z, f"it takes {against}: {z:.1f} deviations slower, the limit is {z_max:g}")
    return Even(f"it takes {against}")


def _mad(values: Sequence[float]) -> float:
    """Median absolute deviation."""
    middle = median(values)
    return median(abs(value - middle) for value in values)


def _doubt(values: Sequence[float]) -> float:
    """How far the median of such values may be from the truth, in units of a MAD."""
    return float(1.2533 * _mad(values) / len(values) ** 0.5)
