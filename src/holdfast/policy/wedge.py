"""Wedges: a replica that answers pings and makes no step. Its sockets are fine, its /health says 200, and nothing moves.

Two signs, either is enough. Work waits or runs, and the step counter stands still, by the replica's own word at the beginning
and at the end of the time. Or nothing is known to run, and two canaries in a row, of one token each, were left without an
answer: some engines wedge while idle and count wrongly when they do, so idleness is asked for and never assumed.

    limit = clamp(STEPS * slowest recent step, wedged_s, cap_s) + prefill allowance

Regimes. Steps of milliseconds: `wedged_s` decides. Engines whose own steps are slow (large prompts read in one step, processors):
five of the slowest that were seen. Fresh boots, of which no step is known: the first one compiles kernels and captures graphs,
and gets the whole cap. When our own loop was late meanwhile, limits are doubled for this round: suspect the observer first.

What rests on one multiple of the limit is a suspicion and obeys the half rule. At CERTAIN times the limit it is none any more: a
replica that has work and has not moved for so long serves nobody, and ending it takes nothing away, be it the last one.
"""

from msgspec import Struct

STEPS = 5.0
CERTAIN = 6.0
UNANSWERED_MAX = 2


class Limits(Struct, frozen=True, kw_only=True):
    """Settings, in seconds."""

    wedged_s: float = 5.0
    cap_s: float = 60.0
    prefill_s_per_token: float = 0.001


class Signs(Struct, frozen=True, kw_only=True):
    """One replica at one moment.

    `still_s`: for so long, by its own word, it had work and its step counter stood; 0 when it moved or was idle. `slowest_s`: the
    slowest step seen lately; None while none is known. `unanswered`: canaries in a row that got no token while nothing moved.
    """

    still_s: float = 0.0
    slowest_s: float | None = None
    prefill_tokens: int = 0  # that one step may be reading
    doubtful: bool = False  # our own loop was late meanwhile
    unanswered: int = 0


class Moving(Struct, frozen=True):
    """It moves, or is within its limit."""


class Wedged(Struct, frozen=True):
    """It makes no progress. `certain`: for so long that it is no suspicion any more."""

    why: str
    certain: bool


MOVING = Moving()


def limit_s(signs: Signs, limits: Limits) -> float:
    """How long its step counter may stand still while there is work, in seconds."""
    if signs.slowest_s is None:
        base = max(limits.cap_s, limits.wedged_s)
    else:
        base = max(limits.wedged_s, min(STEPS * signs.slowest_s, limits.cap_s))
    base += 2 * limits.prefill_s_per_token * signs.prefill_tokens
    return 2 * base if signs.doubtful else base


def of_replica(signs: Signs, limits: Limits) -> Moving | Wedged:
    """Judge one replica."""
    limit = limit_s(signs, limits)
    if signs.still_s > limit:
        return Wedged(
            f"it answers pings, but has made no step for {signs.still_s:.1f} s while it had work; the limit is {limit:.1f} s",
            signs.still_s > CERTAIN * limit,
        )
    if signs.unanswered >= UNANSWERED_MAX:
        return Wedged(
            f"it answers pings, but {signs.unanswered} canaries in a row got no token and no step was made",
            signs.unanswered > CERTAIN,
        )
    return MOVING
