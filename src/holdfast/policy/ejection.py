"""Ejection: how many replicas may be taken out on suspicion? At most half of those that are wanted, and never the last.

Suspicion is a guess about somebody else. One replica that looks ill probably is; when most of them look ill at once, the
likelier causes are shared (the network, the machine, the load, a rollout, ourselves), and taking them out would turn slow
answers into none. So beyond half the site holds still and tells somebody. The dead are no matter of this policy: a process that
is gone is gone, whatever share of the site it was.
"""

from msgspec import Struct


class Allowed(Struct, frozen=True):
    """It may be taken out."""

    why: str


class Held(Struct, frozen=True):
    """It stays in, suspicion or not: somebody should look."""

    why: str


def may_eject(suspected: int, replicas: int, others: int = 1) -> Allowed | Held:
    """May one more be taken out on suspicion?

    Args:
        suspected: how many are out on suspicion already, this one not among them.
        replicas: how many the site wants, serving or not.
        others: how many could go on serving without this one.
    """
    if others < 1:
        return Held(f"it is the last one that serves, of {replicas}: suspicion is not enough")
    if 2 * (suspected + 1) > replicas:
        return Held(
            f"{suspected + 1} of {replicas} replicas are under suspicion at once: at most half may be taken out"
        )
    return Allowed(f"{suspected + 1} of {replicas} under suspicion, {others} could go on")
